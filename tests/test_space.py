import numpy as np
import pytest

from pipeline.architecture import Architecture, Cell, Color
from pipeline.budget import Budget, Device, cost_from_architecture
from pipeline.errors import InfeasibleBudget
from pipeline.space import CHANNELS_PER_CONV, WIDTHS, EdgeSpace, Floats

BUDGETS = [
    Budget((360, 640), macs=1_000_000_000),
    Budget((360, 640), macs=3_686_400_000),
    Budget((360, 640), macs=14_745_600_000),
    Budget((101, 37), macs=100_000_000, params=20_000),
    Budget((90, 160), params=16_000),
]


def _scores(space: EdgeSpace, rng: np.random.Generator) -> list[Floats]:
    return [rng.standard_normal(len(variable.options)) for variable in space.variables]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(("scale", "color", "unshuffle"), [(2, "rgb", 1), (3, "y", 1), (4, "rgb", 2)])
def test_every_draw_is_feasible_and_uses_the_budget(budget: Budget, scale: int, color: Color, unshuffle: int) -> None:
    space = EdgeSpace(scale, color, budget, unshuffle=unshuffle)
    rng = np.random.default_rng(0)
    for _ in range(40):
        architecture = space.architecture(space.fit(_scores(space, rng)))
        share = budget.share(cost_from_architecture(architecture, budget.lr_size))
        assert 0.9 <= share <= 1.0
        assert (architecture.scale, architecture.color, architecture.unshuffle) == (scale, color, unshuffle)


def test_fit_keeps_the_best_choice_where_it_is_inside_the_window() -> None:
    space = EdgeSpace(2, "rgb", BUDGETS[1])
    rng = np.random.default_rng(1)
    inside = space.fit(_scores(space, rng))
    scores = [np.eye(len(variable.options))[gene] for variable, gene in zip(space.variables, inside, strict=True)]
    assert space.fit(scores) == inside


def test_fit_gives_up_least_score() -> None:
    space = EdgeSpace(2, "rgb", BUDGETS[1], window=0.9)  # wide enough to be reached without what counts most
    scores = [np.zeros(len(variable.options)) for variable in space.variables]
    dearest = [len(variable.options) - 1 for variable in space.variables]
    for at, score in enumerate(scores):
        score[dearest[at]] = 10.0 if space.variables[at].name in ("shape", "residual", "skip") else 1.0
    chosen = space.fit(scores)
    kept = [at for at in space.active(chosen) if space.variables[at].name in ("residual", "skip")]
    assert all(chosen[at] == dearest[at] for at in kept)


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_envelope_contains_every_architecture(budget: Budget) -> None:
    space = EdgeSpace(2, "rgb", budget)
    envelope = space.envelope()
    rng = np.random.default_rng(2)
    for _ in range(20):
        architecture = space.architecture(space.fit(_scores(space, rng)))
        assert architecture.width <= envelope.width
        assert len(architecture.cells) <= len(envelope.cells)
        for cell, largest in zip(architecture.cells, envelope.cells, strict=False):
            assert cell.widths[0] <= largest.widths[0]
            assert all(op <= most for op, most in zip(cell.ops, largest.ops, strict=True))


def test_slenderness_doubles_with_the_depth() -> None:
    space = EdgeSpace(2, "rgb", BUDGETS[1])
    slender = dict(zip(space.shapes, space.slenderness(), strict=True))
    assert slender[(12, 5)] == pytest.approx(np.log2(CHANNELS_PER_CONV * 10 / 12))
    assert slender[(12, 4)] - slender[(12, 8)] == pytest.approx(-1.0)


def test_plainness_is_that_of_the_network_drawn_by_hand() -> None:
    space = EdgeSpace(2, "rgb", BUDGETS[1])
    plain = dict(zip(space.shapes, space.plainness, strict=True))
    cells = (Cell(("conv3", "conv3"), (12,)),) * 5
    by_hand = Architecture("edge", 2, "rgb", 12, cells, tail_width=4, skip="conv3")
    share = BUDGETS[1].share(cost_from_architecture(by_hand, BUDGETS[1].lr_size))
    assert plain[(12, 5)] == pytest.approx(np.log2(share))
    assert plain[(12, 4)] < plain[(12, 5)] < plain[(12, 8)]


