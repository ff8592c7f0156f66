import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.timing import Timing
from pipeline import result as module
from pipeline.architecture import Architecture, Cell
from pipeline.errors import ConfigError, PipelineError, StaleArtifact
from pipeline.result import profile_from_result, read_result
from pipeline.workload import Task, write_workload

TASK = Task(2, "rgb", (8, 10))
NETWORKS = [Architecture("edge", 2, "rgb", 8, (Cell(("conv3", "conv3"), (8,)),) * cells) for cells in range(3)]


def timing(ms: float) -> dict[str, float]:
    return {"median_ms": ms, "p10_ms": 0.9 * ms, "p90_ms": 1.1 * ms, "p99_ms": 1.2 * ms, "runs": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_workload(folder, TASK, NETWORKS, "onnxruntime", "fp32")
    return folder


@pytest.fixture
def result(folder: Path) -> dict[str, Any]:
    """Of a device that was slower by a half when the last network was timed."""
    return {
        "schema": 1,
        "bundle": json.loads((folder / "bundle.json").read_text()),
        "runtime": "openvino",
        "precision": "bf16",
        "threads": 4,
        "device": {"cpu": "Small", "cores": "4"},
        "versions": {"openvino": "2026.1"},
        "created": "2026-01-01T00:00:00+00:00",
        "groups": [
            {"calibrations": [timing(9), timing(11)], "models": {"models/001.onnx": timing(5)}},
            {"calibrations": [timing(10)], "models": {"models/002.onnx": timing(20)}},
            {"calibrations": [timing(15)], "models": {"models/003.onnx": timing(45)}},
        ],
        "skipped": {},
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    def write(result: Any) -> Path:
        path = tmp_path / "result.json"
        path.write_text(result if isinstance(result, str) else json.dumps(result))
        return path

    return write


def test_times_are_scaled_by_the_calibration_of_their_group(result: dict[str, Any]) -> None:
    profile = profile_from_result("small", result)
    assert [row.architecture for row in profile.rows] == NETWORKS
    assert [row.timing.median_ms for row in profile.rows] == [5, 20, 30]
    assert profile.rows[2].timing == Timing(30, 27, 33, 36, 10)
    assert profile.calibration.timing == Timing(10, 9, 11, 12, 40)
    assert (profile.name, profile.candidate, profile.threads, profile.lr_size) == ("small", "openvino bf16", 4, (8, 10))
    assert profile.device == {"cpu": "Small", "cores": "4"}


def test_quicker_group_of_a_model_counts(result: dict[str, Any]) -> None:
    result["groups"][2]["calibrations"] = [timing(10)]
    again = {"models/001.onnx": timing(6), "models/002.onnx": timing(20), "models/003.onnx": timing(45)}
    result["groups"].append({"calibrations": [timing(10.8)], "models": again})
    profile = profile_from_result("small", result)
    assert [row.architecture for row in profile.rows] == NETWORKS
    assert profile.calibration.timing.median_ms == 10
    assert [row.timing.median_ms for row in profile.rows] == pytest.approx([5, 20 / 1.08, 45 / 1.08], rel=1e-4)


def test_time_beside_a_slow_calibration_counts_where_there_is_no_other(result: dict[str, Any]) -> None:
    """The neighbour slowed the calibration more than the model: scaled, 002 would look as if it took 14 ms."""
    result["groups"].append({"calibrations": [timing(15)], "models": {"models/002.onnx": timing(21)}})
    profile = profile_from_result("small", result)
    usual = profile.calibration.timing.median_ms
    assert [row.timing.median_ms for row in profile.rows] == [usual / 2, 2 * usual, 3 * usual]


def test_result_is_read_and_held_to_its_bundle(
    result: dict[str, Any], write: Callable[[Any], Path], folder: Path
) -> None:
    assert read_result(write(result)) == result
    assert read_result(write(result), folder) == result


def test_result_of_another_bundle_is_refused(
    result: dict[str, Any], write: Callable[[Any], Path], tmp_path: Path
) -> None:
    write_workload(tmp_path, TASK, NETWORKS[:2], "onnxruntime", "fp32")
    with pytest.raises(StaleArtifact, match="is the result of another bundle than") as caught:
        read_result(write(result), tmp_path)
    assert "sr-pipeline profile --bundle" in caught.value.hint


def test_result_of_models_that_are_exported_differently_now_is_refused(
    result: dict[str, Any], write: Callable[[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "model_from_architecture", lambda *_: b"another graph")
    with pytest.raises(StaleArtifact, match="of models that this version of sr-pipeline exports differently"):
        read_result(write(result))


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda found: found.update(schema=9), "has schema 9, this version reads schema 1", id="schema"),
        pytest.param(lambda found: found.pop("schema"), "is no result of `python -m deploy.measure`", id="no schema"),
        pytest.param(lambda found: found.pop("bundle"), "is no result of `python -m deploy.measure`", id="no bundle"),
        pytest.param(lambda found: found["bundle"].pop("models"), "bundle.json is damaged", id="no models"),
    ],
)
def test_file_that_is_no_result_is_refused(
    result: dict[str, Any], write: Callable[[Any], Path], change: Change, message: str
) -> None:
    change(result)
    with pytest.raises(StaleArtifact, match=message):
        read_result(write(result))


@pytest.mark.parametrize("text", ["", "[]", "{", "7"])
def test_text_that_is_no_result_is_refused(write: Callable[[Any], Path], text: str) -> None:
    with pytest.raises(StaleArtifact, match=r"is no result of `python -m deploy\.measure`"):
        read_result(write(text))


def test_file_that_is_absent_is_missed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_result(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda found: found["groups"].clear(), id="no groups"),
        pytest.param(lambda found: found["groups"][0].pop("calibrations"), id="no calibration"),
        pytest.param(lambda found: found["groups"][0]["calibrations"].clear(), id="empty calibration"),
        pytest.param(lambda found: found["groups"][0]["calibrations"].__setitem__(0, timing(-10)), id="negative"),
        pytest.param(lambda found: found["groups"][0]["models"].update({"models/9.onnx": timing(1)}), id="unlisted"),
        pytest.param(lambda found: found["groups"][0]["models"]["models/001.onnx"].update(median_ms="x"), id="text"),
        pytest.param(lambda found: found["groups"][0]["models"]["models/001.onnx"].update(p99_ms=1), id="quantiles"),
        pytest.param(lambda found: found.pop("threads"), id="no threads"),
        pytest.param(lambda found: found.update(device=[]), id="device"),
        pytest.param(lambda found: found["bundle"]["models"][0]["architecture"].update(width="x"), id="architecture"),
        pytest.param(lambda found: found["bundle"]["calibration"]["architecture"].update(width=8), id="calibration"),
    ],
)
def test_damaged_result_makes_no_profile(result: dict[str, Any], change: Change) -> None:
    damaged = copy.deepcopy(result)
    change(damaged)
    with pytest.raises(StaleArtifact) as caught:
        profile_from_result("small", damaged)
    assert isinstance(caught.value, PipelineError)
    assert caught.value.hint
