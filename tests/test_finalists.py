from collections.abc import Callable

import pytest

from pipeline.architecture import Architecture, Cell
from pipeline.budget import Budget
from pipeline.errors import BudgetMissed
from pipeline.finalists import TRIES, finalist_on_device

BUDGET = Budget((360, 640), latency_ms=100.0, profile="a device")


def networks(*predicted: float) -> dict[Architecture, float]:
    """Networks of these predicted latencies."""
    return {
        Architecture("edge", 2, "rgb", 8, (Cell(("conv3",), (), residual=False),) * (at + 1)): latency
        for at, latency in enumerate(predicted)
    }


def dearest(space: dict[Architecture, float]) -> Callable[[float], Architecture]:
    """What a search delivers: the slowest network that the model puts within the budget; the fastest, if none is."""

    def delivered(factor: float) -> Architecture:
        within = [network for network, latency in space.items() if latency * factor <= 100.0]
        return max(within, key=space.__getitem__) if within else min(space, key=space.__getitem__)

    return delivered


@pytest.mark.parametrize(
    ("predicted", "slower", "taken"),
    [
        ((80, 91, 95, 120), 1.0, 91),  # the model is right: the first is good
        ((60, 70, 74, 91, 120), 1.25, 74),  # the device is slower than the model: 91 would take 114 ms
        ((60, 90, 115, 130, 150), 0.8, 115),  # it is faster: 90 uses but 72 % of the budget
        ((30, 60, 99), 1.0, 60),  # nothing uses the budget well: the best that is within
        ((99.5,), 1.0, 99.5),  # above what is safe, but within the budget
    ],
)
def test_takes_what_uses_the_budget_on_the_device(predicted: tuple[float, ...], slower: float, taken: float) -> None:
    space = networks(*predicted)
    chosen, measured = finalist_on_device(
        dearest(space), space.__getitem__, lambda network: slower * space[network], BUDGET
    )
    assert space[chosen] == taken
    assert chosen.id in {finalist.architecture_id for finalist in measured}
    assert all(finalist.measured_ms == pytest.approx(slower * finalist.predicted_ms) for finalist in measured)


def test_no_network_is_measured_twice() -> None:
    space = networks(30, 60)
    asked: list[Architecture] = []

    def measure_ms(network: Architecture) -> float:
        asked.append(network)
        return space[network]

    finalist_on_device(dearest(space), space.__getitem__, measure_ms, BUDGET)
    assert len(asked) == len({*asked}) <= TRIES


def test_a_network_that_comes_again_is_no_try() -> None:
    """The model leaves a gap of more than `TRIES` steps, and errs on what is behind it."""
    space = networks(60, 128)
    measured_ms = dict(zip(space, (60.0, 91.0), strict=True))
    chosen, measured = finalist_on_device(dearest(space), space.__getitem__, measured_ms.__getitem__, BUDGET)
    assert measured_ms[chosen] == 91
    assert len(measured) == 2


def test_a_device_that_keeps_no_budget_is_told_with_its_figures() -> None:
    space = networks(90, 95)
    with pytest.raises(BudgetMissed, match=r"takes 180\.00 ms on a device, the budget is 100 ms .*90\.00 ms predicted"):
        finalist_on_device(dearest(space), space.__getitem__, lambda network: 2 * space[network], BUDGET)
