"""The rows of the scoreboard of searches: what is trained, how, and under which name."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

from pipeline.architecture import Architecture, Cell
from pipeline.budget import cost_from_architecture
from pipeline.config import Relaxation, SearchSettings
from tests.bench.peers import PEERS

LR_SIZE = (360, 640)
PIXELS = LR_SIZE[0] * LR_SIZE[1]
STEPS, PILOT_STEPS, LONG_STEPS = 6000, 1500, 20000
SEEDS = (0, 1, 2)
LONG_BUDGET = RELAXED_BUDGET = 16_000
RIVALS = ("random", "halving")  # kinds of rows that look for a network otherwise
SHORT = 0.05  # dB by which a first seed falls short of what it has to be, from which it needs no further ones
NOT_OF_OURS = ("peer pilot", "peer", "time")  # kinds of rows that train nothing that `pipeline` builds
DEFAULT: Relaxation = SearchSettings().relaxation

GRID_SHARE = 0.85  # of its budget, that a shape uses at least
# MACs per LR pixel -> (width, convolutions with stem and tail): plain networks of 3x3 kernels and one width, within
# 85 to 100 % of the budget, from narrow and deep to wide and shallow.
GRID: dict[int, tuple[tuple[int, int], ...]] = {
    8_000: ((7, 17), (8, 13), (9, 10), (10, 9), (12, 6), (14, 5), (16, 4)),
    16_000: ((10, 17), (11, 15), (12, 12), (13, 11), (14, 9), (16, 8), (18, 6), (20, 5), (24, 4)),
    32_000: ((14, 18), (16, 14), (20, 10), (22, 8), (24, 7), (26, 6), (30, 5)),
    64_000: ((20, 18), (24, 13), (28, 10), (32, 8), (34, 7), (40, 6), (44, 5)),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a hand-designed network is trained. start: factors as in `blocks.START`. residual: in every second layer."""

    start: tuple[float, float, float] = (1.0, 0.5, 0.2)
    rate: float = 4e-3
    residual: bool = False
    plain: bool = False


# Trap 6 of the design: the start decides more than the shape. Its three rows, and the residual cells of our space, at
# the rates of our networks.
RECIPES: dict[str, Recipe] = {
    "identity": Recipe(),
    "half": Recipe((0.5, 0.8, 0.5)),
    "random": Recipe((0.1, 1.0, 0.5), 2e-3),
    "residual": Recipe(residual=True),
    "gentle": Recipe(rate=3e-3, residual=True),
}
# Tried at every budget: the recipes that suited some shape best where all were tried, and the rate of wide networks.
SUITED, TRIED_AT = ("identity", "residual", "gentle"), 16_000
RUNTIMES = ("onnxruntime fp32", "best")  # in which networks are compared at equal latency
PEER_RATES = (5e-4, 1e-3, 2e-3, 4e-3)
PLAIN = Recipe((0.0, 1.0, 0.0), plain=True)  # He's initialisation, no branches


@dataclass(frozen=True, slots=True)
class Row:
    """One training. name: "section/kind/...", unique.

    kind: "pilot" trains `shape` by `recipe`, "hand" by the recipe of its best pilot, "plain" the best hand shape
    without branches and "long hand" with them; "ours" searches; "unsearched" trains the network that a search begins
    with, alone; "random" and "halving" are rivals of the search;
    "peer" trains a published network at the rate of its best "peer pilot", or the next if that fails; "time" measures
    what it, or the best hand shape, takes here; "ours at peer" searches within what a peer takes in `runtime`, of
    `RUNTIMES`, where "best" is what is fastest for each; "cost" searches once more beside the training of the same
    network alone.
    macs: budget per LR pixel.
    """

    name: str
    kind: str
    macs: int = 0
    seed: int = 0
    steps: int = STEPS
    shape: tuple[int, int] | None = None
    recipe: str = ""
    relaxation: Relaxation = DEFAULT
    peer: str = ""
    rate: float = 0.0
    runtime: str = ""


