"""Times pieces of work against each other, in turns."""

import gc
import time
from dataclasses import asdict

import pytest

from deploy.timing import time_interleaved, timing_from_seconds, undisturbed


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
    ("seconds", "processor", "kept"),
    [
        pytest.param([0.02] * 4, [0.04] * 4, [0.02] * 4, id="steady, two threads"),
        pytest.param([0.02, 0.02, 0.03, 0.02], [0.04, 0.04, 0.05, 0.04], [0.02, 0.02, 0.02], id="one lost a fifth"),
        pytest.param([0.02, 0.02, 0.03, 0.02], [0.04, 0.04, 0.06, 0.04], [0.02, 0.02, 0.03, 0.02], id="slow, but busy"),
        pytest.param([0.02, 0.021, 0.03, 0.04], [0.04] * 4, [0.02, 0.021], id="most lost something: half is kept"),
        pytest.param([0.02, 0.02, 0.03, 0.02], [0.001] * 4, [0.02, 0.02, 0.03, 0.02], id="waits for a GPU"),
        pytest.param([2e-4, 2e-4, 4e-4], [2e-4] * 3, [2e-4, 2e-4, 4e-4], id="too short to tell"),
        pytest.param([], [], [], id="nothing"),
    ],
)
def test_calls_that_lost_the_processor_are_left_out(
    seconds: list[float], processor: list[float], kept: list[float]
) -> None:
    assert undisturbed(seconds, processor) == kept


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
