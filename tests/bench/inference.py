"""How close exported networks come to the machine's limit, beside peers and beside the plain export of one of them.

All are timed in one interleaved run, in each runtime and precision that this processor has. The plain export is what
torch.onnx.export writes and the runtime's own example runs. Networks of luma leave the chroma to bicubic, which is not
timed.
From the project's root: python -m tests.bench.inference
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from deploy import openers
from deploy.device import device_facts, runtime_versions
from deploy.engine_facts import Flavour
from deploy.openers import exported_precision, open_candidate
from deploy.openvino_runner import layers_of
from deploy.runners import Frame, RuntimeMissing
from deploy.timing import Timing, time_interleaved
from pipeline.manifest import write_json
from pipeline.metrics import psnr
from pipeline.peer_figures import PUBLISHED
from pipeline.quantise import quantisers
from tests.bench.machine import bandwidth, openvino_infer, openvino_request, peak_macs
from tests.bench.subjects import FEATURE_BYTES, OURS, PLAIN, Subject, bytes_moved, subjects, write

Candidate = tuple[str, str]
CANDIDATES: tuple[Candidate, ...] = tuple(pair for pair in openers.CANDIDATES if pair[0] in ("onnxruntime", "openvino"))
ON_GPU = (
    *(" ".join(pair) for pair in openers.CANDIDATES if pair not in CANDIDATES),
    *(f"{flavour} {precision}" for flavour in get_args(Flavour) for precision in ("fp32", "fp16", "int8")),
)
ELSEWHERE = "this benchmark is of the processor; `sr-pipeline verify` times GPUs"
GOAL = ("openvino", "bf16")
LEAST, LEAST_ELSEWHERE = 1.5, 0.97  # 3 %: what two timings of one network may differ by
LEAST_PARITY_DB = 90.0  # of the fp32 outputs
COUNTED = 30  # frames that operations are counted over
console = Console(stderr=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.inference", description=__doc__)
    parser.add_argument("--lr-size", nargs=2, type=int, default=(360, 640), help="of the frame (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of one operator (%(default)s)")
    parser.add_argument("--rounds", type=int, default=30, help="turns of every network (%(default)s)")
    parser.add_argument("--peers-file", type=Path, metavar="FILE", help="to write for `sr-pipeline report --peers`")
    given = parser.parse_args()
    found = compared(tuple(given.lr_size), given.threads, given.rounds)
    show(found)
    if given.peers_file is not None:
        write_json(given.peers_file, timed_peers(found["networks"]))
    print(json.dumps(found))


def compared(lr_size: tuple[int, int], threads: int, rounds: int) -> dict[str, Any]:
    every = subjects(lr_size)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        work, missing = opened(every, lr_size, threads, Path(folder), stack)
        outputs = {(candidate, name): run() for (candidate, name), run in work.items() if name in (OURS, PLAIN)}
        with console.status(f"timing {len(work)} networks in turns"):
            timings = time_interleaved({json.dumps(key): run for key, run in work.items()}, rounds)
        operations = {
            (candidate, subject.name): operations_ms(candidate, subject, lr_size, threads, Path(folder))
            for candidate in CANDIDATES
            for subject in every
            if (candidate, subject.name) in outputs
        }
    timed = dict(zip(work, timings.values(), strict=True))
    measured = [candidate for candidate in CANDIDATES if " ".join(candidate) not in missing]
    peaks: dict[str, float] = {}
    for runtime, precision in track(measured, "the machine's own limits", console=console, transient=True):
        peaks[precision] = max(peak_macs(runtime, precision, threads), peaks.get(precision, 0.0))
    moving = bandwidth(threads)
    exports = [export_row(candidate, every, timed, outputs, operations, peaks) for candidate in measured]
    return {
        "lr_size": [*lr_size],
        "threads": threads,
        "rounds": rounds,
        "device": device_facts("onnxruntime"),
        "versions": {name: text for runtime, _ in measured for name, text in runtime_versions(runtime).items()},
        "peak_gmacs": {precision: peak / 1e9 for precision, peak in peaks.items()},
        "bandwidth_gb": moving / 1e9,
        "networks": [
            network_row(candidate, subject, lr_size, timed[candidate, subject.name], peaks, moving)
            for candidate in measured
            for subject in every
        ],
        "export": exports,
        "not_run": missing | dict.fromkeys(ON_GPU, ELSEWHERE),
        "passed": GOAL in measured and all(row["passed"] for row in exports),
    }


def opened(
    every: Sequence[Subject], lr_size: tuple[int, int], threads: int, folder: Path, stack: ExitStack
) -> tuple[dict[tuple[Candidate, str], Callable[[], Frame]], dict[str, str]]:
    """What runs one random frame through each network in each candidate; and candidate -> why it cannot run here."""
    work: dict[tuple[Candidate, str], Callable[[], Frame]] = {}
    missing: dict[str, str] = {}
    for candidate in track(CANDIDATES, "writing and opening networks", console=console, transient=True):
        runtime, precision = candidate
        stored = exported_precision(runtime, precision)
        if (runtime, stored) == ("openvino", "int8") and "nncf" not in quantisers():
            missing[" ".join(candidate)] = "nncf is not installed"
            continue
        for subject in every:
            path = model_path(candidate, subject, folder)
            if not path.exists():
                write(subject, runtime, stored, path)
            try:
                runner = stack.enter_context(open_candidate(path, runtime, precision, threads))
            except RuntimeMissing as error:
                missing[" ".join(candidate)] = str(error)
                break
            frame = random_frame(subject, lr_size)
            run = partial(runner.infer, frame)
            if subject.plain and runtime == "openvino":
                request = openvino_request(path.read_bytes(), precision, threads, frame.shape)
                run = partial(openvino_infer, request, frame)
            work[candidate, subject.name] = run
    return work, missing


def model_path(candidate: Candidate, subject: Subject, folder: Path) -> Path:
    return folder / f"{subject.name}.{exported_precision(*candidate)}.{candidate[0]}.onnx"


def random_frame(subject: Subject, lr_size: tuple[int, int]) -> Frame:
    return np.random.default_rng(0).random((1, subject.channels, *lr_size), np.float32)


def operations_ms(
    candidate: Candidate, subject: Subject, lr_size: tuple[int, int], threads: int, folder: Path
) -> dict[str, float]:
    """Operation as the runtime has it -> milliseconds in a frame, the most first. Counting takes time itself."""
    runtime, precision = candidate
    path, frame = model_path(candidate, subject, folder), random_frame(subject, lr_size)
    if subject.plain and runtime == "openvino":
        request = openvino_request(path.read_bytes(), precision, threads, frame.shape, counters=True)
        for _ in range(COUNTED):
            request.infer([frame])
        layers = layers_of(request)
    else:
        with open_candidate(path, runtime, precision, threads, counters=True) as runner:
            for _ in range(COUNTED):
                runner.infer(frame)
            layers = runner.layers()
    found: dict[str, float] = {}
    for layer in layers:
        found[layer.op] = found.get(layer.op, 0.0) + layer.ms
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def network_row(
    candidate: Candidate,
    subject: Subject,
    lr_size: tuple[int, int],
    timing: Timing,
    peaks: Mapping[str, float],
    moving: float,
) -> dict[str, Any]:
    """The timing of a network, and the shares of the machine's peak and of its bandwidth that it reaches."""
    seconds = timing.median_ms / 1e3
    moved = bytes_moved(subject.model, lr_size, FEATURE_BYTES[candidate[1]])
    return {
        "candidate": " ".join(candidate),
        "network": subject.name,
        "color": subject.color,
        "macs": subject.macs,
        "bytes": moved,
        **asdict(timing),
        "gmacs": subject.macs / seconds / 1e9,
        "of_peak": subject.macs / seconds / peaks[candidate[1]],
        "of_bandwidth": moved / seconds / moving,
    }