def hand_designed(macs: int, shape: tuple[int, int], *, residual: bool) -> Architecture:
    """x2 RGB: 3x3 stem, cells of two 3x3 convolutions, the last of three where they are odd, 3x3 tail.

    macs: per LR pixel. shape: of `GRID`. The skip is the 3x3 that the search prefers too, where the budget has room.
    """
    width, convolutions = shape
    inner = convolutions - 2
    sizes = [2] * (inner // 2) if inner % 2 == 0 else [2] * (inner // 2 - 1) + [3]
    sizes = sizes if inner > 1 else [1]
    cells = tuple(Cell(("conv3",) * size, (width,) * (size - 1), residual) for size in sizes)
    network = Architecture("edge", 2, "rgb", width, cells, skip="conv3")
    return network if macs_per_pixel(network) <= macs else replace(network, skip="nearest")


def macs_per_pixel(architecture: Architecture) -> float:
    return cost_from_architecture(architecture, LR_SIZE).macs / PIXELS


def recipes_at(macs: int) -> tuple[str, ...]:
    """The recipes that pilots of a budget try."""
    return tuple(RECIPES) if macs == TRIED_AT else SUITED


def rows(steps: int = STEPS) -> list[Row]:
    """The whole board, in the order in which it says most soonest.

    steps: of one training; pilots and long trainings are shorter and longer in proportion.
    """
    found = [row for macs in (16_000, 8_000, 32_000, 64_000) for row in _equal_macs(macs)]
    found += _relaxations()
    found += [Row(f"cost/{macs // 1000}K/seed0", "cost", macs) for macs in GRID]
    found += [Row(f"latency/hand {macs // 1000}K/time", "time", macs) for macs in GRID]
    found += [row for peer in PEERS for row in _equal_latency(peer)]
    return [replace(row, steps=max(1, round(row.steps * steps / STEPS))) for row in found]


def _equal_macs(macs: int) -> Iterator[Row]:
    section = f"macs-{macs // 1000}K"
    for shape in GRID[macs]:
        for recipe in recipes_at(macs):
            name = f"{section}/pilot/{shape[0]}x{shape[1]}/{recipe}"
            yield Row(name, "pilot", macs, steps=PILOT_STEPS, shape=shape, recipe=recipe)
    for seed in SEEDS:
        yield Row(f"{section}/ours/seed{seed}", "ours", macs, seed)
        for width, depth in GRID[macs]:
            yield Row(f"{section}/hand/{width}x{depth}/seed{seed}", "hand", macs, seed, shape=(width, depth))
    for kind in ("unsearched", "plain", *RIVALS):
        yield from (Row(f"{section}/{kind}/seed{seed}", kind, macs, seed) for seed in SEEDS)
    if macs == LONG_BUDGET:
        yield Row(f"{section}-long/hand/seed0", "long hand", macs, steps=LONG_STEPS)
        yield Row(f"{section}-long/ours/seed0", "ours", macs, steps=LONG_STEPS)


def _relaxations() -> Iterator[Row]:
    """Those beside the default, whose rows are "ours" of that budget."""
    for relaxation in get_args(Relaxation):
        if relaxation == DEFAULT:
            continue
        row = Row("", "ours", RELAXED_BUDGET, relaxation=relaxation)
        yield from (replace(row, name=f"relaxation/{relaxation}/seed{seed}", seed=seed) for seed in SEEDS)


def _equal_latency(peer: str) -> Iterator[Row]:
    for rate in PEER_RATES:
        yield Row(f"latency/{peer}/pilot/{rate:g}", "peer pilot", steps=PILOT_STEPS, peer=peer, rate=rate)
    yield Row(f"latency/{peer}/time", "time", peer=peer)
    for seed in SEEDS:
        yield Row(f"latency/{peer}/peer/seed{seed}", "peer", seed=seed, peer=peer)
        for runtime in RUNTIMES:
            name = f"latency/{peer}/ours {runtime}/seed{seed}"
            yield Row(name, "ours at peer", seed=seed, peer=peer, runtime=runtime)
