"""Relaxations of a categorical choice: sparse projections on the simplex, and the usual ones to compare them with.

A choice among K candidates is relaxed to a point of the simplex, computed along the last dimension for all leading
dimensions at once. Notation: u is the uniform point, and r, the radius, a distance from it. At r = 0 the mixture is the
plain sparsemax; at the circumradius, sqrt(1 - 1/K), only vertices are left: one candidate.

Half-precision input is computed and returned in float32, and float64 stays float64.
"""

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.config import Relaxation

RELAXATIONS: tuple[Relaxation, ...] = get_args(Relaxation)


def circumradius(k: int) -> float:
    """Distance from the uniform point of k candidates to a vertex: sqrt(1 - 1/k)."""
    return math.sqrt(1.0 - 1.0 / k)


def sparsemax(logits: Tensor) -> Tensor:
    """Euclidean projection of (..., K) logits on the simplex (Martins and Astudillo, arXiv 1602.02068)."""
    return _project(_at_least_float32(logits))


def sparsestmax(logits: Tensor, radius: float) -> Tensor:
    """Projection of (..., K) logits on { p in simplex : ||p - u|| >= radius }.

    Within the face that the plain projection lands on, the point is pushed away from the face's centre c until it is
    `radius` from u. As ||p - u||^2 = ||p - c||^2 + 1/k - 1/K on a face of k candidates, the distance to reach from c is
    sqrt(radius^2 - 1/k + 1/K). A push that leaves the simplex is projected on a smaller face and pushed again, which
    ends after at most K - 1 rounds.

    Ties: at the centre of a face every direction is equally near, so the projection is not unique. There the candidate
    with the lowest index wins: the point is pushed straight at its vertex, which makes the result independent of
    rounding and of the batch, and it passes no gradient. A radius at or above the circumradius gives the one-hot vector
    of the largest logit, again of the lowest index, and no gradient either.
    """
    if radius < 0:
        raise ValueError(f"radius is a distance, not {radius}")
    logits = _at_least_float32(logits)
    k = logits.shape[-1]
    if radius >= circumradius(k) * (1.0 - 1e-7):
        # The sum keeps the result in the graph, so that a loss can be differentiated: its gradient is zero.
        return _first_largest(logits) + 0.0 * logits
    point = _project(logits)
    outside = torch.ones_like(point[..., :1], dtype=torch.bool)
    for _ in range(k - 1):
        point, outside = _push(point, radius, outside)
        if not outside.any():
            break
        point = torch.where(outside, _project(point), point)
    return point


def relax(
    name: Relaxation,
    logits: Tensor,
    radius: float,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mixture weights of shape (..., K) under the named relaxation.

    softmax: as DARTS. gumbel: softmax((logits + Gumbel noise from `generator`) / temperature). sigmoid: as Fair DARTS,
    each candidate by itself, so the weights do not add up to 1. sorted: sparsestmax; its other half is `order_penalty`.
    `radius` matters to sparsestmax and sorted only. Raises ValueError for an unknown name.
    """
    logits = _at_least_float32(logits)
    match name:
        case "softmax":
            return logits.softmax(-1)
        case "gumbel":
            tiny = torch.finfo(logits.dtype).tiny
            source = logits.device if generator is None else generator.device
            uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype, device=source).to(logits.device)
            noise = -(-uniform.clamp_min(tiny).log()).clamp_min(tiny).log()
            return ((logits + noise) / temperature).softmax(-1)
        case "sigmoid":
            return logits.sigmoid()
        case "sparsemax":
            return sparsemax(logits)
        case "sparsestmax" | "sorted":
            return sparsestmax(logits, radius)
    raise ValueError(f"relaxation is one of {', '.join(RELAXATIONS)}, not {name!r}")


def order_penalty(logits: Tensor, paths: Sequence[Sequence[int]]) -> Tensor:
    """Sum over `paths` of the increments of the raw (K,) logits from each node to the next one of its path.

    Positive where deeper nodes outweigh shallower ones. The increments of a path telescope, so this is its last logit
    minus its first; a path of one node adds nothing.
    """
    firsts, lasts = [path[0] for path in paths], [path[-1] for path in paths]
    return (logits[lasts] - logits[firsts]).sum()


def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _first_largest(values: Tensor) -> Tensor:
    """One-hot of the largest value along the last dimension, the first one where several are equal."""
    largest = values == values.amax(-1, keepdim=True)
    first = largest & (largest.cumsum(-1) == 1)
    return first.to(values.dtype)


def _project(values: Tensor) -> Tensor:
    """Sparsemax. The support is found without a gradient; on it the projection is linear and left to autograd."""
    with torch.no_grad():
        descending = values.sort(-1, descending=True).values
        counts = torch.arange(1, values.shape[-1] + 1, dtype=values.dtype, device=values.device)
        inside = 1.0 + counts * descending > descending.cumsum(-1)
        size = inside.sum(-1, keepdim=True)
        support = values >= descending.gather(-1, size - 1)
        size = support.sum(-1, keepdim=True).to(values.dtype)
    threshold = (torch.where(support, values, 0.0).sum(-1, keepdim=True) - 1.0) / size
    return torch.where(support, (values - threshold).clamp_min(0.0), 0.0)


def _push(point: Tensor, radius: float, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Push those `rows` of `point` away from the centre of their face, and tell which of them left the simplex."""
    support = point > 0
    size = support.sum(-1, keepdim=True).to(point.dtype)
    centre = support / size
    goal = (radius**2 - (1.0 / size - 1.0 / point.shape[-1])).clamp_min(0.0).sqrt()
    offset = point - centre
    with torch.no_grad():
        distance = offset.norm(dim=-1, keepdim=True)
        short = rows & (size > 1) & (distance < goal)
        tied = short & (distance <= 32 * torch.finfo(point.dtype).eps)
        corner = functional.one_hot(support.int().argmax(-1), point.shape[-1]).to(point.dtype) - centre
    moves = short & ~tied
    # Rows that do not move get an offset whose norm is 1, so that no gradient is divided by zero.
    offset = torch.where(moves, offset, corner.new_tensor(1.0) / math.sqrt(point.shape[-1]))
    away = centre + goal * offset / offset.norm(dim=-1, keepdim=True)
    at_corner = centre + goal * corner / corner.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    pushed = torch.where(moves, away, torch.where(tied, at_corner + 0.0 * point, point))
    return pushed, moves & (pushed.amin(-1, keepdim=True) < 0)
