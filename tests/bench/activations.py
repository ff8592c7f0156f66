"""What the activations of the `edge` space cost in each runtime and precision: one network, with each in turn.

All are timed in one interleaved run. From the project's root: python -m tests.bench.activations
"""

import argparse
import json
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.device import device_facts
from deploy.timing import time_interleaved
from pipeline.architecture import ACTIVATIONS, Architecture, Cell
from tests.bench.inference import opened
from tests.bench.subjects import random_network, subject_from_network

CELL = Cell(("conv3", "conv3"), (16,))
# 16K MACs per LR pixel, of the width that most networks under a budget of time have: onnxruntime computes 16 channels
# at once, and adds and rectifies them in one go with a convolution
NETWORK = Architecture("edge", 2, "rgb", 16, (CELL,) * 3, skip="conv3")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.activations", description=__doc__)
    parser.add_argument("--lr-size", nargs=2, type=int, default=(360, 640), help="of the frame (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of one operator (%(default)s)")
    parser.add_argument("--rounds", type=int, default=30, help="turns of every network (%(default)s)")
    given = parser.parse_args()
    height, width = given.lr_size
    lr_size = height, width
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        networks = {name: random_network(replace(NETWORK, activation=name)) for name in ACTIVATIONS}
        every = [subject_from_network(name, network, lr_size) for name, network in networks.items()]
        work, missing = opened(every, lr_size, given.threads, Path(folder), stack)
        timings = time_interleaved({json.dumps(key): run for key, run in work.items()}, given.rounds)
    ms: dict[str, dict[str, float]] = {}
    for (candidate, name), timing in zip(work, timings.values(), strict=True):
        ms.setdefault(" ".join(candidate), {})[name] = timing.median_ms
    ratios = {one: {name: took / row["relu"] for name, took in row.items()} for one, row in ms.items()}
    table = Table("runtime, precision", *ACTIVATIONS, title="milliseconds, and times those of relu")
    for one, row in ms.items():
        table.add_row(one, *(f"{row[name]:.1f}, {ratios[one][name]:.2f}" for name in ACTIVATIONS))
    Console(stderr=True).print(table)
    told = {"lr_size": lr_size, "threads": given.threads, "rounds": given.rounds, "not_run": missing}
    print(json.dumps({**told, "device": device_facts("onnxruntime"), "ms": ms, "ratios": ratios, "passed": bool(ms)}))


if __name__ == "__main__":
    main()
