"""The one phase: a supernet trains, becomes one network, and that network trains on."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol, get_args

import torch
from torch import Tensor
from torch.backends import cudnn

from deploy.runners import Frame
from deploy.upscale import Infer, upscale_image
from pipeline.architecture import Architecture, Color, Space, Variant, architecture_from_dict, summary
from pipeline.autocast import bf16_pays
from pipeline.budget import Budget, Cost, Device, cost_from_architecture
from pipeline.checkpoint import Checkpoint, save_checkpoint
from pipeline.config import Relaxation, TrainDevice, TrainPrecision
from pipeline.data import Pair, PatchSampler
from pipeline.distill import taught, teacher_from_file
from pipeline.errors import ConfigError
from pipeline.finalists import MOST, finalist_on_device
from pipeline.metrics import capped, psnr_y
from pipeline.network import Network, network_from_architecture
from pipeline.optimizer import descend, optimizer_from_groups, rate_at, rate_factor
from pipeline.replay import replayed
from pipeline.space import EdgeSpace
from pipeline.supernet import EdgeSupernet
from pipeline.torch_runner import Device as TorchDevice
from pipeline.torch_runner import TorchRunner, device_named
from pipeline.trilevel import TrilevelSupernet
from pipeline.trilevel_space import TrilevelSpace

SCHEMA = 1
CHECKPOINT = 5  # of what a checkpoint holds, and of how it is gone on from
CHOOSING = 60  # steps of choosing at least, in a run of ten times as many
SETTLE = 10  # steps between two moves of the radius
LOOKS = 50  # times that the delivered network is measured on the way
VALIDATION_SIDE = 128  # LR pixels


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to search and train.

    batch, patch: patches per step and their LR side in pixels. rate: peak learning rate of AdamW, cosine to zero, which
    `rate_factor` lowers for wide networks.
    activation, unshuffle: of `edge` architectures. variant: of the `trilevel` space.
    teacher: a .onnx or .safetensors file, "" for none; teacher_weight: its share of the loss.
    precision: of the convolutions in training; "auto" measures whether bf16 is faster than fp32 here.
    device: where steps are computed; "auto" is a GPU where there is one.
    skip_broken: whether images that cannot be read were left out of what is trained on.
    """

    space: Space
    scale: int
    color: Color
    relaxation: Relaxation
    steps: int
    batch: int
    patch: int
    rate: float
    seed: int
    activation: str = "relu"
    unshuffle: int = 1
    variant: Variant = "b"
    teacher: str = ""
    teacher_weight: float = 0.0
    precision: TrainPrecision = "auto"
    device: TrainDevice = "auto"
    skip_broken: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """What a search knows of itself after a step.

    phase: "search" while several networks are mixed, "train" once one is left. loss: running mean.
    psnr_y, macs, params, latency_ms, share: of the network that would be delivered now; PSNR in dB on the images that
    `hold_out` watches, cost, and the share of the budget it uses; latency is measured once the network is chosen on its
    device, predicted before, and None without a bound on it. candidates: paths that are still in the mixture.
    radius: of the relaxation, as a fraction of the one that leaves a single network; None in older histories.
    seconds: that the steps so far took, without looks like this one; None in older histories.
    """

    step: int
    steps: int
    phase: str
    loss: float
    psnr_y: float
    macs: int
    params: int
    latency_ms: float | None
    share: float
    candidates: int
    radius: float | None = None
    seconds: float | None = None


class Supernet(Protocol):
    """What the search asks of a mixture over a space; it is an nn.Module too.

    choosing: share of the steps after which it is one network; of `CHOOSING` steps at least.
    """

    choosing: float

    def set_radius(self, fraction: float) -> None: ...
    def is_discrete(self) -> bool: ...
    def candidates(self) -> int: ...
    def delivered(self) -> Architecture: ...
    def cut(self) -> Network: ...
    def loss(self, lr: Tensor, hr: Tensor, step: int, objective: Callable[[Tensor], Tensor]) -> Tensor: ...
    def outputs(self, lr: Tensor) -> list[Tensor]: ...
    def parameter_groups(self) -> list[dict[str, Any]]: ...


def settings_of(recipe: Recipe, budget: Budget) -> dict[str, Any]:
    """What the manifest records, beside the inputs, to tell whether a search is current."""
    return {"recipe": asdict(recipe), "budget": asdict(budget)}


