"""What trains the weights: AdamW, its learning rate over a run, and a limit on gradients that would throw it off."""

import math
from typing import Any

import torch
from torch import Tensor

WARM_UP = 100  # steps over which the rate rises, at the start and after the cut
SPIKE = 5.0  # times their usual size, that gradients may have
LEAST = 0.01  # of the mean over its tensor, that the usual square of a gradient is taken to be


def optimizer_from_groups(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, weight_decay=0.0, fused=True)


def rate_at(step: int, steps: int, peak: float, begun: int = 0) -> float:
    """The learning rate: cosine over the whole run, with a rise at the start of each phase. begun: its first step."""
    rise = min(1.0, (step - begun + 1) / WARM_UP)
    return peak * rise * 0.5 * (1 + math.cos(math.pi * step / steps))


@torch.no_grad()
def limit_gradients(optimizer: torch.optim.AdamW) -> Tensor:
    """Scales all gradients down where they are more than `SPIKE` times what the optimizer expects.

    Their size, which is returned, 0-dimensional, is the RMS over all weights of g / sqrt(v), with v Adam's mean of
    squares: about 0.8 in a step like any other. A deep network may have one of 30 for one batch, with a loss as usual,
    and the step that Adam takes then makes it fail within five more. The norm of all gradients hides that: a few
    weights have most of it. Wortsman et al. (arXiv 2304.13013) divide the steps by such a ratio, as Shazeer and Stern
    do (Adafactor, arXiv 1804.04235).
    """
    updated = [
        (parameter.grad, state["exp_avg_sq"], 1 - group["betas"][1] ** state["step"])
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None and (state := optimizer.state.get(parameter))
    ]
    if not updated:  # the first step
        return torch.ones(())
    gradients, squares, corrections = map(list, zip(*updated, strict=True))
    weights = [gradient.numel() for gradient in gradients]
    # What had no gradient before has no usual one: it is held to those of its tensor
    least = torch._foreach_mul(torch._foreach_norm(squares, 1), [LEAST / count for count in weights])
    usual = torch._foreach_add(squares, torch._foreach_add(least, torch.finfo().tiny))
    ratios = torch._foreach_div(torch._foreach_mul(gradients, gradients), usual)
    sums = torch.stack(torch._foreach_norm(ratios, 1)) * torch.stack(corrections)
    size: Tensor = (sums.sum() / sum(weights)).sqrt()
    torch._foreach_mul_(gradients, (SPIKE / size).clamp_max(1.0))  # by exactly 1 in nearly all steps
    return size
