"""Whether training in bfloat16 is worth it on this device, by a quick measurement."""

from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from deploy.timing import time_interleaved
from pipeline.torch_runner import Device

FASTER = 1.2  # times as fast as float32: less is not worth the rounding, and would be decided anew each time
ROUNDS, LAYERS = 8, 4
PATCHES, CHANNELS, SIDE = 16, 16, 48  # of the batch that is timed: that of a small network


def bf16_supported(device: Device) -> bool:
    """Whether it has instructions for bfloat16. A CPU without them emulates it, ten times slower than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cpu._is_avx512_bf16_supported()


@cache
def bf16_pays(device: Device) -> bool:
    """Whether a step of convolutions is at least `FASTER` times as fast in bfloat16 as in float32.

    Up to six times on a CPU with AMX; without, from twice as fast to slower, which no capability tells. A device
    without instructions for it is not tried. Takes half a second, once in a process.
    """
    if not bf16_supported(device):
        return False
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(PATCHES, CHANNELS, SIDE, SIDE, generator=generator)
    features = features.to(device, memory_format=torch.channels_last)
    kernels = [torch.randn(CHANNELS, CHANNELS, 3, 3, generator=generator).to(device) / CHANNELS for _ in range(LAYERS)]
    work = {name: partial(_step, features, kernels, name == "bf16") for name in ("fp32", "bf16")}
    timings = time_interleaved(work, ROUNDS)
    return timings["fp32"].median_ms >= FASTER * timings["bf16"].median_ms


def _step(features: Tensor, kernels: list[Tensor], bf16: bool) -> None:
    """Forwards and backwards through a chain of convolutions, as training goes."""
    weights = [kernel.clone().requires_grad_() for kernel in kernels]
    with torch.autocast(features.device.type, torch.bfloat16, enabled=bf16):
        for weight in weights:
            features = F.relu(F.conv2d(features, weight, padding=1))
    features.float().mean().backward()  # type: ignore[no-untyped-call]
    float(weights[0].grad.sum())  # type: ignore[union-attr]  # a GPU is waited for
