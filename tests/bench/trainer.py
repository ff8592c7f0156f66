"""Trains one given network as the search trains its own: same patches, optimizer, loss, precision and schedule."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.backends import cudnn

from deploy.runners import Frame
from deploy.upscale import Infer, upscale_image
from pipeline.architecture import Architecture, Color
from pipeline.blocks import START, CollapsibleConv
from pipeline.data import Pair, PatchSampler
from pipeline.fold import plain_from_network
from pipeline.metrics import psnr_y
from pipeline.network import Network, network_from_architecture
from pipeline.optimizer import descend, optimizer_from_groups, rate_at
from pipeline.replay import replayed
from pipeline.torch_runner import Device
from pipeline.training import hold_out

Look = Callable[[int, float], None]  # told (steps done, running mean of the loss)


@dataclass(frozen=True, slots=True)
class Schedule:
    """steps: of the whole training. patch: side of an LR patch in pixels. rate: peak learning rate of AdamW.

    precision: of the convolutions, "bf16" or "fp32". device: that steps are computed on.
    """

    steps: int
    batch: int = 16
    patch: int = 48
    rate: float = 4e-3
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "fp32"
    device: Device = "cpu"


class Trainer:
    """A network that is trained in as many goes as one likes, by a schedule that knows its end.

    network: maps LR (batch, channels, h, w) to SR, all in [0, 1].
    """

    def __init__(self, network: nn.Module, color: Color, scale: int, pairs: Sequence[Pair], schedule: Schedule) -> None:
        self.network = network.train().to(schedule.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        shape = (schedule.batch, 3 if color == "rgb" else 1, schedule.patch, schedule.patch)
        self.forward = replayed(self.network, shape, schedule.device, bf16=schedule.precision == "bf16")
        self.color, self.scale, self.schedule = color, scale, schedule
        trained, self.watched = hold_out(pairs, schedule.patch)
        self.sampler = PatchSampler(trained, scale, schedule.patch, schedule.batch, color, schedule.seed)
        self.optimizer = optimizer_from_groups([{"params": list(network.parameters()), "factor": 1.0}])
        self.step, self.loss = 0, 0.0
        self.seconds: list[float] = []

    def advance(self, steps: int, look: Look | None = None) -> None:
        """Trains `steps` more steps, at most to the end of the schedule."""
        for _ in range(min(steps, self.schedule.steps - self.step)):
            begun = time.perf_counter()
            lr, hr = self.sampler.batch(self.step)
            lr = lr.to(self.schedule.device, memory_format=torch.channels_last)
            hr = hr.to(self.schedule.device)
            rate = rate_at(self.step, self.schedule.steps, self.schedule.rate)
            bf16 = self.schedule.precision == "bf16"
            loss = descend(self.optimizer, rate, partial(self._loss, lr, hr), self.schedule.device, bf16=bf16)
            self.step += 1
            self.loss = loss if self.step == 1 else 0.99 * self.loss + 0.01 * loss
            self.seconds.append(time.perf_counter() - begun)
            if look is not None:
                look(self.step, self.loss)

    def _loss(self, lr: Tensor, hr: Tensor) -> Tensor:
        return (self.forward(lr).float() - hr).abs().mean()

    @property
    def step_ms(self) -> float:
        return 1e3 * median(self.seconds)

    def psnr_y(self) -> float:
        """Mean PSNR-Y in dB on the images that are held out of training."""
        return scores(self.network, self.color, self.scale, {"watched": self.watched})["watched"]


def scores(network: nn.Module, color: Color, scale: int, benchmarks: Mapping[str, Sequence[Pair]]) -> dict[str, float]:
    """Set -> mean PSNR-Y in dB of the images that a network makes, in float32."""
    runner = copy.deepcopy(network).eval()
    device = next(runner.parameters()).device
    multiple = runner.architecture.unshuffle if isinstance(runner, Network) else 1

    def infer(frame: Frame) -> Frame:
        with torch.inference_mode(), cudnn.flags(enabled=True, allow_tf32=False):
            output: Frame = runner(torch.from_numpy(frame).to(device)).cpu().numpy()
        return output

    return scores_of_frames(infer, color, scale, benchmarks, multiple)


def scores_of_frames(
    infer: Infer, color: Color, scale: int, benchmarks: Mapping[str, Sequence[Pair]], multiple: int = 1
) -> dict[str, float]:
    """The same of whatever makes the frames. multiple: of which their sides have to be."""

    def score(pair: Pair) -> float:
        return psnr_y(upscale_image(infer, pair.lr, scale=scale, color=color, multiple=multiple), pair.hr, scale)

    return {name: fmean(map(score, pairs)) for name, pairs in benchmarks.items()}


def started(architecture: Architecture, start: tuple[float, float, float], seed: int, *, plain: bool) -> Network:
    """A new network whose branches start with other factors than `blocks.START`; or one without branches.

    start: factors of the identity, the largest and the smaller branches. plain: train the folded convolutions: the same
    function at the start, without re-parameterisation.
    """
    torch.manual_seed(seed)
    network = network_from_architecture(architecture)
    factors = np.divide(start, START)
    with torch.no_grad():
        for conv in network.modules():
            # Tails start at zero and the last convolutions of residual cells without identity: they stay so
            if isinstance(conv, CollapsibleConv) and float(conv.identity) == START[0]:
                conv.identity.mul_(factors[0])
                for size, branch in conv.branches.items():
                    branch.mul_(factors[1] if int(size) == conv.size else factors[2])
    if plain:
        network = plain_from_network(network).requires_grad_(True)
    return network
