"""The best-scoring architecture of the `trilevel` space within a budget, by dynamic programming."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.architecture import TRILEVEL_OPS
from pipeline.budget import Budget, cost_from_architecture
from pipeline.trilevel_space import Choice, TrilevelSpace

FLOOR = 0.9
BUCKETS = 1000

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# One share of the budget from the shares of its MACs and of its params.
Combine = Callable[[Floats, Floats], Floats]


@dataclass(frozen=True, slots=True)
class Scores:
    """What each candidate is worth; a larger score is better, and scores add up over the variables of a network.

    nodes: (deliverable nodes). ops: (cells, positions, ops). widths: (cells, positions - 1, widths).
    """

    nodes: Floats
    ops: Floats
    widths: Floats

    def regrets(self) -> "Scores":
        """What each candidate loses against the best of its variable: 0 for the best, else negative.

        Regrets make paths of different depth comparable: a variable that is free to take its best costs nothing.
        """
        return Scores(*(part - part.max(-1, keepdims=True) for part in (self.nodes, self.ops, self.widths)))


def best_choice(space: TrilevelSpace, budget: Budget, scores: Scores) -> Choice:
    """The choice with the least total regret among those that use 90-100 % of the budget.

    Costs are rounded up to a thousandth of the budget, so the choice is feasible whatever the scores are. Where the
    space has nothing between 90 and 100 %, the floor is 90 % of the largest share that it can use. Two bounds are
    combined into one in several ways, see `_combinations`, until the result meets both; if none uses 90 % of either
    bound, the one that uses most is returned. Raises InfeasibleBudget.
    """
    space.ensure_feasible(budget)
    regrets = scores.regrets()
    best, best_share = _cheapest_choice(space), 0.0
    for combine in _combinations(budget):
        choice = _Program(space, budget, regrets, combine).solve()
        if choice is None:
            continue
        share = budget.share(cost_from_architecture(space.architecture(choice), budget.lr_size))
        if best_share <= share <= 1.0:
            best, best_share = choice, share
        if best_share >= FLOOR:
            break
    return best


def _combinations(budget: Budget) -> list[Combine]:
    """Ways to put two bounds into one: those that may miss a bound, but no good choice, first.

    A mean of two shares is at most the larger one, so what meets both bounds meets their mean. The larger share of each
    part adds up to at least the larger share of the whole, so what meets that meets both bounds, up to the slack.
    """
    if budget.macs is None or budget.params is None:
        return [np.maximum]
    means: list[Combine] = [partial(_mean, weight) for weight in (1.0, 0.0, 0.5, 0.25, 0.75)]
    return [*means, *(partial(_larger, float(slack)) for slack in np.linspace(1.0, 2.0, 11))]


def _mean(weight: float, macs: Floats, params: Floats) -> Floats:
    return weight * macs + (1.0 - weight) * params


def _larger(slack: float, macs: Floats, params: Floats) -> Floats:
    larger: Floats = np.maximum(macs, params) / slack
    return larger


def _cheapest_choice(space: TrilevelSpace) -> Choice:
    """The choice of `space.cheapest()`: rounding up may hide it where the budget is hardly larger."""
    path = space.cheapest().path
    node = space.nodes.index("".join("u" if step == "up" else "c" for step in path))
    return Choice(node, ((TRILEVEL_OPS.index("conv1"),) * space.positions,), ((0,) * (space.positions - 1),))


class _Program:
    """Tables over the share of the budget in use, in BUCKETS buckets: first within each cell, then down the tree.

    A table entry is the least regret of any choice that ends in exactly that bucket; -inf where none does.
    """

    def __init__(self, space: TrilevelSpace, budget: Budget, regrets: Scores, combine: Combine) -> None:
        self.space, self.budget, self.regrets, self.combine = space, budget, regrets, combine
        self.tables: dict[int, Floats] = {}
        self.cell_shares: dict[int, Ints] = {}
        self.cell_steps: dict[int, list[Ints]] = {}
        ranks = iter(range(len(space.cells)))
        for node, parent in enumerate(space.parents):
            self.tables[node] = self.tables[parent] if parent >= 0 else _empty_at(0, 1)[0]
            if node in space.cells:
                cell, self.cell_steps[node] = self._cell(next(ranks), self._op_costs(node))
                self.tables[node], self.cell_shares[node] = _combined(self.tables[node], cell)

    def solve(self) -> Choice | None:
        """The least regret in the window, or None where no choice fits."""
        shifted = np.stack([self._with_skeleton(node) for node in self.space.deliverable])
        reachable = np.flatnonzero(np.isfinite(shifted).any(axis=0))
        if not len(reachable):
            return None
        # Every op, and the skeleton, may have been rounded up by almost one bucket.
        rounding = self.space.positions * self.space.max_cells + 1
        top = reachable[-1]
        floor = min(top, FLOOR * BUCKETS + rounding) if top >= FLOOR * BUCKETS else FLOOR * top
        window = shifted + self.regrets.nodes[:, None]
        window[:, : int(np.ceil(floor))] = -np.inf
        place, bucket = (int(index) for index in np.unravel_index(window.argmax(), window.shape))
        return self._traced(self.space.deliverable[place], bucket)

    def _buckets(self, macs: Floats, params: Floats) -> Ints:
        """The combined share of the budget, rounded up to buckets; BUCKETS + 1 is too much."""
        share = self.combine(macs / (self.budget.macs or np.inf), params / (self.budget.params or np.inf))
        rounded: Ints = np.ceil(share * BUCKETS - 1e-9).clip(0, BUCKETS + 1).astype(np.int64)
        return rounded

    def _op_costs(self, node: int) -> Ints:
        """Buckets of [op][input][output] in the cell at `node`."""
        height, width = self.budget.lr_size
        weights = np.array(self.space.op_table(), dtype=np.float64)
        return self._buckets(weights * height * width * self.space.magnification(node), weights)

    def _skeleton(self, node: int) -> int:
        cost = self.space.skeleton_cost(node, self.budget.lr_size)
        return int(self._buckets(np.array(float(cost.macs)), np.array(float(cost.params))))

    def _with_skeleton(self, node: int) -> Floats:
        shift = self._skeleton(node)
        return np.concatenate([np.full(shift, -np.inf), self.tables[node]])[: BUCKETS + 1]

    def _cell(self, rank: int, costs: Ints) -> tuple[Floats, list[Ints]]:
        """The table of one cell from costs [op][input][output], and for each position where its entries came from."""
        best = _empty_at(0, 1)
        steps = []
        for position, ops in enumerate(self.regrets.ops[rank]):
            entering, leaving = self._bounds(position), self._bounds(position + 1)
            gain = self.regrets.widths[rank, position] if position < self.space.positions - 1 else np.zeros(1)
            here = costs[:, entering[:, None], leaving]
            candidates = _shifted(best, here) + ops[:, None, None, None] + gain[:, None]
            flat = candidates.reshape(-1, *candidates.shape[2:])
            steps.append(flat.argmax(0))
            best = flat.max(0)
        return best[0], steps

    def _bounds(self, boundary: int) -> Ints:
        """The widths that a boundary of a cell may have, as indices into `space.bounds`: the trunk's at both ends."""
        candidates = len(self.space.widths)
        return np.arange(candidates) if 0 < boundary < self.space.positions else np.array([candidates])

    def _traced(self, end: int, bucket: int) -> Choice:
        bucket -= self._skeleton(end)
        cells = []
        for node in reversed(self.space.lineage(end)):
            if node in self.cell_steps:
                share = int(self.cell_shares[node][bucket])
                cells.append(self._traced_cell(node, share))
                bucket -= share
        ops, widths = zip(*reversed(cells), strict=True)
        return Choice(end, ops, widths)

    def _traced_cell(self, node: int, bucket: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        costs, bound = self._op_costs(node), len(self.space.widths)
        ops: list[int] = []
        widths: list[int] = []
        for position in reversed(range(self.space.positions)):
            entering, leaving = self._bounds(position), self._bounds(position + 1)
            origin = self.cell_steps[node][position][list(leaving).index(bound), bucket]
            op, entered = divmod(int(origin), len(entering))
            ops.insert(0, op)
            bucket -= int(costs[op, entering[entered], bound])
            bound = int(entering[entered])
            widths.insert(0, bound)
        return tuple(ops), tuple(widths[1:])


def _empty_at(row: int, rows: int) -> Floats:
    """Tables of `rows` rows in which nothing is reachable but bucket 0 of `row`."""
    table = np.full((rows, BUCKETS + 1), -np.inf)
    table[row, 0] = 0.0
    return table


def _shifted(tables: Floats, costs: Ints) -> Floats:
    """[op][input][output][bucket]: the table of `input`, moved up by the cost of that op between those widths."""
    buckets = tables.shape[1]
    padded = np.concatenate([np.full_like(tables, -np.inf), tables], axis=1)
    source = buckets + np.arange(buckets) - costs[..., None]
    moved: Floats = padded[np.arange(len(tables))[None, :, None, None], source]
    return moved


def _combined(before: Floats, cell: Floats) -> tuple[Floats, Ints]:
    """Max-plus convolution of the table up to a cell with the cell's own, and the share each entry gives the cell."""
    buckets = len(before)
    padded = np.concatenate([np.full(buckets, -np.inf), before])
    totals = np.lib.stride_tricks.sliding_window_view(padded, buckets)[1:, ::-1] + cell
    return totals.max(1), totals.argmax(1)