def export_row(
    candidate: Candidate,
    every: Sequence[Subject],
    timed: Mapping[tuple[Candidate, str], Timing],
    outputs: Mapping[tuple[Candidate, str], Frame],
    operations: Mapping[tuple[Candidate, str], Mapping[str, float]],
    peaks: Mapping[str, float],
) -> dict[str, Any]:
    """The exported graph against the plain one, and the operations of both in ms.

    ceiling: the ratio if only multiply-adds took time, at the peak.
    """
    ours, plain = timed[candidate, OURS].median_ms, timed[candidate, PLAIN].median_ms
    macs = next(subject.macs for subject in every if subject.name == OURS)
    parity = min(psnr(outputs[candidate, PLAIN], outputs[candidate, OURS]), 200.0)
    least = LEAST if candidate == GOAL else LEAST_ELSEWHERE
    return {
        "candidate": " ".join(candidate),
        "plain_ms": plain,
        "ours_ms": ours,
        "ratio": plain / ours,
        "ceiling": plain / (1e3 * macs / peaks[candidate[1]]),
        "least": least,
        "parity_db": parity,
        "operations": {name: operations[candidate, name] for name in (OURS, PLAIN)},
        "passed": plain / ours >= least and (candidate[1] != "fp32" or parity >= LEAST_PARITY_DB),
    }