def space_from_recipe(recipe: Recipe, budget: Budget, device: Device | None = None) -> EdgeSpace | TrilevelSpace:
    """The space that a search looks through; answers at once. Raises InfeasibleBudget, UnpricedOp and ConfigError."""
    if recipe.space == "edge":
        if recipe.patch % recipe.unshuffle:
            message = f"a patch of {recipe.patch} is no multiple of {recipe.unshuffle}"
            raise ConfigError(message, "set an even train.patch")
        return EdgeSpace(recipe.scale, recipe.color, budget, recipe.activation, recipe.unshuffle, device=device)
    if budget.latency_ms is not None:
        raise ConfigError(
            "the trilevel space has no model of latency", "set search.space = edge, or bound budget.macs instead"
        )
    if recipe.variant == "a" and recipe.scale == 3:
        raise ConfigError("variant a of the trilevel space doubles, and x3 is no power of 2", "set search.variant = b")
    ups = 1 if recipe.variant == "a" and recipe.scale == 2 else 2
    space = TrilevelSpace(recipe.scale, recipe.color, recipe.variant, max_ups=ups)
    space.ensure_feasible(budget)
    return space


def supernet_from_recipe(
    recipe: Recipe, budget: Budget, device: Device | None = None
) -> EdgeSupernet | TrilevelSupernet:
    """The mixture that a search begins with, drawn with the recipe's seed. Raises as `space_from_recipe`."""
    space = space_from_recipe(recipe, budget, device)
    torch.manual_seed(recipe.seed)
    if isinstance(space, TrilevelSpace):
        return TrilevelSupernet(space, budget, recipe.relaxation)
    if device is not None and device.measure_ms is not None:
        space = space.corrected(1 / MOST)  # the incumbent is the first finalist
    return EdgeSupernet(space, recipe.relaxation, recipe.seed)


