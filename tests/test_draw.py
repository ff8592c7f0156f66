import math

import numpy as np
import pytest

from pipeline.architecture import Architecture, Color
from pipeline.budget import cost_from_architecture
from pipeline.draw import draw_architectures
from pipeline.space import EXPANSIONS, KERNELS, SKIPS, WIDTHS

LR_SIZE = (360, 640)
MACS = (1.0, 15e9)


def _drawn(
    count: int = 60, seed: int = 0, color: Color = "rgb", scale: int = 2, unshuffle: int = 1
) -> list[Architecture]:
    return draw_architectures(
        count, seed, scale=scale, color=color, lr_size=LR_SIZE, macs=MACS, unshuffle=unshuffle, activation="prelu"
    )


@pytest.mark.parametrize(("color", "scale", "unshuffle"), [("rgb", 2, 1), ("y", 3, 1), ("rgb", 4, 2)])
def test_networks_are_of_the_task_and_of_the_space(color: Color, scale: int, unshuffle: int) -> None:
    for one in _drawn(20, 0, color, scale, unshuffle):
        assert (one.space, one.color, one.scale, one.unshuffle, one.activation) == (
            "edge",
            color,
            scale,
            unshuffle,
            "prelu",
        )
        assert one.width in WIDTHS
        assert {one.stem, one.tail} <= {*KERNELS[1:]}
        assert one.skip in SKIPS
        for cell in one.cells:
            assert cell.widths[0] in {max(4, 4 * round(one.width * expansion / 4)) for expansion in EXPANSIONS}


def test_the_seed_decides() -> None:
    drawn = _drawn(20, seed=3)
    assert drawn == _drawn(20, seed=3)
    assert not {one.id for one in drawn} & {one.id for one in _drawn(20, seed=4)}


def test_the_draw_is_spread_over_the_space() -> None:
    drawn = _drawn(100)
    assert len({one.id for one in drawn}) == 100
    assert [sum(one.width == width for one in drawn) for width in WIDTHS] == [10] * len(WIDTHS)
    macs = np.array([cost_from_architecture(one, LR_SIZE).macs for one in drawn])
    assert macs.min() < MACS[1] / 20
    assert macs.max() < 1.2 * MACS[1]
    assert all(np.histogram(np.log(macs), bins=4, range=(math.log(MACS[1] / 16), math.log(MACS[1])))[0] >= 10)
    ops = [op for one in drawn for cell in one.cells for op in cell.ops]
    assert all(ops.count(op) > len(ops) / 10 for op in set(ops))
    alike = [len({op for cell in one.cells for op in cell.ops}) == 1 for one in drawn]
    assert 5 < sum(alike) < 80
    residual = [cell.residual for one in drawn for cell in one.cells]
    assert 0.3 < np.mean(residual) < 0.7
    assert len({len(one.cells) for one in drawn}) == 9


def test_bounds_below_every_network_give_the_cheapest_ones() -> None:
    drawn = draw_architectures(10, 0, scale=2, color="rgb", lr_size=LR_SIZE, macs=(1.0, 2.0))
    assert len(drawn) == 10
