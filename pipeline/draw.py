"""Draws architectures spread over the `edge` space: what a device profile measures, and what its model is tried on."""

import math

import numpy as np

from pipeline.architecture import EDGE_OPS, Architecture, Cell, Color
from pipeline.budget import cost_from_architecture
from pipeline.space import CELLS, EXPANSIONS, KERNELS, SKIPS, WIDTHS

CANDIDATES = 64  # drawn for each architecture that is kept
TASTE = 0.5  # of the Dirichlet distributions: below 1, most of what a network has is of one kind


def draw_architectures(
    count: int,
    seed: int,
    *,
    scale: int,
    color: Color,
    lr_size: tuple[int, int],
    macs: tuple[float, float],
    activation: str = "relu",
    unshuffle: int = 1,
) -> list[Architecture]:
    """`count` different architectures of every trunk width in turn, whose MACs are spread on a logarithmic scale.

    The targets of a width reach from the first bound, or what the cheapest architecture of that width takes, to the
    second; of `CANDIDATES` random ones the nearest to a target is kept. Each candidate has its own taste in kernels and
    inner widths: from all convolutions alike to all mixed.
    macs: lowest and highest target, for one LR frame of `lr_size`. The same arguments draw the same list.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[Architecture, None] = {}
    for at in range(count):
        width = WIDTHS[at % len(WIDTHS)]
        candidates = [_candidate(rng, width, scale, color, activation, unshuffle) for _ in range(CANDIDATES)]
        costs = {one: math.log(cost_from_architecture(one, lr_size).macs) for one in candidates if one not in drawn}
        low, high = max(math.log(macs[0]), min(costs.values())), math.log(macs[1])
        target = rng.uniform(min(low, high), high)
        drawn[min(costs, key=lambda one: abs(costs[one] - target))] = None
    return [*drawn]


def _candidate(
    rng: np.random.Generator, width: int, scale: int, color: Color, activation: str, unshuffle: int
) -> Architecture:
    cells = int(rng.choice(CELLS))
    kernels = rng.dirichlet(np.full(len(EDGE_OPS), TASTE))
    expansions = rng.dirichlet(np.full(len(EXPANSIONS), TASTE))
    ops = rng.choice(EDGE_OPS, (cells, 2), p=kernels)
    inner = 4 * np.round(width * rng.choice(EXPANSIONS, cells, p=expansions) / 4)
    adds = rng.random(cells) < rng.random()
    path = tuple(
        Cell((str(first), str(second)), (max(4, int(channels)),), bool(add))
        for (first, second), channels, add in zip(ops, inner, adds, strict=True)
    )
    return Architecture(
        "edge",
        scale,
        color,
        width,
        path,
        stem=int(rng.choice(KERNELS[1:])),
        tail=int(rng.choice(KERNELS[1:])),
        activation=activation,
        skip=str(rng.choice(SKIPS)),
        unshuffle=unshuffle,
        shuffle=scale * unshuffle,
    )
