import itertools
from typing import Any

import pytest

from pipeline.architecture import TRILEVEL_OPS, Architecture, Cell
from pipeline.budget import Cost, cost_from_architecture, op_weights
from pipeline.trilevel_space import WIDTHS, Choice, TrilevelSpace


def test_the_published_tree_has_the_published_counts() -> None:
    space = TrilevelSpace()
    assert len(space.nodes) == len(set(space.nodes)) == 55
    assert len(space.cells) == 35
    assert sum(node.endswith("u") for node in space.nodes) == 20
    assert sum(node.count("u") == 2 for node in space.nodes) == 35
    assert sum(node.count("u") == 2 and node.count("c") == 5 for node in space.nodes) == 15
    assert len(space.paths) == 15
    assert len(space.deliverable) == 55
    assert len(TrilevelSpace(variant="a").deliverable) == 35


@pytest.mark.parametrize("variant", ["a", "b"])
def test_tree_hangs_together(variant: Any) -> None:
    space = TrilevelSpace(variant=variant)
    assert space.nodes[0] == "c"
    assert space.parents[0] == -1
    for index in range(1, 55):
        assert space.parents[index] < index
        assert space.nodes[index][:-1] == space.nodes[space.parents[index]]
    for index, node in enumerate(space.nodes):
        assert [space.nodes[step] for step in space.lineage(index)] == [node[:end] for end in range(1, len(node) + 1)]
    for path in space.paths:
        names = [space.nodes[space.deliverable[place]] for place in path]
        assert all(len(after) == len(before) + 1 for before, after in itertools.pairwise(names))
        assert len(names[-1]) == 7
        assert variant == "a" or len(names) == 7


@pytest.mark.parametrize(("cells", "ups", "nodes", "paths"), [(1, 0, 1, 1), (1, 2, 3, 1), (2, 1, 5, 2), (3, 2, 19, 6)])
def test_tree_can_be_smaller(cells: int, ups: int, nodes: int, paths: int) -> None:
    space = TrilevelSpace(max_cells=cells, max_ups=ups)
    assert len(space.nodes) == nodes
    assert len(space.paths) == paths


@pytest.mark.parametrize("op", TRILEVEL_OPS)
@pytest.mark.parametrize("inputs", [24, 40, 64])
@pytest.mark.parametrize("outputs", [24, 56, 64])
def test_weights_of_an_op_are_those_of_the_budget(op: str, inputs: int, outputs: int) -> None:
    def cost(ops: tuple[str, ...], widths: tuple[int, ...]) -> Cost:
        architecture = Architecture("trilevel", 4, "rgb", 64, (Cell(ops, widths),), skip="none", shuffle=4)
        return cost_from_architecture(architecture, (1, 1))

    ends = cost(("conv1", "conv1", "conv1"), (inputs, outputs))
    whole = cost(("conv1", op, "conv1"), (inputs, outputs))
    difference = op_weights(op, inputs, outputs) - op_weights("conv1", inputs, outputs)
    assert whole.params - ends.params == whole.macs - ends.macs == difference
    table = TrilevelSpace().op_table()
    bounds = (*WIDTHS, 64)
    assert table[TRILEVEL_OPS.index(op)][bounds.index(inputs)][bounds.index(outputs)] == op_weights(op, inputs, outputs)


@pytest.mark.parametrize("variant", ["a", "b"])
def test_cost_is_the_skeleton_and_the_cells(variant: Any) -> None:
    space = TrilevelSpace(variant=variant)
    cell = ((3, 0, 1, 2, 3), (0, 4, 1, 2))
    for node in space.deliverable:
        name = space.nodes[node]
        count = name.count("c")
        architecture = space.architecture(Choice(node, (cell[0],) * count, (cell[1],) * count))
        bounds = [64, *(WIDTHS[width] for width in cell[1]), 64]
        weights = sum(
            op_weights(TRILEVEL_OPS[op], *ends) for op, ends in zip(cell[0], itertools.pairwise(bounds), strict=True)
        )
        skeleton = space.skeleton_cost(node, (8, 6))
        pixels = sum(48 * space.magnification(step) for step in space.lineage(node) if step in space.cells)
        assert cost_from_architecture(architecture, (8, 6)) == Cost(
            skeleton.macs + weights * pixels, skeleton.params + weights * count
        )


def test_choice_becomes_an_architecture() -> None:
    space = TrilevelSpace(scale=2, variant="a", color="y", max_ups=1)
    choice = Choice(space.nodes.index("ccu"), ((0, 1, 2, 3, 0), (1,) * 5), ((0, 1, 2, 3), (4,) * 4))
    assert space.architecture(choice) == Architecture(
        "trilevel",
        2,
        "y",
        64,
        (
            Cell(("conv1", "conv3", "residual", "dws", "conv1"), (24, 32, 40, 56)),
            Cell(("conv3",) * 5, (64,) * 4),
            "up",
        ),
        skip="none",
        shuffle=1,
    )


@pytest.mark.parametrize("variant", ["a", "b"])
def test_cheapest_is_the_cheapest(variant: Any) -> None:
    space = TrilevelSpace(scale=2, variant=variant, trunk=6, widths=(4, 8), positions=2, max_cells=2, max_ups=1)
    costs = []
    for node in space.deliverable:
        count = space.nodes[node].count("c")
        for ops in itertools.product(range(4), repeat=2 * count):
            for widths in itertools.product(range(2), repeat=count):
                choice = Choice(
                    node,
                    tuple(ops[2 * cell : 2 * cell + 2] for cell in range(count)),
                    tuple((width,) for width in widths),
                )
                costs.append(cost_from_architecture(space.architecture(choice), (5, 7)))
    cheapest = cost_from_architecture(space.cheapest(), (5, 7))
    assert cheapest.macs == min(cost.macs for cost in costs)
    assert cheapest.params == min(cost.params for cost in costs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "a", "scale": 3}, "2 ups of variant a make scale 4, not 3"),
        ({"max_cells": 0}, "root cell"),
        ({"positions": 0}, "root cell"),
        ({"widths": (8, 4)}, "ascending"),
        ({"widths": ()}, "ascending"),
    ],
)
def test_impossible_spaces_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrilevelSpace(**fields)
