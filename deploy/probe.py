"""Opens one model in a process of its own: what loading it, its first frame and its memory take."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.openers import PRECISIONS, RUNTIMES, open_candidate
from deploy.runners import DeployError

FRAMES = 3  # after the first: memory has settled by then
ROOT = Path(__file__).parents[1]


def probe(path: Path, runtime: str, precision: str, lr_size: tuple[int, int], threads: int | None) -> dict[str, Any]:
    """load_ms, first_ms: opening the model, and its first frame of `lr_size`, with the import of the runtime in the
    first of them. peak_memory_mib: most that the process held at once, Python and the runtime included; on Linux only,
    else None. model_bytes: of the file.

    Figures of this process: call it in a fresh one, as `probe_in_own_process` does.
    Raises RuntimeMissing, ModelUnreadable.
    """
    start = time.perf_counter()
    with open_candidate(path, runtime, precision, threads) as runner:
        loaded = time.perf_counter()
        frame = np.zeros((1, 3 if runner.metadata.color == "rgb" else 1, *lr_size), np.float32)
        begun = time.perf_counter()
        runner.infer(frame)
        first = time.perf_counter()
        for _ in range(FRAMES):
            runner.infer(frame)
    return {
        "load_ms": (loaded - start) * 1e3,
        "first_ms": (first - begun) * 1e3,
        "peak_memory_mib": _peak_memory(),
        "model_bytes": path.stat().st_size,
    }


def probe_in_own_process(
    path: Path, runtime: str, precision: str, lr_size: tuple[int, int], threads: int | None
) -> dict[str, Any]:
    """`probe` in a new process of this Python. Raises DeployError with what that process says where it fails."""
    size = f"{lr_size[0]}x{lr_size[1]}"
    command = [sys.executable, "-m", "deploy.probe", str(path.resolve()), runtime, precision, size]
    search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [*command, *([] if threads is None else ["--threads", str(threads)])],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": search_path},
    )
    if done.returncode != 0:
        last = (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
        raise DeployError(f"{runtime} {precision} fails on {path}: {last}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _peak_memory() -> float | None:
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures of one model as JSON. Ends with a line on stderr and exit code 1 where it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m deploy.probe", description="What one model takes to start here.")
    parser.add_argument("model", type=Path)
    parser.add_argument("runtime", choices=RUNTIMES)
    parser.add_argument("precision", choices=PRECISIONS)
    parser.add_argument("lr_size", metavar="HxW", help="LR frame, as 360x640")
    parser.add_argument("--threads", type=int, help="of one operator; the runtime chooses if not given")
    given = parser.parse_args(arguments)
    height, times, width = given.lr_size.partition("x")
    if not (times and height.isdecimal() and width.isdecimal()):
        parser.error(f"{given.lr_size!r} is no height x width, as 360x640")
    try:
        figures = probe(given.model, given.runtime, given.precision, (int(height), int(width)), given.threads)
    except DeployError as error:
        raise SystemExit(f"error: {error}") from error
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