def hold_out(pairs: Sequence[Pair], patch: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on, and up to 8 to watch the progress on: one of 25, none of them trained on.

    With fewer than 25 images none can be spared: the first is watched although it is trained on. What is smaller than
    a patch of `patch` LR pixels is not watched; that it is not trained on, `PatchSampler` says.
    """
    whole = [pair for pair in pairs if min(pair.lr.shape[:2]) >= patch]
    watched = whole[::25][:8] if len(whole) >= 25 else []
    names = {id(pair) for pair in watched}
    return [pair for pair in pairs if id(pair) not in names], watched or whole[:1]


class Training:
    """The state of one search: a supernet that becomes a network, its optimizer, and what was noted on the way."""

    def __init__(self, recipe: Recipe, budget: Budget, pairs: Sequence[Pair], device: Device | None = None) -> None:
        self.recipe, self.budget, self.device = recipe, budget, device
        self.train_device = device_named(recipe.device)
        self.supernet = supernet_from_recipe(recipe, budget, device)
        self.supernet.to(self.train_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: Network | None = None
        self.teacher: Infer | None = None
        if recipe.teacher:
            self.teacher = teacher_from_file(
                Path(recipe.teacher), recipe.scale, recipe.color, recipe.patch, self.train_device
            )
        trained, watched = hold_out(pairs, recipe.patch)
        self.sampler = PatchSampler(trained, recipe.scale, recipe.patch, recipe.batch, recipe.color, recipe.seed)
        self.watched = [_centre(pair, recipe.scale) for pair in watched]
        self.optimizer = optimizer_from_groups(self.supernet.parameter_groups())
        self.step, self.radius = 0, 0.0
        self.notes: dict[str, Any] = {
            "cut_step": None,
            "precision": _precision(recipe.precision, self.train_device),
            "loss": 0.0,
            "seconds": {"search": 0.0, "train": 0.0},
            "finalists": [],
        }
        self.history: list[dict[str, Any]] = []

    @property
    def phase(self) -> str:
        return "search" if self.network is None else "train"

    def advance(self) -> Progress:
        """One step: the cut if it is due, one batch, and now and then a look at the network that would be delivered."""
        recipe, started = self.recipe, time.perf_counter()
        if self.network is None:
            self._move_radius()
            if self.phase == "train":  # the cut looks at networks and may time them: no part of a step
                started = time.perf_counter()
        lr, hr = self.sampler.batch(self.step)
        shown = taught(self.teacher, lr).to(self.train_device) if self.teacher is not None else hr
        lr, hr = lr.to(self.train_device, memory_format=torch.channels_last), hr.to(self.train_device)
        weight = recipe.teacher_weight if self.teacher is not None else 0.0

        def objective(sr: Tensor) -> Tensor:
            sr = sr.float()
            loss = (sr - hr).abs().mean()
            return loss if weight == 0.0 else (1 - weight) * loss + weight * (sr - shown).abs().mean()

        def compute_loss() -> Tensor:
            if self.network is None:
                return self.supernet.loss(lr, hr, self.step, objective)
            return objective(self.step_network(lr))

        bf16 = self.notes["precision"] == "bf16"
        loss = descend(self.optimizer, self._rate(), compute_loss, self.train_device, bf16=bf16)
        self.step += 1
        mean = self.notes["loss"]
        self.notes["loss"] = loss if self.step == 1 else 0.99 * mean + 0.01 * loss
        self.notes["seconds"][self.phase] += time.perf_counter() - started
        return self._look()

    def _move_radius(self) -> None:
        """Closes the mixture step by step, and cuts the one network out of it when it is due."""
        steps = self.recipe.steps
        end = max(1, min(CHOOSING, steps // 10), math.ceil(self.supernet.choosing * steps))
        if self.step % SETTLE == 0 or self.step >= end:
            self.radius = min(1.0, self.step / end)
            self.supernet.set_radius(self.radius)
        if self.step >= end or self.supernet.is_discrete():
            mixed = self._psnr_y(lambda lr: _mean_outputs(self.supernet, lr, self.train_device))
            network = self._cut()
            cut = self._psnr_y(TorchRunner(network, self.train_device).infer)
            self.notes |= {"cut_step": self.step, "supernet_psnr_y": mixed, "cut_psnr_y": cut}
            self._train(network)

    def _cut(self) -> Network:
        """The network that is trained on; with a latency budget on this device, one that was measured to keep it."""
        device, supernet = self.device, self.supernet
        if self.budget.latency_ms is None or device is None or device.measure_ms is None:
            return supernet.cut()
        assert isinstance(supernet, EdgeSupernet)
        chosen, measured = finalist_on_device(supernet.delivered, device.predict_ms, device.measure_ms, self.budget)
        self.notes["finalists"] = [asdict(finalist) for finalist in measured]
        return supernet.cut(chosen)

    def _cost(self, architecture: Architecture) -> Cost:
        """With the latency that was measured where it was, else what is predicted."""
        cost = cost_from_architecture(architecture, self.budget.lr_size)
        if self.budget.latency_ms is None or self.device is None:
            return cost
        measured = {row["architecture_id"]: row["measured_ms"] for row in self.notes["finalists"]}
        latency = measured.get(architecture.id) or self.device.predict_ms(architecture)
        return replace(cost, latency_ms=latency)

    def _train(self, network: Network) -> None:
        self.radius = 1.0
        self.network = network.train().to(self.train_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        group = {"params": list(network.parameters()), "factor": rate_factor(network.architecture)}
        self.optimizer = optimizer_from_groups([group])
        shape = (self.recipe.batch, network.architecture.channels, self.recipe.patch, self.recipe.patch)
        self.step_network = replayed(self.network, shape, self.train_device, bf16=self.notes["precision"] == "bf16")

    def _rate(self) -> float:
        return rate_at(self.step, self.recipe.steps, self.recipe.rate, begun=self.notes["cut_step"] or 0)

    def _look(self) -> Progress:
        every, seconds = max(25, self.recipe.steps // LOOKS), sum(self.notes["seconds"].values())
        if self.step == 1 or self.step % every == 0 or self.step == self.recipe.steps:
            network = self.network or self.supernet.cut()
            cost = self._cost(network.architecture)
            progress = Progress(
                step=self.step,
                steps=self.recipe.steps,
                phase=self.phase,
                loss=self.notes["loss"],
                psnr_y=self._psnr_y(TorchRunner(network, self.train_device).infer),
                macs=cost.macs,
                params=cost.params,
                latency_ms=cost.latency_ms,
                share=self.budget.share(cost),
                candidates=self.supernet.candidates() if self.network is None else 1,
                radius=self.radius,
                seconds=seconds,
            )
            self.history.append(asdict(progress))
        now = {"step": self.step, "phase": self.phase, "loss": self.notes["loss"], "seconds": seconds}
        return replace(Progress(**self.history[-1]), **now)

    def _psnr_y(self, infer: Infer) -> float:
        """Mean PSNR-Y in dB of the watched images."""
        scale, color = self.recipe.scale, self.recipe.color
        enlarged = (upscale_image(infer, pair.lr, scale=scale, color=color) for pair in self.watched)
        return fmean(capped(psnr_y(sr, pair.hr, scale)) for sr, pair in zip(enlarged, self.watched, strict=True))

    def report(self) -> dict[str, Any]:
        assert self.network is not None
        architecture = self.network.architecture
        cost = self._cost(architecture)
        searched = self.notes["cut_step"]
        seconds = self.notes["seconds"]
        return {
            "schema": SCHEMA,
            "architecture_id": architecture.id,
            "architecture": summary(architecture),
            "budget": asdict(self.budget),
            "cost": asdict(cost),
            "share": self.budget.share(cost),
            "finalists": self.notes["finalists"],
            "relaxation": self.recipe.relaxation,
            "steps": self.recipe.steps,
            "precision": self.notes["precision"],
            "train_device": self.train_device,
            "cut_step": searched,
            "supernet_psnr_y": self.notes["supernet_psnr_y"],
            "cut_psnr_y": self.notes["cut_psnr_y"],
            "cut_gap_db": abs(self.notes["supernet_psnr_y"] - self.notes["cut_psnr_y"]),
            "psnr_y": self.history[-1]["psnr_y"],
            "seconds": seconds,
            "step_seconds": {
                "search": seconds["search"] / searched,
                "train": seconds["train"] / max(1, self.recipe.steps - searched),
            },
        }

    def save(self, path: Path, inputs: Mapping[str, str]) -> None:
        notes = {"step": self.step, "notes": self.notes, "history": self.history, "timed": self._timed}
        if self.network is not None:
            notes["architecture"] = self.network.architecture.to_dict()
        save_checkpoint(path, self._identity(inputs), self.network or self.supernet, self.optimizer, notes)

    def resume(self, path: Path, inputs: Mapping[str, str]) -> str | None:
        """Goes on from the checkpoint at `path` where it is of this search, and says in a line what became of it.

        Raises StaleArtifact where it is damaged, ConfigError where it is of this search on another kind of device.
        """
        checkpoint = Checkpoint.read(path)
        if checkpoint is None:
            return None
        notes, mine = checkpoint.notes, self._identity(inputs)
        if checkpoint.identity != mine:
            for device in get_args(TorchDevice):
                if checkpoint.identity == self._identity(inputs, device):
                    raise ConfigError(
                        f"{path} was trained on {device} up to step {notes['step']}, and goes on there alone",
                        f"set train.device = {device}, or delete the file to start again on {self.train_device}",
                    )
            return "the unfinished search there was of other settings or images, and is replaced"
        if "architecture" not in notes and notes.get("timed", self._timed) != self._timed:
            return "this machine has become, or is no longer, the device of the profile: the search starts again"
        self.step, self.notes, self.history = notes["step"], notes["notes"], notes["history"]
        if "architecture" in notes:
            self._train(network_from_architecture(architecture_from_dict(notes["architecture"])))
        checkpoint.restore(self.network or self.supernet, self.optimizer)
        return f"goes on from step {self.step} of {self.recipe.steps}"

    @property
    def _timed(self) -> bool:
        """Whether finalists are timed here, which the incumbent depends on."""
        return self.device is not None and self.device.measure_ms is not None

    def _identity(self, inputs: Mapping[str, str], device: TorchDevice | None = None) -> str:
        """Weights of another kind of device would not end as the same network."""
        settings = settings_of(self.recipe, self.budget)
        read = [*inputs.items()]  # in this order
        return json.dumps([CHECKPOINT, device or self.train_device, settings, read], sort_keys=True)


def _precision(asked: TrainPrecision, device: TorchDevice) -> str:
    if asked != "auto":
        return asked
    return "bf16" if bf16_pays(device) else "fp32"


def _mean_outputs(supernet: Supernet, lr: Frame, device: TorchDevice) -> Frame:
    with torch.no_grad(), cudnn.flags(enabled=True, allow_tf32=False):
        mean: Frame = torch.stack(supernet.outputs(torch.from_numpy(lr).to(device))).mean(0).cpu().numpy()
    return mean


def _centre(pair: Pair, scale: int) -> Pair:
    """The middle of a pair, so that a look at it costs little."""
    height, width = (min(side, VALIDATION_SIDE) // 2 * 2 for side in pair.lr.shape[:2])
    top, left = (pair.lr.shape[0] - height) // 2, (pair.lr.shape[1] - width) // 2
    hr = pair.hr[top * scale : (top + height) * scale, left * scale : (left + width) * scale]
    return replace(pair, lr=pair.lr[top : top + height, left : left + width], hr=hr)
