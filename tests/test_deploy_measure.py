import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy import measure
from deploy.bundle import Bundle, open_bundle
from deploy.measure import Progress, Setting, TooSlow, main, measure_bundle
from deploy.runners import RuntimeMissing
from deploy.timing import FEWEST, Timing
from pipeline.architecture import Architecture, Cell
from pipeline.workload import Task, write_workload

TASK = Task(2, "rgb", (8, 10))
SETTING = Setting("onnxruntime", "fp32", TASK.lr_size, 1)
SHIPPED_ROUNDS = measure.ROUNDS
NETWORKS = [Architecture("edge", 2, "rgb", 8, (Cell(("conv3", "conv3"), (8,)),) * cells) for cells in range(5)]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small groups, so that there are some."""
    for name, value in (("GROUP", 2), ("ROUNDS", (3, 3))):
        monkeypatch.setattr(measure, name, value)


SlowWhere = Callable[[Callable[[str, int], bool]], list[str]]


@pytest.fixture
def slow_where(monkeypatch: pytest.MonkeyPatch) -> SlowWhere:
    """Makes models seem to take 1000 ms, and others 1, by file and how often it was opened; tells what is opened."""
    opened: list[str] = []
    open_setting = Setting.open

    def slow_where(is_slow: Callable[[str, int], bool]) -> list[str]:
        def open_and_say(setting: Setting, path: Path, stack: ExitStack) -> tuple[Callable[[], object], float]:
            opened.append(path.name)
            infer, _ = open_setting(setting, path, stack)
            return infer, 1000.0 if is_slow(path.name, opened.count(path.name)) else 1.0

        monkeypatch.setattr(Setting, "open", open_and_say)
        return opened

    return slow_where


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_workload(folder, TASK, NETWORKS, "onnxruntime", "fp32")
    return folder


@pytest.fixture
def bundle(folder: Path) -> Bundle:
    with open_bundle(folder) as (_, bundle):
        return bundle


def test_every_model_is_timed_in_two_groups_beside_the_calibration(folder: Path, bundle: Bundle) -> None:
    told: list[Progress] = []
    result = measure_bundle(folder, bundle, SETTING, 600, told.append)
    assert json.loads(json.dumps(result))["bundle"] == json.loads(json.dumps(bundle.to_dict()))
    groups: list[dict[str, Any]] = result["groups"]
    assert [[*group["models"]] for group in groups] == [
        ["models/001.onnx", "models/002.onnx"],
        ["models/003.onnx", "models/004.onnx"],
        ["models/005.onnx", "models/001.onnx"],
        ["models/002.onnx", "models/003.onnx"],
        ["models/004.onnx", "models/005.onnx"],
    ]
    for group in groups:
        (beside,) = group["calibrations"]
        for timing in (beside, *group["models"].values()):
            assert Timing(**timing).runs >= 3
    assert (result["runtime"], result["precision"], result["threads"], result["skipped"]) == (
        "onnxruntime",
        "fp32",
        1,
        {},
    )
    assert {"cpu", "cores"} <= result["device"].keys()
    assert "onnxruntime" in result["versions"]
    assert [(at.done, at.total) for at in told] == [(2, 10), (4, 10), (6, 10), (8, 10), (10, 10)]
    assert all(at.ms > 0 and 0 <= at.seconds_left <= 600 for at in told)


def test_a_group_has_calls_to_choose_from() -> None:
    least, enough = SHIPPED_ROUNDS
    assert FEWEST < least <= enough


def test_nothing_begins_after_the_time_limit(folder: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1000))
    clock = SimpleNamespace(monotonic=lambda: next(now), perf_counter=time.perf_counter)
    monkeypatch.setattr(measure, "time", clock)
    result = measure_bundle(folder, bundle, SETTING, 3)
    assert len(result["groups"]) == 1
    assert result["skipped"] == {model.file: "no time was left" for model in bundle.models[2:]}


def test_time_that_is_up_in_the_second_turn_leaves_no_model_out(
    folder: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[float] = []
    time_group = measure._time_group

    def time_and_count(*arguments: Any) -> Any:
        groups.append(arguments[4])
        return time_group(*arguments)

    clock = SimpleNamespace(monotonic=lambda: 100.0 * len(groups), perf_counter=time.perf_counter)
    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(measure, "_time_group", time_and_count)
    result = measure_bundle(folder, bundle, SETTING, 300)
    assert len(result["groups"]) == len(groups) == 3
    assert groups[0] == 60  # of 300 seconds, a share for each group of both turns
    assert result["skipped"] == {}


def test_no_group_has_a_model_twice(
    folder: Path, bundle: Bundle, slow_where: SlowWhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "GROUP", 4)
    slow_where(lambda name, _: name in ("001.onnx", "002.onnx", "003.onnx", "004.onnx"))
    models = tuple(replace(model, macs=100) for model in bundle.models)
    result = measure_bundle(folder, replace(bundle, models=models), SETTING, 600)
    assert [[*group["models"]] for group in result["groups"]] == [["models/005.onnx"], ["models/005.onnx"]]
    assert len(result["skipped"]) == 4


def test_model_that_is_slow_the_second_time_keeps_its_first_timing(
    folder: Path, bundle: Bundle, slow_where: SlowWhere
) -> None:
    slow_where(lambda name, times: name == "002.onnx" and times == 2)
    result = measure_bundle(folder, bundle, SETTING, 600)
    assert [[*group["models"]] for group in result["groups"]][3] == ["models/003.onnx"]
    assert result["skipped"] == {}


def test_slow_models_are_left_out_and_those_with_far_more_macs_unseen(
    folder: Path, bundle: Bundle, slow_where: SlowWhere
) -> None:
    opened = slow_where(lambda name, _: name == "002.onnx")
    models = [replace(model, macs=401 if model.file == "models/004.onnx" else 100) for model in bundle.models]
    result = measure_bundle(folder, replace(bundle, models=tuple(models)), SETTING, 600)
    assert result["skipped"] == {"models/002.onnx": "takes 1000 ms", "models/004.onnx": "has too many MACs"}
    assert "004.onnx" not in opened
    assert [[*group["models"]] for group in result["groups"]] == [
        ["models/001.onnx"],
        ["models/003.onnx", "models/005.onnx"],
        ["models/001.onnx", "models/003.onnx"],
        ["models/005.onnx"],
    ]


def test_device_that_is_too_slow_for_all_says_so(folder: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SLOWEST_MS", 0.0)
    with pytest.raises(TooSlow, match="no model takes less than 0 ms for a frame of 8x10"):
        measure_bundle(folder, bundle, SETTING, 600)


def test_time_limit_that_leaves_nothing_says_so(folder: Path, bundle: Bundle) -> None:
    with pytest.raises(TooSlow, match="no time was left for the first models"):
        measure_bundle(folder, bundle, SETTING, 0)


def test_runtime_that_does_not_compute_so_is_missed(folder: Path, bundle: Bundle) -> None:
    with pytest.raises(RuntimeMissing, match="onnxruntime does not run bf16 here"):
        measure_bundle(folder, bundle, replace(SETTING, precision="bf16"), 600)


def test_frame_that_does_not_suit_the_models_is_named(tmp_path: Path) -> None:
    write_workload(tmp_path, replace(TASK, lr_size=(8, 9), unshuffle=2), [], "onnxruntime", "fp32")
    with pytest.raises(SystemExit, match="error: a frame of 8x9 does not suit the model, which takes multiples of 2"):
        main([str(tmp_path), "-o", str(tmp_path / "result.json"), "--threads", "1"])
    assert not (tmp_path / "result.json").exists()


def test_command_writes_the_result(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder), "-o", str(tmp_path / "result.json"), "--threads", "1"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(result["groups"]) == 5
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("10/10 timings, the latest ")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_command_ends_with_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: .* is neither a folder nor a whole zip"):
        main([str(tmp_path / "none.zip")])
    with pytest.raises(SystemExit, match=r"error: .* computes in fp32; onnxruntime int8 needs"):
        main([str(folder), "--precision", "int8", "-o", str(tmp_path / "result.json")])
    with pytest.raises(SystemExit, match=r"error: cannot write .*: No such file or directory"):
        main([str(folder), "-o", str(tmp_path / "none" / "result.json")])
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("threads", ["0", "-1"])
def test_threads_are_positive(folder: Path, threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(folder), f"--threads={threads}"])
    assert f"argument --threads: invalid positive_int value: '{threads}'" in capsys.readouterr().err


def test_a_folder_in_place_of_the_result_is_noticed_before_anything_is_measured(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(SystemExit, match=r"error: cannot write .*taken: it is a folder"):
        main([str(folder), "-o", str(tmp_path / "taken")])
