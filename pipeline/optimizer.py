"""What trains the weights: AdamW, its learning rate over a run, and a limit on gradients that would throw it off."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.backends import cudnn

from pipeline.architecture import Architecture
from pipeline.errors import ConfigError
from pipeline.torch_runner import Device

WIDE = 16  # channels, up to which networks have the full rate
WIDE_RATE = 0.75  # of it, which wider ones have
WARM_UP = 100  # steps over which the rate rises, at the start and after the cut
SPIKE = 5.0  # times their usual size, that gradients may have
LEAST = 0.01  # of the mean over its tensor, that the usual square of a gradient is taken to be


def optimizer_from_groups(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, weight_decay=0.0, fused=True)


def rate_at(step: int, steps: int, peak: float, begun: int = 0) -> float:
    """The learning rate: cosine over the whole run, with a rise at the start of each phase. begun: its first step."""
    rise = min(1.0, (step - begun + 1) / WARM_UP)
    return peak * rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def rate_factor(architecture: Architecture) -> float:
    """What the peak rate is multiplied by: less for wide networks of `edge`, as weights bear less of it in wide layers.

    At 20 channels and 18 convolutions 3/4 of the rate is 0.02 dB better, and 0.01 to 0.03 dB worse at 8 to 16 channels;
    wider ones were not tried. Yang et al. (arXiv 2203.03466) have the rate of Adam fall as 1 / width.
    """
    return WIDE_RATE if architecture.space == "edge" and architecture.width > WIDE else 1.0


def descend(
    optimizer: torch.optim.AdamW, rate: float, compute_loss: Callable[[], Tensor], device: Device, *, bf16: bool
) -> float:
    """One step at `rate` times the "factor" of each group; returns the loss.

    compute_loss: gives it, 0-dimensional; runs under autocast with bf16. On a GPU too the same step ends with the same
    weights. Raises ConfigError, and changes no weight, where the loss is not a number.
    """
    optimizer.zero_grad()
    for group in optimizer.param_groups:
        group["lr"] = group["factor"] * rate
    with cudnn.flags(enabled=True, deterministic=True):
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = compute_loss()
        value = loss.item()
        if not math.isfinite(value):
            hint = "lower train.rate and run the same command again"
            raise ConfigError("training diverged: its loss is not a number", hint)
        loss.backward()  # type: ignore[no-untyped-call]
    limit_gradients(optimizer)
    optimizer.step()
    return value


@torch.no_grad()
def limit_gradients(optimizer: torch.optim.AdamW) -> Tensor:
    """Where gradients are together more than `SPIKE` times what the optimizer expects, holds each tensor's to that.

    Their size, which is returned, 0-dimensional, is the RMS over weights of g / sqrt(v), with v Adam's mean of squares:
    about 0.7 in a step like any other. A deep network may have one of 30 for one batch, with a loss as usual, and the
    step that Adam takes then makes it fail within five more. The norm of all gradients hides that: a few weights have
    most of it. Wortsman et al. (arXiv 2304.13013) divide the steps by such a ratio, as Shazeer and Stern do (Adafactor,
    arXiv 1804.04235). Tensors that were trained for less than `WARM_UP` steps have no usual gradients yet.
    """
    trained = [
        (parameter.grad, state["exp_avg_sq"], state["step"])
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None and (state := optimizer.state.get(parameter))
    ]
    if not trained:  # the first step
        return torch.ones(())
    gradients, squares, updates = map(list, zip(*trained, strict=True))
    steps, decay = torch.stack(updates), optimizer.defaults["betas"][1]
    sizes = [gradient.numel() for gradient in gradients]
    counts = steps.new_tensor(sizes)
    sums = torch.stack(torch._foreach_norm(squares, 1))
    # A weight without gradients so far, as in slices of a supernet, is held to the others of its tensor
    least = (LEAST * sums / counts).clamp_min(torch.finfo().tiny)
    least = least.repeat_interleave(counts.long(), output_size=sum(sizes))
    ratios = torch.cat([gradient.flatten() for gradient in gradients]) ** 2
    ratios /= least + torch.cat([square.flatten() for square in squares])
    found = torch.stack(torch._foreach_norm(torch.split(ratios, sizes), 1)) * (1 - decay**steps)
    known = (steps >= WARM_UP) & (sums > 0)
    size = (torch.where(known, found, 0.0).sum() / (counts * known).sum().clamp_min(1)).sqrt()
    if size > SPIKE:
        scales = torch.where(known, SPIKE / (found / counts).sqrt(), 1.0).clamp_max(1.0)
        torch._foreach_mul_(gradients, [*scales])
    return size
