"""Times pieces of work against each other, in turns, so that what a machine goes through meets all of them.

Other programs and hypervisors still take the processor away from one call and not from the next. On a shared machine
that doubles one call in three, and medians wander by several percent; calls that show it are left out. What a neighbour
on the same core slows does not show it: `time_beside` watches a reference instead.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np

BUSY = 0.9  # processors that a piece keeps busy, at least; one that waits for a GPU shows nothing in this way
LOST, NOTICED = 0.05, 1e-3  # of the processor time of a call: share, and seconds, that it may lack
QUICK, STEADY = 10, 1.1  # percentile of a reference's times that is its quick time, and what it may take times that
PATIENCE = 10  # times the rounds that a quiet machine needs, that a busy one is given
FEWEST = 5  # calls that count in any case: those beside the quickest references


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall time of one call in milliseconds: quantiles over `runs` calls, without those that were disturbed."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    p99_ms: float
    runs: int


class _Call(NamedTuple):
    """Seconds of one call: wall time, and time that all threads of this process ran during it."""

    wall: float
    processor: float


class _Beside(NamedTuple):
    """A call, and the seconds of the reference before and after it."""

    call: _Call
    before: float
    after: float

    @property
    def slower(self) -> float:
        """Seconds of the reference on its slower side."""
        return max(self.before, self.after)


def time_interleaved(
    work: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 2,
    on_round: Callable[[int, int], None] | None = None,
) -> dict[str, Timing]:
    """Calls every piece once a round and returns its timing, in the order of `work`.

    The order within a round turns by one piece each time, since what ran before leaves the caches and the clock of the
    processor in its own state. The first `warmup` rounds are not counted, nor what lost the processor.
    on_round: told (rounds done, all rounds).
    """
    calls: dict[str, list[_Call]] = {name: [] for name in work}
    with _no_collection():
        for turn in range(warmup + rounds):
            for name in _turned([*work], turn):
                calls[name].append(_timed(work[name]))
            gc.collect(0)
            if on_round is not None and turn >= warmup:
                on_round(turn - warmup + 1, rounds)
    counted = {name: found[warmup:] for name, found in calls.items()}
    return {
        name: timing_from_seconds([call.wall for call, had in zip(found, undisturbed(found), strict=True) if had])
        for name, found in counted.items()
    }


def time_beside(
    reference: Callable[[], object],
    work: Mapping[str, Callable[[], object]],
    rounds: tuple[int, int],
    seconds: float,
    quick_ms: float = math.inf,
    warmup: int = 1,
) -> tuple[Timing, dict[str, Timing]]:
    """Calls every piece between two calls of a reference. Returns the reference's timing, and those of the pieces.

    A neighbour on the same core slows some work by half and other work by a tenth, for parts of a second or for
    minutes: then neither medians nor ratios to the reference are those of the machine alone. So a call counts where the
    reference was quick on both sides of it: at most `STEADY` times its percentile `QUICK`, or times `quick_ms` where
    that is less and the machine comes to be as quick. What it took is stated as its ratio to the mean of the two, times
    the median of the quick references.

    rounds: how many there are at least, and calls of every piece that count, with which it ends, as it does after
    `PATIENCE` times as many rounds. seconds: after which no further round begins. Neither the first `warmup` rounds
    count, nor calls that lost the processor. Raises ValueError without work.
    """
    if not work:
        raise ValueError("nothing is timed")
    found: dict[str, list[_Beside]] = {name: [] for name in work}
    references: list[float] = []
    least, enough = rounds
    deadline, turn = time.monotonic() + seconds, 0
    with _no_collection():
        for _ in range(warmup):
            for warm in (reference, *work.values()):
                warm()
        before = _timed(reference).wall
        while True:
            for name in _turned([*work], turn):
                call, after = _timed(work[name]), _timed(reference).wall
                found[name].append(_Beside(call, before, after))
                references.append(after)
                before = after
            gc.collect(0)
            turn += 1
            if turn < least:
                continue
            quick = STEADY * float(np.percentile(references, QUICK))
            asked = min(quick, STEADY * quick_ms / 1e3)
            over = time.monotonic() >= deadline or turn >= PATIENCE * enough
            if over or all(len(_counted(calls, asked)) >= enough for calls in found.values()):
                break
    if any(len(_counted(calls, asked)) < FEWEST for calls in found.values()):
        asked = quick  # the machine is not what it was
    usual = timing_from_seconds([one for one in references if one <= asked])
    timings = {}
    for name, calls in found.items():
        counted = _counted(calls, asked)
        if len(counted) < FEWEST:
            counted = sorted(calls, key=lambda one: one.slower)[:FEWEST]
        ratios = [one.call.wall / fmean((one.before, one.after)) for one in counted]
        timings[name] = timing_from_seconds([ratio * usual.median_ms / 1e3 for ratio in ratios])
    return usual, timings


def _counted(calls: Sequence[_Beside], quick: float) -> list[_Beside]:
    """Those that had the processor, between references of at most `quick` seconds."""
    had = undisturbed([one.call for one in calls])
    return [one for one, counts in zip(calls, had, strict=True) if counts and one.slower <= quick]


def undisturbed(calls: Sequence[tuple[float, float]]) -> list[bool]:
    """Which calls had the processor as they use to; never less than half of them.

    calls: seconds of each, and those that all threads of this process ran during it. The usual number of busy
    processors is that of the best tenth of the calls; of a call that lacks more than `LOST` of it something else has
    had the rest.
    """
    if not calls:
        return []
    wall, ran = np.asarray(calls).T
    if (usual := float(np.percentile(ran / wall, 90))) < BUSY:
        return [True] * len(calls)
    lost = usual * wall - ran
    disturbed = (lost > LOST * usual * wall) & (lost > NOTICED) & (ran / wall < np.median(ran / wall))
    return [not one for one in disturbed]


def timing_from_seconds(seconds: list[float]) -> Timing:
    """Raises ValueError for an empty list."""
    if not seconds:
        raise ValueError("nothing was timed")
    p10, median, p90, p99 = (float(value) * 1e3 for value in np.percentile(seconds, [10, 50, 90, 99]))
    return Timing(median, p10, p90, p99, len(seconds))


def _timed(call: Callable[[], object]) -> _Call:
    used, start = time.process_time(), time.perf_counter()
    call()
    return _Call(time.perf_counter() - start, time.process_time() - used)


def _turned(names: Sequence[str], turn: int) -> list[str]:
    turn %= len(names)
    return [*names[turn:], *names[:turn]]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without garbage collection, which else falls into one call and not into the next."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
