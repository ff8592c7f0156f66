"""Measures the networks that a search could end with on their device, and takes one that keeps the latency budget."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.architecture import Architecture, summary
from pipeline.budget import Budget
from pipeline.errors import BudgetMissed

FEWEST, MOST = 0.9, 0.93  # share of the latency budget that is good enough: above it, the next timing may be over it
TRIES, FACTORS = 8, 32  # networks that are measured at most, and factors: some lead to a network that was measured
STEP = 0.97  # of the correction that was too small


@dataclass(frozen=True, slots=True)
class Finalist:
    """predicted_ms: by the profile's model. measured_ms: on the device, scaled to the profile by its calibration."""

    architecture_id: str
    architecture: str
    predicted_ms: float
    measured_ms: float


def finalist_on_device(
    delivered: Callable[[float], Architecture],
    predict_ms: Callable[[Architecture], float],
    measure_ms: Callable[[Architecture], float],
    budget: Budget,
) -> tuple[Architecture, list[Finalist]]:
    """The network to deliver, and all that were measured for it.

    delivered: the best network whose predicted latency, times a factor, is within the budget. The factor begins at
    1 / `MOST` and follows what is measured, until a network uses between `FEWEST` and `MOST` of the budget. Of those
    below `MOST` the slowest is taken; where there is none, of those within the budget. Raises BudgetMissed where no
    network is within the budget.
    """
    assert budget.latency_ms is not None
    factor, tried = 1 / MOST, set[float]()
    found: dict[str, tuple[Architecture, Finalist]] = {}
    while len(found) < TRIES and len(tried) < FACTORS:
        tried.add(factor)
        architecture = delivered(factor)
        if architecture.id not in found:
            finalist = Finalist(
                architecture.id, summary(architecture), predict_ms(architecture), measure_ms(architecture)
            )
            found[architecture.id] = (architecture, finalist)
        finalist = found[architecture.id][1]
        share = finalist.measured_ms / budget.latency_ms
        if FEWEST <= share <= MOST:
            break
        factor = finalist.measured_ms / finalist.predicted_ms / MOST
        while factor in tried:  # the space has gaps: what comes next is a little slower or faster
            factor *= STEP if share < FEWEST else 1 / STEP
    measured = [finalist for _, finalist in found.values()]
    within = [pair for pair in found.values() if pair[1].measured_ms <= MOST * budget.latency_ms]
    within = within or [pair for pair in found.values() if pair[1].measured_ms <= budget.latency_ms]
    if not within:
        least = min(measured, key=lambda finalist: finalist.measured_ms)
        raise BudgetMissed(
            f"the fastest of {len(measured)} finalists takes {least.measured_ms:.2f} ms on {budget.profile}, "
            f"the budget is {budget.latency_ms:g} ms ({least.architecture}, {least.predicted_ms:.2f} ms predicted)",
            "raise budget.latency_ms, or measure the device again with `sr-pipeline profile`",
        )
    return max(within, key=lambda pair: pair[1].measured_ms)[0], measured
