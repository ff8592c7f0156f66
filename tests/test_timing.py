import gc
import time
from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from deploy import timing
from deploy.timing import time_beside, time_interleaved, timing_from_seconds, undisturbed


def test_every_piece_is_called_once_a_round_and_in_turning_order() -> None:
    called: list[str] = []
    timings = time_interleaved({name: lambda name=name: called.append(name) for name in "abc"}, rounds=3, warmup=1)  # type: ignore[misc]
    assert "".join(called) == "abc" + "bca" + "cab" + "abc"
    assert list(timings) == ["a", "b", "c"]
    assert {timing.runs for timing in timings.values()} == {3}


def test_progress_leaves_out_the_warm_up() -> None:
    seen: list[tuple[int, int]] = []
    time_interleaved({"a": lambda: None}, rounds=2, warmup=2, on_round=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 2), (2, 2)]


def test_quantiles_in_milliseconds() -> None:
    timing = timing_from_seconds([index / 1000 for index in range(101)])
    assert asdict(timing) == pytest.approx({"median_ms": 50, "p10_ms": 10, "p90_ms": 90, "p99_ms": 99, "runs": 101})


@pytest.mark.parametrize(
    ("calls", "kept"),
    [
        pytest.param([(0.02, 0.04)] * 4, [True] * 4, id="steady, two threads"),
        pytest.param([(0.02, 0.04), (0.03, 0.05), (0.02, 0.04)], [True, False, True], id="one lost a sixth"),
        pytest.param([(0.02, 0.04), (0.03, 0.06), (0.02, 0.04)], [True] * 3, id="slow, but busy"),
        pytest.param(
            [(0.02, 0.04), (0.021, 0.04), (0.03, 0.04), (0.04, 0.04)],
            [True, True, False, False],
            id="most lost something: half is kept",
        ),
        pytest.param([(0.02, 0.001), (0.03, 0.001)], [True] * 2, id="waits for a GPU"),
        pytest.param([(2e-4, 2e-4), (2e-4, 2e-4), (4e-4, 2e-4)], [True] * 3, id="too short to tell"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_calls_that_lost_the_processor_are_left_out(calls: list[tuple[float, float]], kept: list[bool]) -> None:
    assert undisturbed(calls) == kept


class Machine:
    """A clock that only work moves on, on a machine that is slow from call to call as `slow` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slow: Callable[[int], bool]) -> None:
        self.now, self.calls, self.slow = 0.0, 0, slow
        clock = SimpleNamespace(perf_counter=self.read, process_time=self.read, monotonic=self.read)
        monkeypatch.setattr(timing, "time", clock)

    def read(self) -> float:
        return self.now

    def work(self, ms: float, slower: float) -> Callable[[], None]:
        """What takes `ms`, and `slower` times that where the machine is slow."""

        def call() -> None:
            self.now += ms / 1e3 * (slower if self.slow(self.calls) else 1)
            self.calls += 1

        return call


def test_calls_beside_a_slow_reference_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is slow three quarters of the time, and slows the reference more than the work: no ratio would do."""
    machine = Machine(monkeypatch, lambda call: call % 40 >= 10)
    pieces = {"a": machine.work(20, 1.1), "b": machine.work(5, 1.9)}
    reference, timings = time_beside(machine.work(10, 1.6), pieces, (3, 12), 600)
    assert reference.median_ms == pytest.approx(10)
    assert {name: one.median_ms for name, one in timings.items()} == pytest.approx({"a": 20, "b": 5})
    assert min(one.runs for one in timings.values()) == 12  # and then it ends
    assert machine.now < 60


def test_a_reference_that_is_slower_than_usual_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda call: call < 200)
    reference, timings = time_beside(machine.work(10, 1.6), {"a": machine.work(20, 1.1)}, (3, 12), 600, quick_ms=10)
    assert (reference.median_ms, timings["a"].median_ms) == pytest.approx((10, 20))
    assert 200 < machine.calls < 240


def test_on_a_machine_that_stays_slow_the_calls_beside_the_quickest_references_of_now_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, lambda _: True)
    reference, timings = time_beside(machine.work(10, 1.6), {"a": machine.work(20, 1.1)}, (3, 12), 2, quick_ms=10)
    assert (reference.median_ms, timings["a"].median_ms) == pytest.approx((16, 22))
    assert 2 < machine.now < 2.2


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda _: True)
    _, timings = time_beside(machine.work(10, 2), {"a": machine.work(20, 1)}, (3, 12), 600, quick_ms=10)
    assert timings["a"].runs == 12 * timing.PATIENCE  # this is what the machine is now
    assert machine.calls == 3 + 2 * 12 * timing.PATIENCE


def test_where_hardly_a_call_is_beside_quick_references_the_few_that_are_nearest_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, lambda call: call % 2 == 0)  # which the reference meets every second time
    pieces = {"a": machine.work(20, 1), "b": machine.work(20, 1)}
    _, timings = time_beside(machine.work(10, 2), pieces, (2, 3), 0)
    assert {one.runs for one in timings.values()} == {2}


def test_nothing_to_time_beside_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is timed"):
        time_beside(lambda: None, {}, (3, 12), 1)


def test_there_are_the_least_of_rounds_where_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, lambda _: False)
    _, timings = time_beside(machine.work(10, 1), {"a": machine.work(20, 1), "b": machine.work(1, 1)}, (3, 12), 0)
    assert {name: one.runs for name, one in timings.items()} == {"a": 3, "b": 3}


def test_work_that_waits_is_timed_in_full() -> None:
    assert time_interleaved({"sleep": lambda: time.sleep(0.002)}, rounds=4)["sleep"].runs == 4


def test_nothing_timed_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was timed"):
        time_interleaved({"a": lambda: None}, rounds=0)


def test_garbage_collection_is_as_before() -> None:
    def fails() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        time_interleaved({"a": fails}, rounds=1)
    assert gc.isenabled()
