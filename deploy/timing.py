"""Times pieces of work against each other, in turns, so that a busy machine slows all of them alike."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall time of one call in milliseconds: quantiles over `runs` calls."""

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
    processor in its own state. The first `warmup` rounds are not counted. on_round: told (rounds done, all rounds).
    """
    names = [*work]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(warmup + rounds):
            for at in range(len(names)):
                name = names[(at + turn) % len(names)]
                start = time.perf_counter()
                work[name]()
                seconds[name].append(time.perf_counter() - start)
            gc.collect(0)
            if on_round is not None and turn >= warmup:
                on_round(turn - warmup + 1, rounds)
    finally:
        if collecting:
            gc.enable()
    return {name: timing_from_seconds(taken[warmup:]) for name, taken in seconds.items()}


def timing_from_seconds(seconds: list[float]) -> Timing:
    """Raises ValueError for an empty list."""
    if not seconds:
        raise ValueError("nothing was timed")
    p10, median, p90, p99 = (float(value) * 1e3 for value in np.percentile(seconds, [10, 50, 90, 99]))
    return Timing(median, p10, p90, p99, len(seconds))
