"""How close exported networks come to the machine's limit, beside peers and beside the plain export of one of them.

All are timed in one interleaved run, in each runtime and precision that this processor has, with random weights, which
take the time that trained ones take. The plain export is what torch.onnx.export writes, in fp16 what onnxruntime's
converter makes of that, run as the runtime's own example does. Networks of luma leave the chroma to bicubic, which is
not timed.
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

from deploy.device import device_facts, runtime_versions
from deploy.engine_facts import Flavour
from deploy.openers import CANDIDATES as EVERY
from deploy.openers import exported_precision, open_candidate
from deploy.openvino_runner import layers_of
from deploy.runners import Frame, Layer, RuntimeMissing
from deploy.timing import Timing, time_interleaved
from pipeline.manifest import write_json
from pipeline.metrics import psnr
from pipeline.peer_figures import PUBLISHED
from pipeline.quantise import quantisers
from pipeline.report_latency import ms_by_operation
from tests.bench.machine import bandwidth, openvino_infer, openvino_request, peak_macs
from tests.bench.subjects import FEATURE_BYTES, OURS, PLAIN, Subject, bytes_moved, subjects, write

Candidate = tuple[str, str]
CANDIDATES: tuple[Candidate, ...] = tuple(pair for pair in EVERY if pair[0] in ("onnxruntime", "openvino"))
ON_GPU = (
    *(" ".join(pair) for pair in EVERY if pair not in CANDIDATES),
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
        measured = [candidate for candidate in CANDIDATES if " ".join(candidate) not in missing]
        outputs = {(candidate, name): run() for (candidate, name), run in work.items() if name in (OURS, PLAIN)}
        with console.status(f"timing {len(work)} networks in turns"):
            timings = time_interleaved({json.dumps(key): run for key, run in work.items()}, rounds)
        pair = [subject for subject in every if subject.name in (OURS, PLAIN)]
        operations = {
            candidate: operations_ms(candidate, pair, lr_size, threads, Path(folder)) for candidate in measured
        }
    timed = dict(zip(work, timings.values(), strict=True))
    peaks: dict[str, float] = {}
    units = {(candidate[0], computed(candidate)) for candidate in measured}
    for runtime, precision in track(sorted(units), "the machine's own limits", console=console, transient=True):
        peaks[precision] = max(peak_macs(runtime, precision, threads), peaks.get(precision, 0.0))
    moving = bandwidth(threads)
    exports = [export_row(candidate, every, timed, outputs, operations[candidate], peaks) for candidate in measured]
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
                work[candidate, subject.name], _ = opened_subject(candidate, subject, path, lr_size, threads, stack)
            except RuntimeMissing as error:
                missing[" ".join(candidate)] = str(error)
                break
    return work, missing


def opened_subject(
    candidate: Candidate,
    subject: Subject,
    path: Path,
    lr_size: tuple[int, int],
    threads: int,
    stack: ExitStack,
    *,
    counters: bool = False,
) -> tuple[Callable[[], Frame], Callable[[], list[Layer]]]:
    """What runs one random frame, and what tells its layers afterwards, with `counters`. Raises RuntimeMissing."""
    frame = np.random.default_rng(0).random((1, subject.channels, *lr_size), np.float32)
    runner = stack.enter_context(open_candidate(path, *candidate, threads, counters=counters))
    if not (subject.plain and candidate[0] == "openvino"):
        return partial(runner.infer, frame), runner.layers
    request = openvino_request(path.read_bytes(), candidate[1], threads, frame.shape, counters=counters)
    return partial(openvino_infer, request, frame), partial(layers_of, request)


def model_path(candidate: Candidate, subject: Subject, folder: Path) -> Path:
    return folder / f"{subject.name}.{exported_precision(*candidate)}.{candidate[0]}.onnx"


def computed(candidate: Candidate) -> str:
    """The precision of the multiply-adds: onnxruntime has no kernels for fp16 on a processor, and casts to fp32."""
    return "fp32" if candidate == ("onnxruntime", "fp16") else candidate[1]


def operations_ms(
    candidate: Candidate, pair: Sequence[Subject], lr_size: tuple[int, int], threads: int, folder: Path
) -> dict[str, dict[str, float]]:
    """Name -> operation as the runtime has it -> ms in a frame, the most first. The networks run in turns.

    Counting takes time itself, and what neighbours take counts too: these say where time goes, not how much it is.
    """
    with ExitStack() as stack:
        both = {
            subject.name: opened_subject(
                candidate, subject, model_path(candidate, subject, folder), lr_size, threads, stack, counters=True
            )
            for subject in pair
        }
        for _ in range(COUNTED):
            for run, _ in both.values():
                run()
        return {name: ms_by_operation((layer.op, layer.ms) for layer in layers()) for name, (_, layers) in both.items()}


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
    moved = bytes_moved(subject.model, lr_size, FEATURE_BYTES[computed(candidate)])
    return {
        "candidate": " ".join(candidate),
        "network": subject.name,
        "color": subject.color,
        "macs": subject.macs,
        "bytes": moved,
        **asdict(timing),
        "gmacs": subject.macs / seconds / 1e9,
        "of_peak": subject.macs / seconds / peaks[computed(candidate)],
        "of_bandwidth": moved / seconds / moving,
    }


def export_row(
    candidate: Candidate,
    every: Sequence[Subject],
    timed: Mapping[tuple[Candidate, str], Timing],
    outputs: Mapping[tuple[Candidate, str], Frame],
    operations: Mapping[str, Mapping[str, float]],
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
        "ceiling": plain / (1e3 * macs / peaks[computed(candidate)]),
        "least": least,
        "parity_db": parity,
        "operations": operations,
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