def timed_peers(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The peers that were timed and whose PSNR is published, as `pipeline.peer_figures.peers_from_file` reads them.

    Without times in int8, in which nobody published their PSNR.
    """
    times: dict[str, dict[str, float]] = {}
    for row in rows:
        if not row["candidate"].endswith("int8"):
            times.setdefault(row["network"], {})[row["candidate"]] = row["median_ms"]
    return [asdict(replace(peer, latency_ms=times[peer.name])) for peer in PUBLISHED if peer.name in times]


def show(found: Mapping[str, Any]) -> None:
    cells = {(row["network"], row["candidate"]): row for row in found["networks"]}
    height, width = found["lr_size"]
    title = f"LR {height}x{width}, {found['threads']} threads: ms, % of peak, % of bandwidth"
    candidates = [*dict.fromkeys(candidate for _, candidate in cells)]
    for runtime in dict.fromkeys(candidate.rpartition(" ")[0] for candidate in candidates):
        shown = [candidate for candidate in candidates if candidate.rpartition(" ")[0] == runtime]
        table = Table(title=f"{runtime}, {title}")
        for heading in ("network", "color", "GMACs", *(candidate.rpartition(" ")[2] for candidate in shown)):
            table.add_column(heading, justify="left" if heading in ("network", "color") else "right")
        for name in dict.fromkeys(name for name, _ in cells):
            rows = [cells[name, candidate] for candidate in shown]
            told = (
                f"{row['median_ms']:.1f} {100 * row['of_peak']:2.0f} {100 * row['of_bandwidth']:2.0f}" for row in rows
            )
            table.add_row(name, rows[0]["color"], f"{rows[0]['macs'] / 1e9:.2f}", *told)
        console.print(table)
    exports = Table(title="the same function, exported plainly and by us")
    for heading in ("candidate", "plain ms", "ours ms", "times as fast", "at most", "asked", "parity dB"):
        exports.add_column(heading, justify="left" if heading == "candidate" else "right")
    for row in found["export"]:
        figures = (row["plain_ms"], row["ours_ms"], row["ratio"], row["ceiling"], row["least"], row["parity_db"])
        exports.add_row(row["candidate"], *(f"{figure:.2f}" for figure in figures))
    console.print(exports)
    spent = Table(title="operations of both, in ms", show_lines=True)
    for heading in ("candidate", "plain", "ours"):
        spent.add_column(heading)
    for row in found["export"]:
        told = (", ".join(f"{op} {ms:.1f}" for op, ms in row["operations"][name].items()) for name in (PLAIN, OURS))
        spent.add_row(row["candidate"], *told)
    console.print(spent)
    peaks = ", ".join(f"{precision} {peak:.0f}" for precision, peak in found["peak_gmacs"].items())
    console.print(f"peak in GMAC/s: {peaks}; bandwidth {found['bandwidth_gb']:.0f} GB/s")
    for candidate, reason in found["not_run"].items():
        console.print(f"not run: {candidate}: {reason}")


if __name__ == "__main__":
    main()
