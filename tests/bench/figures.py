"""What every row of the scoreboard is trained and measured on, and the figures that all of them state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import nn

from deploy.device import device_facts
from pipeline.architecture import Architecture, Color, summary
from pipeline.budget import cost_from_architecture
from pipeline.data import Pair, load_pairs
from pipeline.images import hash_folders
from pipeline.torch_runner import Device
from tests.bench.board import LR_SIZE, PIXELS
from tests.bench.trainer import Trainer, scores

TRAINED = ("train/BSDS200", "train/T91")
MEASURED = ("Set5", "Set14", "B100")
BATCH, PATCH, QUICK_BATCH, QUICK_PATCH = 16, 48, 2, 16
QUICK_IMAGES = "scikit-image:test"

Results = Mapping[str, Mapping[str, Any]]  # name of a finished row -> what is known of it


class NotRun(Exception):
    """Why a row cannot run here or now."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where images are: `trained_on` are folders in `folder`. quick: crops of embedded photographs instead.

    precision: of the convolutions in training, the same for all that is compared. device: that steps are computed on.
    """

    folder: Path
    trained_on: tuple[str, ...]
    precision: Literal["bf16", "fp32"]
    quick: bool = False
    device: Device = "cpu"


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """pairs: to train on. benchmarks: set -> pairs. batch, patch: of a step. hashes: name -> SHA-256 of images."""

    source: Source
    pairs: Sequence[Pair]
    benchmarks: Mapping[str, Sequence[Pair]]
    hashes: Mapping[str, str]

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of_board(self.source.trained_on, quick=self.source.quick)

    @property
    def batch(self) -> int:
        return int(self.settings["batch"])

    @property
    def patch(self) -> int:
        return int(self.settings["patch"])


def settings_of_board(trained_on: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """What rows have to share to be compared, beside their steps."""
    if quick:
        return {"trained_on": [QUICK_IMAGES], "batch": QUICK_BATCH, "patch": QUICK_PATCH}
    return {"trained_on": [*trained_on], "batch": BATCH, "patch": PATCH}


def read_data(source: Source) -> Data:
    if source.quick:
        pairs = load_pairs([QUICK_IMAGES], 2)
        small = [replace(pair, lr=pair.lr[:48, :48], hr=pair.hr[:96, :96]) for pair in pairs]
        return Data(source, small, {"Set14": small[:1], "B100": small[1:2]}, {})
    folders = [source.folder / name for name in source.trained_on]
    benchmarks = {name: load_pairs([source.folder / "benchmarks" / name], 2) for name in MEASURED}
    return Data(source, load_pairs(folders, 2), benchmarks, hash_folders(folders, 2))


def of_edge(architecture: Architecture, macs: int) -> dict[str, Any]:
    """What a network of ours is and costs. macs: budget per LR pixel, 0 where there is none."""
    cost = cost_from_architecture(architecture, LR_SIZE)
    spent = cost.macs / PIXELS
    told = {"architecture": summary(architecture), "id": architecture.id, "macs": spent, "params": cost.params}
    return {**told, "share": spent / macs} if macs else told


def of_machine(device: Device) -> dict[str, Any]:
    """When, on what and with what something is trained."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_facts(f"torch {device}"),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def of_training(trainer: Trainer, data: Data) -> dict[str, Any]:
    return {
        "watched_psnr_y": trainer.psnr_y(),
        "step_ms": trainer.step_ms,
        "seconds": sum(trainer.seconds),
        "psnr_y": scored(trainer.network, trainer.color, data),
    }


def scored(network: nn.Module, color: Color, data: Data) -> dict[str, float]:
    """Set -> PSNR-Y, and "mean", which the targets are about: of Set14 and B100, each set counting once."""
    return with_mean(scores(network, color, 2, data.benchmarks))


def with_mean(found: Mapping[str, float]) -> dict[str, float]:
    return {**found, "mean": fmean((found["Set14"], found["B100"]))}
