"""Draws architectures spread over the `edge` space: what a device profile measures, and what its model is tried on."""

import math

import numpy as np

from pipeline.architecture import EDGE_OPS, Architecture, Cell, Color
from pipeline.budget import cost_from_architecture
from pipeline.space import CELLS, EXPANSIONS, KERNELS, SKIPS, WIDTHS

CANDIDATES = 64  # drawn for each architecture that is kept


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
    drawn: dict[str, Architecture] = {}
    for at in range(count):
        width = WIDTHS[at % len(WIDTHS)]
        candidates = [_candidate(rng, width, scale, color, activation, unshuffle) for _ in range(CANDIDATES)]
        costs = {one: math.log(cost_from_architecture(one, lr_size).macs) for one in candidates if one.id not in drawn}
        low, high = max(math.log(macs[0]), min(costs.values())), math.log(macs[1])
        target = rng.uniform(min(low, high), high)
        nearest = min(costs, key=lambda one: abs(costs[one] - target))
        drawn[nearest.id] = nearest
    return list(drawn.values())


def _candidate(
    rng: np.random.Generator, width: int, scale: int, color: Color, activation: str, unshuffle: int
) -> Architecture:
    cells = int(rng.choice(CELLS))
    kernels = rng.dirichlet(np.full(len(EDGE_OPS), 0.7))
    expansions = rng.dirichlet(np.full(len(EXPANSIONS), 0.7))
    residual = rng.random()
    path = tuple(
        Cell(
            (str(rng.choice(EDGE_OPS, p=kernels)), str(rng.choice(EDGE_OPS, p=kernels))),
            (max(4, 4 * round(width * float(rng.choice(EXPANSIONS, p=expansions)) / 4)),),
            bool(rng.random() < residual),
        )
        for _ in range(cells)
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
