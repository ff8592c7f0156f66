import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploy.bundle import open_bundle
from deploy.openers import open_candidate
from deploy.runners import RuntimeMissing
from pipeline import workload
from pipeline.architecture import Architecture, Cell, architecture_from_dict
from pipeline.budget import cost_from_architecture
from pipeline.errors import BackendMissing
from pipeline.workload import (
    Task,
    calibration_architecture,
    model_from_architecture,
    task_from_architecture,
    write_workload,
)

TASK = Task(2, "rgb", (12, 16))
DEEP = Architecture(
    "edge", 2, "rgb", 48, tuple(Cell(("conv5", "conv3"), (64,), residual=at % 2 == 0) for at in range(10))
)
FRAME = np.random.default_rng(1).random((1, 3, 12, 16), np.float32)


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [
        ("onnxruntime", "fp32"),
        ("onnxruntime", "fp16"),
        ("onnxruntime", "int8"),
        ("openvino", "bf16"),
        ("openvino", "int8"),
    ],
)
def test_model_runs_as_the_candidate(runtime: str, precision: str, tmp_path: Path) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
    content = model_from_architecture(calibration_architecture(TASK), runtime, precision)
    (tmp_path / "model.onnx").write_bytes(content)
    try:
        runner = open_candidate(tmp_path / "model.onnx", runtime, precision)
    except RuntimeMissing as error:  # not every CPU computes in bf16
        pytest.skip(str(error))
    with runner:
        assert np.isfinite(runner.infer(FRAME)).all()


def test_features_of_a_deep_network_keep_their_size(tmp_path: Path) -> None:
    """Values that vanish or overflow are computed at another speed than those of a trained network."""
    model = onnx.load_from_string(model_from_architecture(DEEP, "onnxruntime", "fp32"))
    convs = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in convs)
    onnx.save(model, tmp_path / "model.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for values in session.run(None, {"lr": FRAME}):
        assert 1e-3 < np.abs(values).mean() < 1e3


def test_models_are_the_same_each_time_and_pack_well() -> None:
    contents = [model_from_architecture(DEEP, "onnxruntime", "fp32") for _ in range(2)]
    assert contents[0] == contents[1]
    assert len(contents[0]) > 4 * cost_from_architecture(DEEP, (1, 1)).params
    assert len(zlib.compress(contents[0], 9)) < len(contents[0]) / 20


def test_task_is_that_of_the_calibration() -> None:
    for task in (TASK, Task(3, "y", (24, 32), "prelu", 2)):
        assert task_from_architecture(calibration_architecture(task), task.lr_size) == task


def test_folder_holds_what_its_list_says(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    bundle = write_workload(tmp_path, TASK, [DEEP], "onnxruntime", "fp32", lambda *at: told.append(at))
    with open_bundle(tmp_path) as (_, read):
        assert read == bundle
    assert told == [(1, 2), (2, 2)]
    (model,) = bundle.models
    assert architecture_from_dict(model.architecture) == DEEP
    assert model.macs == cost_from_architecture(DEEP, TASK.lr_size).macs
    assert model.sha256 == hashlib.sha256((tmp_path / model.file).read_bytes()).hexdigest()
    assert json.loads((tmp_path / "bundle.json").read_text())["lr_size"] == [12, 16]


def test_pair_that_nothing_runs_is_refused() -> None:
    with pytest.raises(BackendMissing, match="onnxruntime does not run bf16 here"):
        model_from_architecture(DEEP, "onnxruntime", "bf16")


def test_quantiser_that_is_absent_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "quantisers", lambda: ["onnxruntime"])
    with pytest.raises(BackendMissing, match="nncf is not installed") as caught:
        model_from_architecture(DEEP, "openvino", "int8")
    assert caught.value.hint == "pip install 'sr-pipeline[openvino]'"
