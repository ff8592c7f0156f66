"""Times pieces of work against each other, in turns, so that a busy machine slows all of them alike.

Other programs and hypervisors still take the processor away from one call and not from the next. On a shared machine
that doubles one call in three, and medians wander by several percent; calls that show it are left out.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

BUSY = 0.9  # processors that a piece keeps busy, at least; one that waits for a GPU shows nothing in this way
LOST, NOTICED = 0.05, 1e-3  # of the processor time of a call: share, and seconds, that it may lack


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall time of one call in milliseconds: quantiles over `runs` calls, without those that were disturbed."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    p99_ms: float
    runs: int


def time_interleaved(
    work: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 2,
    on_round: Callable[[int, int], None] | None = None,
) -> dict[str, Timing]:
    """Calls every piece once a round and returns its timing, in the order of `work`.

    The order within a round turns by one piece each time, since what ran before leaves the caches and the clock of the
    processor in its own state. The first `warmup` rounds are not counted, nor what `undisturbed` leaves out.
    on_round: told (rounds done, all rounds).
    """
    names = [*work]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    processor: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(warmup + rounds):
            for at in range(len(names)):
                name = names[(at + turn) % len(names)]
                used, start = time.process_time(), time.perf_counter()
                work[name]()
                seconds[name].append(time.perf_counter() - start)
                processor[name].append(time.process_time() - used)
            gc.collect(0)
            if on_round is not None and turn >= warmup:
                on_round(turn - warmup + 1, rounds)
    finally:
        if collecting:
            gc.enable()
    return {name: timing_from_seconds(undisturbed(seconds[name][warmup:], processor[name][warmup:])) for name in names}


def undisturbed(seconds: Sequence[float], processor: Sequence[float]) -> list[float]:
    """The calls that had the processor as they use to; never less than half of them.

    seconds: wall time of each call. processor: time that all threads of this process ran during it. The usual number of
    busy processors is that of the best tenth of the calls; of a call that lacks more than `LOST` of it something else
    has had the rest.
    """
    wall, ran = np.asarray(seconds), np.asarray(processor)
    if not wall.size or (usual := float(np.percentile(ran / wall, 90))) < BUSY:
        return [*seconds]
    lost = usual * wall - ran
    disturbed = (lost > LOST * usual * wall) & (lost > NOTICED) & (ran / wall < np.median(ran / wall))
    return [one for one, leave_out in zip(seconds, disturbed, strict=True) if not leave_out]


def timing_from_seconds(seconds: list[float]) -> Timing:
    """Raises ValueError for an empty list."""
    if not seconds:
        raise ValueError("nothing was timed")
    p10, median, p90, p99 = (float(value) * 1e3 for value in np.percentile(seconds, [10, 50, 90, 99]))
    return Timing(median, p10, p90, p99, len(seconds))
