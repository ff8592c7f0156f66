"""Latency budgets on this machine: a profile whose rows are a formula, and whose calibration is timed for real."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.device import device_facts, runtime_versions
from deploy.timing import Timing
from pipeline.architecture import Activation, Architecture
from pipeline.budget import Budget, cost_from_architecture
from pipeline.cli import main
from pipeline.draw import draw_architectures
from pipeline.errors import ConfigError, StaleArtifact, UnpricedOp
from pipeline.latency import latency_model_from_profile
from pipeline.manifest import hash_file
from pipeline.onnx_graph import GRAPH
from pipeline.profile import DeviceProfile, Row, save_profile
from pipeline.runs import facts_from_run, report_of
from pipeline.target import Target, target_of_budget
from pipeline.workload import Task, calibration_architecture

LR_SIZE = (24, 32)
TASK = Task(2, "rgb", LR_SIZE)
BUDGET = Budget(LR_SIZE, latency_ms=40.0, profile="here.toml")


def row(architecture: Architecture) -> Row:
    ms = 5.0 + cost_from_architecture(architecture, LR_SIZE).macs / 1e6
    return Row(architecture, Timing(ms, ms, ms, ms, 9))


def profile_of_here(activation: Activation = "relu", **changes: object) -> DeviceProfile:
    drawn = draw_architectures(60, 0, scale=2, color="rgb", lr_size=LR_SIZE, macs=(1, 1e8), activation=activation)
    profile = DeviceProfile(
        name="here",
        runtime="onnxruntime",
        precision="fp32",
        lr_size=LR_SIZE,
        threads=1,
        scale=2,
        color="rgb",
        device=device_facts("onnxruntime"),
        versions=runtime_versions("onnxruntime") | {"graph": str(GRAPH)},
        created="2026-01-01T00:00:00+00:00",
        calibration=row(calibration_architecture(replace(TASK, activation=activation))),
        rows=tuple(row(architecture) for architecture in drawn),
        activation=activation,
    )
    return replace(profile, **changes)  # type: ignore[arg-type]


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.chdir(tmp_path)
    return lambda *activation, **changes: save_profile(Path("here.toml"), profile_of_here(*activation, **changes))


def target(budget: Budget = BUDGET, told: list[str] | None = None, scale: int = 2) -> Target:
    lines: list[str] = [] if told is None else told
    found = target_of_budget(budget, scale, "rgb", "relu", 1, lines.append)
    assert found is not None
    return found


def test_a_budget_without_latency_has_no_device() -> None:
    assert target_of_budget(Budget(LR_SIZE, macs=1000), 2, "rgb", "relu", 1, print) is None


def test_networks_are_timed_on_this_machine_and_scaled_by_the_calibration(save: Callable[..., None]) -> None:
    save()
    told: list[str] = []
    found = target(told=told)
    assert found.drift is not None
    assert "times are scaled by it" in told[0]  # that the formula's times are not this machine's is noticed
    measure_ms = found.device.measure_ms
    assert measure_ms is not None
    calibration = found.profile.calibration
    assert measure_ms(calibration.architecture) == pytest.approx(calibration.timing.median_ms, rel=0.5)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"device": {"cpu": "another", "cores": "64"}}, r"cpu is .*, was another"),
        ({"versions": {"onnxruntime": "1.0"}}, r"onnxruntime is .*, was 1\.0"),
        ({"versions": runtime_versions("onnxruntime") | {"graph": "1"}}, rf"graph is {GRAPH}, was 1"),
        ({"runtime": "onnxruntime cuda"}, "CUDAExecutionProvider|GPU|driver|libcuda"),
    ],
)
def test_on_another_machine_latencies_are_predicted(
    save: Callable[..., None], changes: dict[str, object], difference: str, small_run: Path
) -> None:
    save(**changes)
    told: list[str] = []
    found = target(told=told)
    assert (found.drift, found.device.measure_ms) == (None, None)
    assert "latencies are predicted" in told[0]
    network = found.profile.rows[0].architecture
    judged = found.judge(network, small_run / "run", BUDGET)
    assert judged["measured_ms"] is None
    assert judged["latency_ms"] == judged["predicted_ms"] == found.model.predict_ms(network)
    assert re.search(difference, judged["not_measured"])


@pytest.mark.parametrize("ms", [39.0, 41.0])
def test_on_its_device_the_exported_model_is_judged_as_measured(
    save: Callable[..., None], monkeypatch: pytest.MonkeyPatch, small_run: Path, ms: float
) -> None:
    save()
    timed: list[bytes] = []

    def measure(_: DeviceProfile, model: bytes) -> Timing:
        timed.append(model)
        return Timing(ms, ms, ms, ms, 1)

    monkeypatch.setattr("pipeline.target.measure_model", measure)
    found = target()
    judged = found.judge(found.profile.rows[0].architecture, small_run / "run", BUDGET)
    assert timed == [(small_run / "run" / "export" / "model.onnx").read_bytes()]
    assert judged["latency_ms"] == judged["measured_ms"] == ms != judged["predicted_ms"]
    assert judged["not_measured"] is None


@pytest.mark.parametrize(("drift", "warned"), [(0.84, True), (0.86, False), (1.14, False), (1.16, True)])
def test_a_machine_that_drifted_is_noticed_beyond_15_percent(
    save: Callable[..., None], monkeypatch: pytest.MonkeyPatch, drift: float, warned: bool
) -> None:
    save()
    monkeypatch.setattr("pipeline.target.measure_drift", lambda _: drift)
    told: list[str] = []
    assert target(told=told).drift == drift
    assert [f"takes {drift:.2f} times what it took" in line for line in told] == [True] * warned


@pytest.mark.parametrize(
    ("budget", "scale", "error", "message"),
    [
        (replace(BUDGET, lr_size=(24, 40)), 2, ConfigError, "its LR size is 24x32, asked for is 24x40"),
        (BUDGET, 3, ConfigError, "its scale is 2, asked for is 3"),
        (replace(BUDGET, profile="gone"), 2, ConfigError, r"no device profile at profiles/gone\.toml"),
    ],
)
def test_a_profile_of_something_else_is_refused(
    save: Callable[..., None], budget: Budget, scale: int, error: type[Exception], message: str
) -> None:
    save()
    with pytest.raises(error, match=message):
        target(budget, scale=scale)


def test_a_tampered_profile_is_refused(save: Callable[..., None]) -> None:
    save()
    path = Path("here.toml")
    path.write_text(path.read_text().replace("threads = 1", "threads = 2"))
    with pytest.raises(StaleArtifact, match="was changed since it was measured"):
        target()


def test_a_network_that_the_profile_does_not_cover_has_no_price(save: Callable[..., None]) -> None:
    save()
    with pytest.raises(UnpricedOp):
        target().device.predict_ms(replace(calibration_architecture(TASK), width=6))


@pytest.fixture
def command(small_run: Path) -> Callable[..., int]:
    """The pipeline on two photographs, with a bound of so many ms on here.toml."""

    def run(name: str, latency_ms: float, *further: str) -> int:
        sets = [f"budget.latency_ms={latency_ms}", "budget.profile=here.toml", "budget.macs=none", *further]
        sets += [f"budget.lr_size=[{LR_SIZE[0]}, {LR_SIZE[1]}]", "verify.latency=false"]
        sets += [f"verify.{name}_mean_quality_drop_db=1" for name in ("fp16", "bf16")]  # the network hardly trained
        return main([name, "-c", str(small_run / "small.toml"), "-o", "run", *(f"--set={one}" for one in sets)])

    return run


def test_a_run_keeps_its_latency_budget(save: Callable[..., None], command: Callable[..., int]) -> None:
    save(device={"cpu": "another"})
    assert command("run", 40) == 0
    searched, verified = (report_of(Path("run"), stage) for stage in ("search", "verify"))
    assert 0.9 * 40 <= searched["cost"]["latency_ms"] <= 40
    assert verified["cost"]["latency_ms"] == verified["profile"]["predicted_ms"]
    assert verified["budget"] == {"lr_size": [*LR_SIZE], "macs": None, "params": None, "latency_ms": 40.0} | {
        "profile": "here.toml"
    }
    recorded = (Path("run") / "search" / "manifest.json").read_text()
    assert hash_file(Path("here.toml")) in recorded
    save("leaky_relu", device={"cpu": "another"})
    assert command("search", 40) == 0
    assert (Path("run") / "search" / "manifest.json").read_text() != recorded  # another profile is another search
    assert facts_from_run(Path("run"))["architecture"]["activation"] == "leaky_relu"


@pytest.mark.parametrize(("ratio", "warned"), [(0.8, True), (1.1, False), (1.3, True)])
def test_a_network_that_takes_another_time_than_predicted_is_noticed(
    save: Callable[..., None],
    command: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ratio: float,
    warned: bool,
) -> None:
    def timed(profile: DeviceProfile, network: Architecture) -> Timing:
        ms = ratio * latency_model_from_profile(profile).predict_ms(network)
        return Timing(ms, ms, ms, ms, 1)

    save()
    monkeypatch.setattr("pipeline.target.measure_architecture", timed)
    assert command("search", 40) == 0
    assert (f"takes {ratio:.2f} times what here.toml lets expect" in capsys.readouterr().err) == warned


def test_a_network_over_its_budget_ends_with_the_figures(
    save: Callable[..., None], command: Callable[..., int], small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(device={"cpu": "another"})
    assert command("run", 40) == 0
    lenient = [f"--set=verify.{name}_mean_quality_drop_db=1" for name in ("fp16", "bf16")]
    lenient.append("--set=verify.min_gain_over_bicubic_db=-20")
    photographs = f"--set=data.benchmarks={small_run}/photographs/held-out"
    budget = ["--set=budget.latency_ms=10", "--set=verify.latency=false"]
    assert main(["verify", "run", photographs, *lenient, *budget]) == 8
    assert "ms on here.toml, the budget is 10 ms" in capsys.readouterr().err


def test_a_budget_below_the_floor_of_the_device_is_infeasible(
    save: Callable[..., None], command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    save()
    assert command("search", 3) == 3
    assert "ms by the model of profile here.toml" in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_model_that_cannot_be_made_here_is_not_searched_for(
    save: Callable[..., None],
    command: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(runtime="openvino", precision="int8", device={"cpu": "another"})
    monkeypatch.setattr("pipeline.stages.quantisers", lambda: ["onnxruntime"])
    assert command("search", 40) == 4
    shown = capsys.readouterr().err
    assert "error: nncf is not installed, which makes the model of profile here (openvino int8)" in shown
    assert "hint: pip install 'sr-pipeline[openvino]'" in shown
    assert not Path("run").exists()


def test_a_network_that_was_found_too_slow_is_measured_again(
    save: Callable[..., None],
    command: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ms = 38.0

    def timed(*_: object) -> Timing:
        return Timing(ms, ms, ms, ms, 1)

    save()
    monkeypatch.setattr("pipeline.target.measure_architecture", timed)
    monkeypatch.setattr("pipeline.target.measure_model", timed)
    assert command("search", 40) == 0
    assert main(["export", "run", "--precision", "fp16"]) == 0
    ms = 45.0
    assert command("run", 40) == 8
    assert "verify again while nothing else runs" in capsys.readouterr().err
    ms = 39.0
    assert command("run", 40) == 0
    assert "the network was too slow, and is measured again" in capsys.readouterr().err
    assert command("run", 40) == 0
    assert "verify: run is current" in capsys.readouterr().err
