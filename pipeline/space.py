"""The `edge` search space: which architectures meet a budget, and how to draw one from a distribution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import permutations, product
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.architecture import EDGE_OPS, Architecture, Cell, Color
from pipeline.budget import Budget, Cost, Device, cost_from_architecture, ensure_feasible

Floats = NDArray[np.float64]
Shape = tuple[int, int]  # trunk width, number of cells
Tail = tuple[int, int]  # kernel, and `Architecture.tail_width`

WIDTHS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 64)
CELLS = tuple(range(2, 11))
EXPANSIONS = (0.5, 0.75, 1.0, 1.25, 1.5)
SKIPS = ("nearest", "conv3")
KERNELS = (1, 3, 5)
# Between the best of those tried at x2: 8 channels and 12 convs in cells at 8K MACs per LR pixel, 12 and 11 at 16K.
CHANNELS_PER_CONV = 0.9
FIXED, PER_CELL = 4, 4  # variables of the whole network, the shape among them, and of each cell
PLAIN_SHARE = (0.5, 1.5)  # share of the budget that the plain 3x3 network of a shape may take


@dataclass(frozen=True, slots=True)
class Variable:
    """One categorical choice; except for the shape, its options are in order of rising cost.

    plain: index of the option that a network designed by hand would have; -1 where there is none.
    cell: index of the cell it belongs to; a path with fewer cells leaves it without effect. -1: the whole network.
    """

    name: str
    options: tuple[object, ...]
    plain: int = -1
    cell: int = -1


@dataclass(frozen=True)
class EdgeSpace:
    """Architectures of one task whose cost lies within a window under the budget.

    The network level is one choice of a shape, (trunk width, number of cells), among those that can reach the window.
    A cell has two convolutions with a width of its own between them. A point of the space is a tuple of option indices,
    `genes`, one for each of `variables`, the shape first.

    window: smallest share of the budget worth training; the delivered network uses at least that where the space can.
    device: prices latency; needed where the budget bounds it. correction: what its predictions are multiplied by.
    Raises InfeasibleBudget if even the cheapest architecture exceeds the budget, UnpricedOp from `device`.
    """

    scale: int
    color: Color
    budget: Budget
    activation: str = "relu"
    unshuffle: int = 1
    window: float = 0.97
    device: Device | None = None
    correction: float = 1.0
    shapes: tuple[Shape, ...] = field(init=False)
    _costs: dict[tuple[int, ...], Cost] = field(init=False, default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        ensure_feasible(self.budget, self.cheapest(), self.cost(self.cheapest()))
        affordable = [s for s in product(WIDTHS, CELLS) if self._share(self._extreme(s, dearest=False)) <= 1.0]
        plain = [shape for shape in affordable if PLAIN_SHARE[0] <= self._share(self._plain(shape)) <= PLAIN_SHARE[1]]
        affordable = plain or affordable
        reach = {shape: min(1.0, self._share(self._extreme(shape, dearest=True))) for shape in affordable}
        goal = min(self.window, max(reach.values()))
        object.__setattr__(self, "shapes", tuple(shape for shape in affordable if reach[shape] >= goal))

    def cheapest(self) -> Architecture:
        """The architecture that uses least of the budget; without one on latency the narrowest with the fewest cells.

        Narrow networks are not the fastest everywhere: runtimes compute whole blocks of channels faster than parts.
        """
        return min((self._extreme((width, CELLS[0]), dearest=False) for width in WIDTHS), key=self._share)

    def cost(self, architecture: Architecture) -> Cost:
        """Its cost, with the latency that `device` predicts where the budget bounds latency."""
        cost = cost_from_architecture(architecture, self.budget.lr_size)
        if self.budget.latency_ms is None or self.device is None:
            return cost
        return replace(cost, latency_ms=self.device.predict_ms(architecture))

    def corrected(self, factor: float) -> Self:
        """The same space, its shapes and variables too, where latency is `factor` times what `device` predicts."""
        same = replace(self, correction=factor)
        object.__setattr__(same, "shapes", self.shapes)
        return same

    def _share(self, architecture: Architecture) -> float:
        return self.budget.share(self.cost(architecture))

    def _extreme(self, shape: Shape, *, dearest: bool) -> Architecture:
        """Of the networks of a shape with the largest kernels, or the smallest, the one that costs most, or least."""
        end = -1 if dearest else 0
        ops, kernel = (EDGE_OPS[end], EDGE_OPS[end]), KERNELS[1:][end]
        found = [
            self._architecture(shape, kernel, self.tails[end], skip, [(ops, expansion, False)])
            for expansion in (EXPANSIONS[::-1] if dearest else EXPANSIONS)
            for skip in (SKIPS[::-1] if dearest else SKIPS)
        ]
        return (max if dearest else min)(found, key=self._share)

    def _plain(self, shape: Shape) -> Architecture:
        """The residual network of 3x3 convolutions of one width that an engineer would scale by hand."""
        return self._architecture(shape, 3, self.tails[0], "conv3", [(("conv3", "conv3"), 1.0, True)])

    def _architecture(
        self,
        shape: Shape,
        stem: int,
        tail: Tail,
        skip: str,
        cells: Sequence[tuple[tuple[str, ...], float, bool]],
    ) -> Architecture:
        width, count = shape
        path = tuple(
            Cell(ops, (max(4, 4 * round(width * expansion / 4)),), residual)
            for ops, expansion, residual in (cells if len(cells) == count else list(cells) * count)
        )
        return Architecture(
            "edge",
            self.scale,
            self.color,
            width,
            path,
            stem=stem,
            tail=tail[0],
            tail_width=tail[1],
            activation=self.activation,
            skip=skip,
            unshuffle=self.unshuffle,
            shuffle=self.scale * self.unshuffle,
        )

    @cached_property
    def tails(self) -> tuple[Tail, ...]:
        """In order of rising cost. The narrow one saves multiply-adds where there are colours, but no time."""
        subpixels = (self.scale * self.unshuffle) ** 2
        saves = subpixels < 6 * WIDTHS[0]  # 9 * width * subpixels + 3 * subpixels**2 against 27 * width * subpixels
        narrow = saves and self.color == "rgb" and self.budget.latency_ms is None
        return (*([(KERNELS[1], subpixels)] if narrow else []), *((kernel, 0) for kernel in KERNELS[1:]))

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        found = [
            Variable("shape", self.shapes),
            Variable("stem", KERNELS[1:], 0),
            Variable("tail", self.tails, 0),
            Variable("skip", SKIPS, 1),
        ]
        for cell in range(self.max_cells):
            found += [
                Variable("first", EDGE_OPS, 1, cell),
                Variable("second", EDGE_OPS, 1, cell),
                Variable("expansion", EXPANSIONS, 2, cell),
                Variable("residual", (False, True), 1, cell),
            ]
        return tuple(found)

    @cached_property
    def options(self) -> tuple[int, ...]:
        """Number of options of each variable."""
        return tuple(len(variable.options) for variable in self.variables)

    @property
    def max_cells(self) -> int:
        return max(cells for _, cells in self.shapes)

    def slenderness(self) -> Floats:
        """log2 of each shape's depth over that of a well-proportioned one (`CHANNELS_PER_CONV`) of its width."""
        width, cells = np.array(self.shapes, dtype=np.float64).T
        return np.asarray(np.log2(CHANNELS_PER_CONV * 2 * cells / width))

    @cached_property
    def plainness(self) -> Floats:
        """log2 of the share of the budget that the plain 3x3 network of each shape takes: 0 where it fills it."""
        return np.log2([self._share(self._plain(shape)) for shape in self.shapes])

    def capacity(self) -> Floats:
        """log2 of the MACs that the budget buys in each shape, over the most that it buys in one of them.

        0 for all where it bounds MACs; where it bounds latency, runtimes compute some widths faster than others.
        """
        macs = [self.cost(self._plain(shape)).macs for shape in self.shapes]
        bought = np.log2(macs) - self.plainness
        return np.asarray(bought - bought.max())

    def envelope(self) -> Architecture:
        """The smallest architecture that every one of the space is a slice of; far above the budget itself."""
        shape = (max(width for width, _ in self.shapes), self.max_cells)
        ops = (EDGE_OPS[-1], EDGE_OPS[-1])
        tail = KERNELS[-1], 3 * self.tails[0][1]
        return self._architecture(shape, KERNELS[-1], tail, SKIPS[-1], [(ops, EXPANSIONS[-1], True)])

    def architecture(self, genes: Sequence[int]) -> Architecture:
        picked = [variable.options[gene] for variable, gene in zip(self.variables, genes, strict=True)]
        shape, stem, tail, skip = cast(tuple[Shape, int, Tail, str], tuple(picked[:FIXED]))
        cells = [
            ((str(picked[at]), str(picked[at + 1])), cast(float, picked[at + 2]), bool(picked[at + 3]))
            for at in range(FIXED, FIXED + PER_CELL * shape[1], PER_CELL)
        ]
        return self._architecture(shape, stem, tail, skip, cells)

    def active(self, genes: Sequence[int]) -> range:
        """Indices of the variables that have an effect at this depth, without the shape."""
        return range(1, FIXED + PER_CELL * self.shapes[genes[0]][1])

    def share(self, genes: Sequence[int]) -> float:
        """Share of the budget that an architecture uses. Costs add up, so each part is counted once and remembered."""
        width, count = self.shapes[genes[0]]
        parts = [self._frame_cost(width, *genes[1:FIXED])]
        parts += [
            self._cell_cost(width, *genes[at : at + PER_CELL])
            for at in range(FIXED, FIXED + PER_CELL * count, PER_CELL)
        ]
        latency = None
        if self.budget.latency_ms is not None:
            latency = self.correction * sum(part.latency_ms or 0.0 for part in parts)
        return self.budget.share(Cost(sum(part.macs for part in parts), sum(part.params for part in parts), latency))

    def _frame_cost(self, width: int, stem: int, tail: int, skip: int) -> Cost:
        key = (width, stem, tail, skip)
        if key not in self._costs:
            frame = self._architecture((width, 0), KERNELS[1:][stem], self.tails[tail], SKIPS[skip], [])
            self._costs[key] = self.cost(frame)
        return self._costs[key]

    def _cell_cost(self, width: int, first: int, second: int, expansion: int, residual: int) -> Cost:
        key = (width, first, second, expansion, residual)
        if key not in self._costs:
            cell = ((EDGE_OPS[first], EDGE_OPS[second]), EXPANSIONS[expansion], bool(residual))
            whole = self.cost(self._architecture((width, 1), 3, self.tails[0], "nearest", [cell]))
            frame = self._frame_cost(width, 0, 0, 0)
            latency = None
            if whole.latency_ms is not None and frame.latency_ms is not None:
                latency = whole.latency_ms - frame.latency_ms
            self._costs[key] = Cost(whole.macs - frame.macs, whole.params - frame.params, latency)
        return self._costs[key]

    def fit(self, scores: Sequence[Floats]) -> tuple[int, ...]:
        """The genes of highest score, moved into the window where they are outside of it.

        scores: for each variable, one number per option, higher is better. Each move changes one variable,
        the one that loses least score for the cost it brings nearer to the window; where none is left, one variable
        rises and another falls; where that ends outside of the window too, the next best shape is tried. The
        result never exceeds the budget, unless a correction leaves nothing below it.
        """
        outside: list[tuple[float, tuple[int, ...]]] = []
        for shape in np.argsort(-scores[0], kind="stable"):
            genes = self._fit_shape(int(shape), scores)
            share = self.share(genes)
            if self.window <= share <= 1.0:
                return genes
            outside.append((share, genes))
        return max([fit for fit in outside if fit[0] <= 1.0], default=min(outside))[1]

    def _fit_shape(self, shape: int, scores: Sequence[Floats]) -> tuple[int, ...]:
        genes = [shape, *(int(np.argmax(score)) for score in scores[1:])]
        share = self.share(genes)
        while share > 1.0 or share < self.window:
            moves = [((at, to - genes[at]),) for at in self.active(genes) for to in range(self.options[at])]
            best = self._best_move(genes, share, scores, moves)
            if best is None and share < self.window:
                pairs = [((up, 1), (down, -1)) for up, down in permutations(self.active(genes), 2)]
                best = self._best_move(genes, share, scores, pairs)
            if best is None:
                break
            for at, by in best:
                genes[at] += by
            share = self.share(genes)
        return tuple(genes)

    def _best_move(
        self, genes: Sequence[int], share: float, scores: Sequence[Floats], moves: Sequence[tuple[tuple[int, int], ...]]
    ) -> tuple[tuple[int, int], ...] | None:
        """The move towards the window that loses least score for what it gains; None where there is none."""
        best, least = None, math.inf
        for move in moves:
            moved = list(genes)
            for at, by in move:
                moved[at] += by
            if not all(0 <= moved[at] < self.options[at] for at, _ in move):
                continue
            reached = self.share(moved)
            if (share > 1.0 and reached >= share) or (share <= 1.0 and not share < reached <= 1.0):
                continue
            lost = sum(float(scores[at][genes[at]] - scores[at][moved[at]]) for at, _ in move)
            loss = lost / min(abs(reached - share), abs(1.0 - share))
            if loss < least:
                best, least = move, loss
        return best
