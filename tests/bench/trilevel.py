"""Whether a `trilevel` search comes out no worse than the best published network of its budget, trained for as long.

x4 with the MACs of B-1 (Wu et al., arXiv 2101.06658): a search of so many steps, and then B-1 from scratch, on the same
images and batches, for the wall time that the search took. From the project's root: python -m tests.bench.trilevel
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deploy.device import device_facts
from pipeline.architecture import summary
from pipeline.budget import Budget, cost_from_architecture
from pipeline.data import Pair, load_pairs
from pipeline.network import load_network, network_from_architecture
from pipeline.search import search
from pipeline.torch_runner import Device, device_named
from pipeline.training import Recipe
from tests.bench.figures import MEASURED, TRAINED, with_mean
from tests.bench.published import published
from tests.bench.trainer import Schedule, Trainer, scores

LR_SIZE = (256, 256)
LEAST_TIME = 0.95  # of the search, that B-1 has to have been given
TIMED = 20  # steps of B-1 that its number of steps is reckoned from
console = Console(stderr=True)
B_1 = published("B-1")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.trilevel", description=__doc__)
    parser.add_argument("--steps", type=int, default=5000, help="of the search and the training after it (%(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="patches of a step (%(default)s)")
    parser.add_argument("--patch", type=int, default=24, help="side of an LR patch (%(default)s)")
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate of both (%(default)s)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="of training (%(default)s)")
    parser.add_argument("--device", choices=get_args(Device), default="cpu", help="to train on (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SR_DATA", "../shared/data")))
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no CUDA device")
    pairs = load_pairs([given.data / name for name in TRAINED], 4)
    benchmarks = {name: load_pairs([given.data / "benchmarks" / name], 4) for name in MEASURED}
    recipe = Recipe(
        "trilevel",
        4,
        "rgb",
        "sorted",
        given.steps,
        given.batch,
        given.patch,
        given.rate,
        0,
        precision=given.precision,
        device=given.device,
    )
    told = {"steps": given.steps, "batch": given.batch, "patch": given.patch, "rate": given.rate}
    told |= {"precision": given.precision, "trained_on": TRAINED, "threads": torch.get_num_threads()}
    told |= {"torch": torch.__version__, "device": device_facts(f"torch {given.device}")}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        ours = searched(recipe, pairs, _look(bar, "search", given.steps))
        published = trained(recipe, ours["seconds"], pairs, lambda steps: _look(bar, "B-1", steps))
    for row in (ours, published):
        row["psnr_y"] = with_mean(scores(row.pop("trained"), "rgb", 4, benchmarks))
        console.print(f"{row['architecture']}: {row['psnr_y']['mean']:.3f} dB after {row['seconds']:.0f} s")
    gain = ours["psnr_y"]["mean"] - published["psnr_y"]["mean"]
    passed = gain >= 0.0 and published["seconds"] >= LEAST_TIME * ours["seconds"]
    print(json.dumps({**told, "search": ours, "B-1": published, "gain_db": gain, "passed": passed}))


def searched(recipe: Recipe, pairs: Sequence[Pair], look: Callable[[int], None]) -> dict[str, Any]:
    budget = Budget(LR_SIZE, macs=cost_from_architecture(B_1, LR_SIZE).macs)
    with TemporaryDirectory() as folder:
        report = search(Path(folder), recipe, budget, pairs, inputs={}, on_progress=lambda at: look(at.step))
        network = load_network(Path(folder) / "search" / "weights.safetensors")
    kept = ("share", "cut_step", "cut_gap_db", "step_seconds")
    return {
        "architecture": summary(network.architecture),
        **{name: report[name] for name in kept},
        "seconds": sum(report["seconds"].values()),
        "trained": network,
    }


def trained(
    recipe: Recipe, seconds: float, pairs: Sequence[Pair], looking: Callable[[int], Callable[[int], None]]
) -> dict[str, Any]:
    """B-1, by a schedule that ends after so many seconds."""
    precision: Literal["bf16", "fp32"] = "bf16" if recipe.precision == "bf16" else "fp32"
    device = device_named(recipe.device)
    schedule = Schedule(TIMED, recipe.batch, recipe.patch, recipe.rate, recipe.seed, precision, device)
    timed = _trainer(schedule, pairs)
    timed.advance(TIMED)
    schedule = replace(schedule, steps=max(1, round(seconds / median(timed.seconds))))
    trainer, look = _trainer(schedule, pairs), looking(schedule.steps)
    trainer.advance(schedule.steps, lambda step, _: look(step))
    return {
        "architecture": summary(B_1),
        "steps": schedule.steps,
        "step_seconds": trainer.step_ms / 1e3,
        "seconds": sum(trainer.seconds),
        "trained": trainer.network.eval(),
    }


def _trainer(schedule: Schedule, pairs: Sequence[Pair]) -> Trainer:
    torch.manual_seed(schedule.seed)
    return Trainer(network_from_architecture(B_1), "rgb", 4, pairs, schedule)


def _look(bar: Progress, name: str, steps: int) -> Callable[[int], None]:
    task = bar.add_task(name, total=steps)
    return lambda step: bar.update(task, completed=step)


if __name__ == "__main__":
    main()
