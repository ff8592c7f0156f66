"""Whether a `trilevel` search comes out no worse than the best published network of its budget, trained for as long.

x4 with the MACs of B-1 (Wu et al., arXiv 2101.06658): a search of so many steps, and B-1 from scratch on the same
batches for as long, in turns with what was found. From the project's root: python -m tests.bench.trilevel
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.architecture import summary
from pipeline.budget import Budget, cost_from_architecture
from pipeline.data import Pair, load_pairs
from pipeline.network import load_network, network_from_architecture
from pipeline.search import search
from pipeline.torch_runner import Device, device_named
from pipeline.training import Progress as SearchProgress
from pipeline.training import Recipe
from tests.bench.board_file import search_version
from tests.bench.figures import MEASURED, TRAINED, of_machine, with_mean
from tests.bench.published import published
from tests.bench.trainer import Schedule, Trainer, scores

LR_SIZE = (256, 256)
LEAST_TIME = 0.95  # of the search, that B-1 has to have been given
TIMED = 100  # steps of each, in turns, that the steps of B-1 are reckoned from; fewer in a search of few steps
console = Console(stderr=True)
B_1 = published("B-1")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.trilevel", description=__doc__)
    parser.add_argument(
        "--steps", type=int, default=12000, help="of the search and the training after it (%(default)s)"
    )
    parser.add_argument("--batch", type=int, default=4, help="patches of a step (%(default)s)")
    parser.add_argument("--patch", type=int, default=24, help="side of an LR patch (%(default)s)")
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate of both (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of both (%(default)s)")
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
        given.seed,
        precision=given.precision,
        device=given.device,
    )
    told = {name: getattr(given, name) for name in ("steps", "batch", "patch", "rate", "seed", "precision")}
    told |= {"trained_on": TRAINED, **of_machine(given.device), "search_version": search_version()}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("search, and B-1", total=given.steps)
        rival = Rival(recipe, pairs)
        ours = searched(recipe, pairs, rival, lambda step: bar.update(task, completed=step))
        beside = rival.finished()
    for row in (ours, beside):
        row["psnr_y"] = with_mean(scores(row.pop("trained"), "rgb", 4, benchmarks))
        console.print(f"{row['architecture']}: {row['psnr_y']['mean']:.3f} dB after {row['seconds']:.0f} s")
    gain = ours["psnr_y"]["mean"] - beside["psnr_y"]["mean"]
    passed = gain >= 0.0 and beside["seconds"] >= LEAST_TIME * ours["seconds"]
    print(json.dumps({**told, "search": ours, "B-1": beside, "gain_db": gain, "passed": passed}))


class Rival:
    """B-1, trained in turns with the network of a search, for as long as search and training take.

    Both then meet the same changes in the speed of the machine. A schedule has to know its end, so the first steps
    after the cut are timed beside steps of another B-1, whose training is thrown away.
    """

    def __init__(self, recipe: Recipe, pairs: Sequence[Pair]) -> None:
        self.recipe, self.pairs = recipe, pairs
        self.timed = self._trainer(TIMED)
        self.training: list[float] = []  # seconds of the search's steps after its cut, as many as are timed
        self.trainer: Trainer | None = None
        self.first = 0  # step of the search after which B-1 begins
        self.seconds = 0.0  # of the search so far

    def follow(self, at: SearchProgress) -> None:
        """After each step of the search: B-1's share of the time."""
        assert at.seconds is not None
        if self.trainer is not None:
            share = (at.step - self.first) / (at.steps - self.first)
            self.trainer.advance(round(share * self.trainer.schedule.steps) - self.trainer.step)
        elif at.phase == "train":
            self.training.append(at.seconds - self.seconds)
            self.timed.advance(1)
            if len(self.training) >= min(TIMED, at.steps // 2):
                steps = (at.seconds + median(self.training) * (at.steps - at.step)) / (self.timed.step_ms / 1e3)
                self.first, self.trainer = at.step, self._trainer(max(1, round(steps)))
        self.seconds = at.seconds

    def finished(self) -> dict[str, Any]:
        assert self.trainer is not None
        self.trainer.advance(self.trainer.schedule.steps)
        return {
            "architecture": summary(B_1),
            "steps": self.trainer.step,
            "step_seconds": self.trainer.step_ms / 1e3,
            "seconds": sum(self.trainer.seconds),
            "trained": self.trainer.network.eval(),
        }

    def _trainer(self, steps: int) -> Trainer:
        recipe = self.recipe
        precision: Literal["bf16", "fp32"] = "bf16" if recipe.precision == "bf16" else "fp32"
        device = device_named(recipe.device)
        schedule = Schedule(steps, recipe.batch, recipe.patch, recipe.rate, recipe.seed, precision, device)
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            network = network_from_architecture(B_1)
        return Trainer(network, "rgb", 4, self.pairs, schedule)


def searched(recipe: Recipe, pairs: Sequence[Pair], rival: Rival, look: Callable[[int], None]) -> dict[str, Any]:
    budget = Budget(LR_SIZE, macs=cost_from_architecture(B_1, LR_SIZE).macs)

    def told(at: SearchProgress) -> None:
        rival.follow(at)
        look(at.step)

    with TemporaryDirectory() as folder:
        report = search(Path(folder), recipe, budget, pairs, inputs={}, on_progress=told)
        network = load_network(Path(folder) / "search" / "weights.safetensors")
    kept = ("share", "cut_step", "cut_gap_db", "step_seconds")
    return {
        "architecture": summary(network.architecture),
        **{name: report[name] for name in kept},
        "seconds": sum(report["seconds"].values()),
        "trained": network,
    }


if __name__ == "__main__":
    main()
