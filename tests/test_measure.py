from dataclasses import replace
from typing import Any

import pytest

from deploy.measure import Progress
from deploy.runners import RuntimeMissing
from deploy.timing import Timing
from pipeline import measure
from pipeline.architecture import Architecture, Cell
from pipeline.errors import BackendMissing, ConfigError
from pipeline.measure import (
    drawn_architectures,
    is_this_device,
    measure_architecture,
    measure_device,
    measure_drift,
    measure_model,
)
from pipeline.profile import DeviceProfile, Row
from pipeline.workload import Task, calibration_architecture

TASK = Task(2, "rgb", (12, 16))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "NETWORKS", 4)


@pytest.fixture
def profile() -> DeviceProfile:
    return measure_device("here", TASK, "onnxruntime", "fp32", 1, 60)


def slower(profile: DeviceProfile, factor: float) -> DeviceProfile:
    """The profile of a machine that is so many times as slow."""
    timing = profile.calibration.timing
    quantiles = {name: factor * getattr(timing, name) for name in ("median_ms", "p10_ms", "p90_ms", "p99_ms")}
    return replace(profile, calibration=Row(profile.calibration.architecture, replace(timing, **quantiles)))


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "fp32"), ("openvino", "int8")],
)
def test_device_is_measured(runtime: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(runtime, reason=f"{runtime} is not installed")
    monkeypatch.setattr(measure, "NETWORKS", 2)
    written: list[tuple[int, int]] = []
    measured: list[Progress] = []
    profile = measure_device("here", TASK, runtime, precision, 1, 60, lambda *at: written.append(at), measured.append)
    assert (profile.name, profile.candidate, profile.threads) == ("here", f"{runtime} {precision}", 1)
    assert (profile.lr_size, profile.scale, profile.color) == ((12, 16), 2, "rgb")
    assert profile.calibration.architecture == calibration_architecture(TASK)
    assert len({row.architecture.id for row in profile.rows}) == len(profile.rows) == 2
    assert written[-1] == (3, 3)
    assert (measured[-1].done, measured[-1].total) == (4, 4)


def test_profile_is_of_this_device(profile: DeviceProfile) -> None:
    assert is_this_device(profile) == []
    other = replace(
        profile,
        device={**profile.device, "cpu": "Small", "os": "another"},
        versions=profile.versions | {"onnxruntime": "1.0"},
    )
    cpu, version = is_this_device(other)
    assert cpu == f"cpu is {profile.device['cpu']}, was Small"
    assert version == f"onnxruntime is {profile.versions['onnxruntime']}, was 1.0"
    with pytest.raises(BackendMissing):
        is_this_device(replace(profile, runtime="onnxruntime cuda"))


def test_drift_and_times_are_ratios_to_the_calibration(profile: DeviceProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that says the same each time, whatever the machine does."""
    asked: list[float] = []

    def timed(*given: Any) -> tuple[Timing, dict[str, Timing]]:
        asked.append(given[-1])
        beside, last = (Timing(ms, ms, ms, ms, 1) for ms in (4.0, 30.0))
        return beside, {"last": last}

    monkeypatch.setattr(measure, "time_beside", timed)
    then = slower(profile, 2 / profile.calibration.timing.median_ms)
    assert measure_drift(then) == pytest.approx(2.0)
    network = Architecture("edge", 2, "rgb", 8, (Cell(("conv3", "conv3"), (8,)),))
    assert measure_architecture(then, network).median_ms == pytest.approx(15.0)
    # What the calibration takes on the quiet machine; and where that did not come back, what it takes now.
    assert asked == pytest.approx([2.0, 2.0] + [4.0] * (measure.REPEATS - 1))


@pytest.mark.parametrize(
    ("times", "counts"), [((9.0, 10.0, 11.0), 10.0), ((11.4, 9.0, 10.0), 10.0), ((10.0, 24.0, 9.0), 24.0)]
)
def test_of_two_times_for_one_network_the_slower_counts_for_a_finalist(
    profile: DeviceProfile, monkeypatch: pytest.MonkeyPatch, times: tuple[float, ...], counts: float
) -> None:
    left = [*times, *times]

    def timed(*_: object) -> tuple[float, Timing]:
        ms = left.pop(0)
        return profile.calibration.timing.median_ms, Timing(ms, ms, ms, ms, 1)

    monkeypatch.setattr(measure, "_calibration_and", timed)
    network = Architecture("edge", 2, "rgb", 8, (Cell(("conv3", "conv3"), (8,)),))
    assert measure_architecture(profile, network).median_ms == counts
    assert measure_model(profile, b"exported").median_ms == sorted(times)[1]  # a verdict is not for what may be


def test_drift_is_measured(profile: DeviceProfile) -> None:
    assert measure_drift(profile) > 20 * measure_drift(slower(profile, 1000))


@pytest.mark.parametrize(("runtime", "precision"), [("onnxruntime", "bf16"), ("onnxruntime cuda", "fp32")])
def test_what_cannot_run_here_is_missed(runtime: str, precision: str) -> None:
    with pytest.raises(BackendMissing) as caught:
        measure_device("here", TASK, runtime, precision, 1, 60)
    assert isinstance(caught.value.__cause__, RuntimeMissing)


def test_time_limit_that_leaves_nothing_says_so() -> None:
    with pytest.raises(ConfigError, match="no time was left") as caught:
        measure_device("here", TASK, "onnxruntime", "fp32", 1, 0.001)
    assert "--minutes" in caught.value.hint


def test_networks_of_a_profile_are_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "NETWORKS", 30)
    networks = drawn_architectures(TASK, 1e7)
    assert networks == drawn_architectures(TASK, 1e7)
    assert len({network.width for network in networks}) == 10
    luma = drawn_architectures(Task(3, "y", (12, 16), "prelu", 2), 1e7)
    assert {(one.scale, one.color, one.activation, one.unshuffle) for one in luma} == {(3, "y", "prelu", 2)}