def test_a_narrow_tail_is_an_option_where_it_saves() -> None:
    assert EdgeSpace(3, "rgb", BUDGETS[1]).tails == ((3, 9), (3, 0), (5, 0))
    timed = Budget((360, 640), macs=10**10, latency_ms=10.0, profile="device")
    without = (
        EdgeSpace(2, "y", BUDGETS[1]),
        EdgeSpace(2, "rgb", timed, device=Device(lambda _: 1.0)),
        EdgeSpace(4, "rgb", BUDGETS[1], unshuffle=2),
    )
    assert {space.tails for space in without} == {((3, 0), (5, 0))}


def test_capacity_tells_what_a_budget_of_time_buys() -> None:
    by_macs = EdgeSpace(2, "rgb", BUDGETS[1])
    assert by_macs.capacity() == pytest.approx(0.0)
    wide_is_free = Device(lambda network: 2.0 * len(network.cells) + 1.0)
    space = EdgeSpace(2, "rgb", Budget((360, 640), latency_ms=10.0, profile="device"), device=wide_is_free)
    capacity = dict(zip(space.shapes, space.capacity(), strict=True))
    assert capacity[(64, 4)] == pytest.approx(0.0)
    assert capacity[(32, 4)] < -1.5


def test_an_infeasible_budget_names_the_cheapest_cost() -> None:
    with pytest.raises(InfeasibleBudget, match=r"needs [\d,]+ MACs at 360x640, more than 1,000,000 \(") as caught:
        EdgeSpace(2, "rgb", Budget((360, 640), macs=1_000_000, params=1_000_000))
    assert caught.value.hint == "raise budget.macs or state a smaller budget.lr_size"


def test_a_budget_beyond_the_space_is_used_as_far_as_it_goes() -> None:
    space = EdgeSpace(2, "rgb", Budget((100, 100), macs=10**13))
    architecture = space.architecture(space.fit([np.zeros(len(v.options)) for v in space.variables]))
    assert architecture.width == WIDTHS[-1]


def _milliseconds(architecture: Architecture) -> float:
    """A device on which every layer costs something, whatever it computes, and 5x5 kernels more than their MACs."""
    convs = sum(3.0 if op == "conv5" else 1.0 for cell in architecture.cells for op in cell.ops)
    return 2.0 + architecture.width / 16 * (1.0 + convs) + sum(cell.residual for cell in architecture.cells)


@pytest.mark.parametrize("macs", [None, 10**10])
def test_every_draw_keeps_a_latency_budget(macs: int | None) -> None:
    budget = Budget((360, 640), macs=macs, latency_ms=12.0, profile="device")
    space = EdgeSpace(2, "rgb", budget, device=Device(_milliseconds))
    rng = np.random.default_rng(3)
    for _ in range(40):
        genes = space.fit(_scores(space, rng))
        cost = space.cost(space.architecture(genes))
        assert cost.latency_ms == _milliseconds(space.architecture(genes))
        assert space.share(genes) == pytest.approx(budget.share(cost))
        assert 0.9 <= budget.share(cost) <= 1.0


def test_a_corrected_space_has_the_same_variables_and_slower_networks() -> None:
    budget = Budget((360, 640), latency_ms=12.0, profile="device")
    space = EdgeSpace(2, "rgb", budget, device=Device(_milliseconds))
    slower = space.corrected(1.5)
    assert slower.variables == space.variables
    for seed in range(10):
        genes = slower.fit(_scores(space, np.random.default_rng(seed)))
        assert slower.share(genes) == pytest.approx(1.5 * space.share(genes))
        assert 0.9 <= slower.share(genes) <= 1.0


def test_a_latency_below_the_fastest_network_is_infeasible() -> None:
    budget = Budget((360, 640), latency_ms=3.0, profile="device")
    with pytest.raises(
        InfeasibleBudget, match=r"needs 4\.50 ms by the model of profile device, more than 3 "
    ) as caught:
        EdgeSpace(2, "rgb", budget, device=Device(_milliseconds))
    assert caught.value.hint == "raise budget.latency_ms or state a smaller budget.lr_size and a profile of it"


def test_the_fastest_network_is_not_always_the_narrowest() -> None:
    def whole_blocks(architecture: Architecture) -> float:
        """A device that is slow at less than 16 channels."""
        widths = [architecture.width, *(width for cell in architecture.cells for width in cell.widths)]
        return 5.0 + sum(3.0 if width < 16 else width / 16 for width in widths)

    budget = Budget((360, 640), latency_ms=10.0, profile="device")
    space = EdgeSpace(2, "rgb", budget, device=Device(whole_blocks))
    assert (space.cheapest().width, whole_blocks(space.cheapest())) == (16, 8.0)
    genes = space.fit([np.zeros(len(variable.options)) for variable in space.variables])
    assert 0.9 <= space.share(genes) <= 1.0
