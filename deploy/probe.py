"""Measures one model in a process of its own: loading, first frame, steady frames, memory, and each of its layers."""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.device import runtime_versions, usable_cores
from deploy.measure import one_frame
from deploy.openers import PRECISIONS, RUNTIMES, open_candidate, positive_int
from deploy.runners import DeployError, in_one_line
from deploy.timing import time_interleaved

RUNS = 30
COUNTED = 8  # frames that the layers are counted over


def measure_model(
    path: Path, runtime: str, precision: str, lr_size: tuple[int, int], threads: int | None = None, runs: int = RUNS
) -> dict[str, Any]:
    """What one model takes in this process, as values of JSON. lr_size: (height, width) of the frame.

    load_ms: to a runner, the import of the runtime included. first_ms: of the first frame, for which OpenVINO compiles.
    median_ms, p10_ms, p90_ms, p99_ms, runs: of the frames after it. peak_memory_mib: the most that this process ever
    held; base_memory_mib: what it held at the beginning. model_bytes: of the file. layers: name, op and ms of each
    layer in one frame; counting takes time, so that their sum is above the median.
    Peak memory, load_ms and first_ms are those of the model alone in a fresh process: see `measure_model_apart`.
    Raises RuntimeMissing, ModelUnreadable, and DeployError where the model takes no frames of this size.
    """
    runtime_versions(runtime)
    base = memory_mib("VmRSS")
    start = time.perf_counter()
    with open_candidate(path, runtime, precision, threads) as runner:
        loaded = time.perf_counter()
        infer = one_frame(runner, lr_size)
        before = time.perf_counter()
        infer()
        first = time.perf_counter()
        timing = time_interleaved({"model": infer}, runs)["model"]
        peak = memory_mib("VmHWM")
    with open_candidate(path, runtime, precision, threads, counters=True) as counting:
        infer = one_frame(counting, lr_size)
        for _ in range(COUNTED):
            infer()
        layers = counting.layers()
    return {
        "runtime": runtime,
        "precision": precision,
        "lr_size": [*lr_size],
        "threads": threads or usable_cores(),
        "load_ms": (loaded - start) * 1e3,
        "first_ms": (first - before) * 1e3,
        **asdict(timing),
        "base_memory_mib": base,
        "peak_memory_mib": peak,
        "model_bytes": path.stat().st_size,
        "layers": [asdict(layer) for layer in layers],
    }


def measure_model_apart(
    path: Path, runtime: str, precision: str, lr_size: tuple[int, int], threads: int | None = None, runs: int = RUNS
) -> dict[str, Any]:
    """`measure_model` in a fresh process, in which nothing but the runtime takes memory. Raises DeployError."""
    height, width = lr_size
    command = [
        sys.executable,
        "-P",
        "-m",
        "deploy.probe",
        str(path),
        f"--runtime={runtime}",
        f"--precision={precision}",
    ]
    command += [f"--lr-size={height}x{width}", f"--runs={runs}", *([] if threads is None else [f"--threads={threads}"])]
    search = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2].removeprefix("error: ")
        raise DeployError(reason or f"the process that measured {path} ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def memory_mib(name: str) -> float:
    """VmRSS, what this process holds, or VmHWM, the most that it held; elsewhere than on Linux always the latter."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on other systems
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def height_x_width(text: str) -> tuple[int, int]:
    """(360, 640) of "360x640". Raises ValueError."""
    height, width = (positive_int(side) for side in text.split("x"))
    return height, width


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON object. Ends with a line on stderr and exit code 1 where it cannot, 2 for a wrong argument."""
    parser = argparse.ArgumentParser(prog="python -m deploy.probe", description="Measure one exported model.")
    parser.add_argument("model", type=Path, help="a model of `sr-pipeline export`")
    parser.add_argument("--runtime", choices=RUNTIMES, default="onnxruntime", help="(default: %(default)s)")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="(default: %(default)s)")
    parser.add_argument(
        "--lr-size", type=height_x_width, default="360x640", help="HEIGHTxWIDTH of the frame (default: %(default)s)"
    )
    parser.add_argument("--threads", type=positive_int, help="of one operator (default: the runtime's choice)")
    parser.add_argument("--runs", type=positive_int, default=RUNS, help="(default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        result = measure_model(given.model, given.runtime, given.precision, given.lr_size, given.threads, given.runs)
    except (DeployError, ValueError) as error:
        raise SystemExit(in_one_line(error)) from error
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
