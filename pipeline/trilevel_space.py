"""The `trilevel` search space: its tree of cells and ups, and the architecture that each choice in it stands for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.architecture import TRILEVEL_OPS, Architecture, Cell, Color, Up, Variant
from pipeline.budget import Budget, Cost, cost_from_architecture, ensure_feasible, op_weights

WIDTHS = (24, 32, 40, 56, 64)


@dataclass(frozen=True, slots=True)
class Choice:
    """One candidate for every variable that matters.

    node: index into `TrilevelSpace.nodes`.
    ops, widths: for each cell on the node's path, root first, indices into TRILEVEL_OPS and `TrilevelSpace.widths`.
    """

    node: int
    ops: tuple[tuple[int, ...], ...]
    widths: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class TrilevelSpace:
    """The space of Wu et al. (arXiv 2101.06658): which node of the tree, which ops in its cells, how wide they are.

    A node is the path that leads to it, one letter per step: "c" for a cell, "u" for an up. Every path begins with the
    root cell "c". Parents come before their children.

    variant: "a" upsamples at the ups of the path, so that only nodes with all ups can be delivered; "b" keeps the LR
        size, where an up is one more convolution, upsamples in its tail, and can deliver every node.
    trunk: channels between cells. widths: the candidates at the inner boundaries of a cell, narrowest first.
    positions: ops in a cell. max_cells counts the root.
    """

    scale: int = 4
    color: Color = "rgb"
    variant: Variant = "b"
    trunk: int = 64
    widths: tuple[int, ...] = WIDTHS
    positions: int = 5
    max_cells: int = 5
    max_ups: int = 2

    def __post_init__(self) -> None:
        if self.variant == "a" and 2**self.max_ups != self.scale:
            raise ValueError(f"{self.max_ups} ups of variant a make scale {2**self.max_ups}, not {self.scale}")
        if min(self.positions, self.max_cells) < 1 or self.max_ups < 0:
            raise ValueError("the tree needs a root cell with at least one op")
        if not self.widths or list(self.widths) != sorted(set(self.widths)) or self.widths[0] < 1:
            raise ValueError(f"widths are positive and ascending, not {self.widths}")

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        grown = ["c"]
        for node in grown:
            room = {"c": self.max_cells, "u": self.max_ups}
            grown.extend(node + letter for letter, most in room.items() if node.count(letter) < most)
        return tuple(grown)

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """Index of each node's parent; -1 for the root."""
        index = {node: position for position, node in enumerate(self.nodes)}
        return tuple(index.get(node[:-1], -1) for node in self.nodes)

    @cached_property
    def cells(self) -> tuple[int, ...]:
        """The nodes that are cells; variables of cells come in this order."""
        return tuple(position for position, node in enumerate(self.nodes) if node.endswith("c"))

    @cached_property
    def deliverable(self) -> tuple[int, ...]:
        """The nodes that the network may end at, which are those the supernet mixes."""
        ups = self.max_ups if self.variant == "a" else 0
        return tuple(position for position, node in enumerate(self.nodes) if node.count("u") >= ups)

    @cached_property
    def paths(self) -> tuple[tuple[int, ...], ...]:
        """For each full-depth path, the positions in `deliverable` of the nodes on it, shallow to deep."""
        place = {node: position for position, node in enumerate(self.deliverable)}
        full = self.max_cells + self.max_ups
        return tuple(
            tuple(place[step] for step in self.lineage(leaf) if step in place)
            for leaf, node in enumerate(self.nodes)
            if len(node) == full
        )

    def lineage(self, node: int) -> tuple[int, ...]:
        """The nodes from the root to `node`, both included."""
        steps = [node]
        while self.parents[steps[-1]] >= 0:
            steps.append(self.parents[steps[-1]])
        return tuple(reversed(steps))

    def magnification(self, node: int) -> int:
        """Pixels of the node's features for each LR pixel."""
        return int(4 ** self.nodes[node].count("u")) if self.variant == "a" else 1

    @property
    def bounds(self) -> tuple[int, ...]:
        """Every width a boundary of an op may have: the candidates, then the trunk's at the ends of a cell."""
        return (*self.widths, self.trunk)

    def op_table(self) -> list[list[list[int]]]:
        """`op_weights` of [op][input][output], the last two as indices into `bounds`."""
        return [[[op_weights(op, i, o) for o in self.bounds] for i in self.bounds] for op in TRILEVEL_OPS]

    def skeleton_cost(self, node: int, lr_size: tuple[int, int]) -> Cost:
        """Cost of everything but the cells in a network that ends at the deliverable `node`: stem, ups and tail."""
        ups: list[Cell | Up] = ["up"] * self.nodes[node].count("u")
        return cost_from_architecture(self._architecture(ups), lr_size)

    def cheapest(self) -> Architecture:
        """The architecture with the fewest params and the fewest MACs at any LR size."""
        ups = self.max_ups if self.variant == "a" else 0
        cell = Cell(("conv1",) * self.positions, (self.widths[0],) * (self.positions - 1))
        path: list[Cell | Up] = ["up"] * ups
        return self._architecture([cell, *path])

    def ensure_feasible(self, budget: Budget) -> None:
        """Raises InfeasibleBudget, with its cost, if even the cheapest network exceeds the budget."""
        cheapest = self.cheapest()
        ensure_feasible(budget, cheapest, cost_from_architecture(cheapest, budget.lr_size))

    def architecture(self, choice: Choice) -> Architecture:
        """The network that `choice` stands for."""
        cells = iter(
            Cell(tuple(TRILEVEL_OPS[op] for op in ops), tuple(self.widths[width] for width in widths))
            for ops, widths in zip(choice.ops, choice.widths, strict=True)
        )
        return self._architecture([next(cells) if letter == "c" else "up" for letter in self.nodes[choice.node]])

    def _architecture(self, path: Sequence[Cell | Up]) -> Architecture:
        shuffle = 1 if self.variant == "a" else self.scale
        return Architecture("trilevel", self.scale, self.color, self.trunk, tuple(path), skip="none", shuffle=shuffle)
