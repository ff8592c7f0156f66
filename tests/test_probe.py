import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.probe import main, measure_model, measure_model_apart
from deploy.runners import DeployError, ModelUnreadable
from pipeline.workload import Task, calibration_architecture, model_from_architecture

SIZE = (12, 16)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_from_architecture(calibration_architecture(Task(2, "rgb", SIZE)), "onnxruntime", "fp32"))
    return path


@pytest.mark.parametrize(("runtime", "precision"), [("onnxruntime", "fp32"), ("openvino", "fp32")])
@pytest.mark.parametrize("measure", [measure_model, measure_model_apart])
def test_model_is_measured(
    model: Path, measure: Callable[..., dict[str, object]], runtime: str, precision: str
) -> None:
    pytest.importorskip(runtime, reason=f"{runtime} is not installed")
    found = measure(model, runtime, precision, SIZE, threads=1, runs=3)
    assert json.loads(json.dumps(found)) == found
    assert (found["threads"], found["lr_size"]) == (1, [12, 16])
    assert found["runs"] in (2, 3)  # one may have lost the processor
    assert found["model_bytes"] == model.stat().st_size
    for name in ("load_ms", "first_ms", "p10_ms", "median_ms", "p90_ms", "p99_ms", "base_memory_mib"):
        value = found[name]
        assert isinstance(value, float)
        assert value > 0
    assert found["peak_memory_mib"] > found["base_memory_mib"]  # type: ignore[operator]
    layers: list[dict[str, object]] = found["layers"]  # type: ignore[assignment]
    kinds = [str(layer["op"]) for layer in layers]
    assert sum(kind.startswith("Conv") for kind in kinds) >= 6
    assert {*layers[0]} == {"name", "op", "ms"}


def test_process_of_its_own_holds_less(model: Path) -> None:
    """This one holds torch."""
    apart = measure_model_apart(model, "onnxruntime", "fp32", SIZE, threads=1, runs=1)
    assert apart["base_memory_mib"] < measure_model(model, "onnxruntime", "fp32", SIZE, 1, runs=1)["base_memory_mib"]


def test_process_does_not_mistake_the_folder_it_is_in(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model.parent / "deploy").mkdir()
    (model.parent / "deploy" / "__init__.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(model.parent)
    assert measure_model_apart(model, "onnxruntime", "fp32", SIZE, runs=1)["runs"] == 1


def test_what_is_wrong_is_told_across_processes(model: Path) -> None:
    with pytest.raises(ModelUnreadable, match="no model at"):
        measure_model(model.with_name("none.onnx"), "onnxruntime", "fp32", SIZE)
    with pytest.raises(DeployError, match=r"^no model at"):
        measure_model_apart(model.with_name("none.onnx"), "onnxruntime", "fp32", SIZE)
    with pytest.raises(DeployError, match="computes in fp32; onnxruntime int8 needs"):
        measure_model_apart(model, "onnxruntime", "int8", SIZE)


def test_command_prints_one_object(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(model), "--lr-size", "8x8", "--runs", "2"])
    assert json.loads(capsys.readouterr().out)["lr_size"] == [8, 8]
    with pytest.raises(SystemExit, match="error: no model at"):
        main([str(model.with_name("none.onnx"))])


@pytest.mark.parametrize("size", ["11x16", "12x15"])
def test_frame_that_does_not_suit_the_unshuffle_is_named(tmp_path: Path, size: str) -> None:
    path = tmp_path / "model.onnx"
    task = Task(2, "rgb", SIZE, unshuffle=2)
    path.write_bytes(model_from_architecture(calibration_architecture(task), "onnxruntime", "fp32"))
    with pytest.raises(SystemExit) as ended:
        main([str(path), f"--lr-size={size}", "--runs=1"])
    assert ended.value.code == f"error: a frame of {size} does not suit the model, which takes multiples of 2"
    height, width = map(int, size.split("x"))
    with pytest.raises(DeployError, match=f"^a frame of {size} does not suit"):
        measure_model_apart(path, "onnxruntime", "fp32", (height, width))


@pytest.mark.parametrize(
    ("option", "kind", "value"),
    [
        *(("--threads", "positive_int", value) for value in ("0", "-1", "two", "1.5")),
        *(("--runs", "positive_int", value) for value in ("0", "-1", "many")),
        *(("--lr-size", "height_x_width", value) for value in ("8", "8x", "0x8", "-8x8", "8x8x8", "axb", "")),
    ],
)
def test_argument_that_is_no_number_is_named(
    model: Path, capsys: pytest.CaptureFixture[str], option: str, kind: str, value: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(model), f"{option}={value}"])
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"python -m deploy.probe: error: argument {option}: invalid {kind} value: '{value}'"


def test_no_torch_is_imported(model: Path) -> None:
    code = f"import sys; from deploy.probe import main; main([{str(model)!r}, '--lr-size=8x8', '--runs=1']); "
    code += "print(*(name for name in ('torch', 'pipeline', 'onnx') if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == ""
