from collections.abc import Callable

import pytest

from pipeline.architecture import Architecture, Cell, Up
from pipeline.budget import Budget, Cost, cost_from_architecture, parts_from_architecture, short
from pipeline.fold import plain_from_network
from pipeline.network import Network, fvcore_cost

CONV3 = Cell(("conv3",), (), residual=False)


@pytest.mark.parametrize("lr_size", [(16, 24), (7, 5), (1, 1)])
def test_formula_is_fvcores_count_of_the_plain_form(
    architecture: Architecture, random_network: Callable[..., Network], lr_size: tuple[int, int]
) -> None:
    plain = plain_from_network(random_network(architecture))
    assert fvcore_cost(plain, lr_size) == cost_from_architecture(architecture, lr_size)


@pytest.mark.parametrize(
    ("architecture", "macs", "params"),
    [
        # 4 pixels; stem 9*3*8, cell 9*8*8, tail 9*8*12
        (Architecture("edge", 2, "rgb", 8, (CONV3,)), 4 * (216 + 576 + 864), 216 + 8 + 576 + 8 + 864 + 12),
        # a slope for each channel behind the stem and behind the cell
        (
            Architecture("edge", 2, "rgb", 8, (CONV3,), activation="prelu"),
            4 * (216 + 576 + 864),
            216 + 16 + 576 + 16 + 864 + 12,
        ),
        # one slope for all channels; a tail of 4 channels and 4 x 12 without a bias
        (
            Architecture("edge", 2, "rgb", 8, (CONV3,), activation="acon", tail_width=4),
            4 * (216 + 576 + 288 + 48),
            216 + 9 + 576 + 9 + 288 + 4 + 48,
        ),
        # one pixel of 4 channels in; the skip is 4 x 16 without a bias
        (
            Architecture("edge", 2, "y", 8, (), stem=1, tail=1, skip="conv1", unshuffle=2, shuffle=4),
            4 * 8 + 8 * 16 + 4 * 16,
            4 * 8 + 8 + 8 * 16 + 16 + 4 * 16,
        ),
        # variant A: the tail works on 16 times the pixels, the second up's convolution too, the first's on 4 times
        (
            Architecture("trilevel", 4, "rgb", 8, ("up", "up"), skip="none", shuffle=1),
            4 * (216 + 4 * 576 + 16 * 576 + 16 * 216),
            216 + 8 + 2 * (576 + 8) + 216 + 3,
        ),
        # dws 8 -> 6 with a 1x1 skip, then conv1 6 -> 8, none with a bias
        (
            Architecture("trilevel", 4, "y", 8, (Cell(("dws", "conv1"), (6,)),), skip="none", shuffle=4),
            4 * (72 + 8 * 32 + 9 * 32 + 32 * 6 + 8 * 6 + 6 * 8 + 9 * 8 * 16),
            72 + 8 + 8 * 32 + 9 * 32 + 32 * 6 + 8 * 6 + 6 * 8 + 9 * 8 * 16 + 16,
        ),
    ],
)
def test_cost_is_what_a_hand_counts(architecture: Architecture, macs: int, params: int) -> None:
    assert cost_from_architecture(architecture, (2, 2)) == Cost(macs, params)


@pytest.mark.parametrize(
    ("budget", "share"),
    [
        (Budget((360, 640)), 0.0),
        (Budget((360, 640), macs=1000), 0.8),
        (Budget((360, 640), macs=800), 1.0),
        (Budget((360, 640), params=40), 1.25),
        (Budget((360, 640), macs=1000, params=100), 0.8),
        (Budget((360, 640), macs=1600, params=80), 0.625),
        (Budget((360, 640), macs=799, params=100), 800 / 799),
    ],
)
def test_budget_allows_up_to_its_tightest_bound(budget: Budget, share: float) -> None:
    cost = Cost(macs=800, params=50)
    assert budget.share(cost) == pytest.approx(share)
    assert budget.allows(cost) == (share <= 1)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (812, "812"), (15_700, "15.7K"), (3_642_163_200, "3.642G"), (2_000_000, "2M")]
)
def test_short(count: int, text: str) -> None:
    assert short(count) == text


def test_parts_stand_in_the_order_of_the_network() -> None:
    cells: tuple[Cell | Up, ...] = (Cell(("dws", "conv1"), (6,)), "up", Cell(("residual",), ()))
    found = parts_from_architecture(Architecture("trilevel", 4, "rgb", 8, cells, shuffle=4, skip="conv3"), (2, 2))
    assert [part[:4] for part in found] == [
        ("stem", "conv3", 3, 8),
        ("cell 1", "dws", 8, 6),
        ("cell 1", "conv1", 6, 8),
        ("up", "conv3", 8, 8),
        ("cell 2", "residual", 8, 8),
        ("tail", "conv3", 8, 48),
        ("skip", "conv3", 3, 48),
    ]
