import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from deploy.runners import (
    ModelMetadata,
    ModelUnreadable,
    OnnxRuntimeRunner,
    RuntimeMissing,
    metadata_from_properties,
)
from pipeline.architecture import Architecture
from pipeline.backends import open_model
from pipeline.errors import BackendMissing, StaleArtifact
from pipeline.fold import plain_from_network
from pipeline.model_facts import metadata_from_architecture
from pipeline.network import Network
from pipeline.onnx_graph import onnx_from_network
from pipeline.torch_runner import TorchRunner

EDGE = Architecture("edge", 3, "y", 8, (), unshuffle=2, shuffle=6)
METADATA = ModelMetadata(scale=3, color="y", multiple=2, margin=4, architecture_id=EDGE.id, precision="fp32")


@pytest.fixture
def network(random_network: Callable[..., Network]) -> Network:
    return random_network(EDGE)


@pytest.fixture
def model(network: Network, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    properties = METADATA.to_properties() | {"another": "pair"}
    path.write_bytes(onnx_from_network(plain_from_network(network), "fp32", properties).SerializeToString())
    return path


def test_runners_share_one_shape(network: Network, model: Path) -> None:
    frame = np.random.default_rng(0).random((2, 1, 8, 6), np.float32)
    with TorchRunner(network) as torch_runner, OnnxRuntimeRunner(model, threads=1) as onnx_runner:
        assert torch_runner.metadata == onnx_runner.metadata == METADATA
        expected, found = torch_runner.infer(frame), onnx_runner.infer(frame)
    assert expected.shape == found.shape == (2, 1, 24, 18)
    assert expected.dtype == found.dtype == np.float32
    np.testing.assert_allclose(expected, found, atol=1e-5)


def test_torch_runner_leaves_its_network_alone(network: Network) -> None:
    network.double().train()
    with TorchRunner(network) as runner:
        runner.infer(np.zeros((1, 1, 4, 4), np.float32))
    assert network.training
    assert {str(parameter.dtype) for parameter in network.parameters()} == {"torch.float64"}


def test_onnx_runner_runs_on_the_cpu_and_nowhere_else(model: Path) -> None:
    with OnnxRuntimeRunner(model) as runner:
        assert runner._session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize("color", ["rgb", "y"])
def test_metadata_survives_the_file(color: str) -> None:
    metadata = replace(METADATA, color=color, precision="fp16")  # type: ignore[arg-type]
    assert metadata_from_properties(metadata.to_properties(), Path("m.onnx")) == metadata
    assert metadata.to_properties()["value_range"] == "0..1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "2"}, "m.onnx has schema 2, this version reads schema 1"),
        ({"value_range": "0..255"}, "m.onnx has values in 0..255, this version feeds 0..1"),
        ({"scale": "two"}, "the metadata of m.onnx is damaged"),
        ({"color": "cmyk"}, "the metadata of m.onnx is damaged: color is 'cmyk'"),
        ({"margin": None}, "the metadata of m.onnx is damaged: 'margin'"),
        ({"schema": None}, "m.onnx was not exported by sr-pipeline"),
    ],
)
def test_foreign_metadata_is_refused(change: dict[str, str | None], message: str) -> None:
    properties = {key: value for key, value in (METADATA.to_properties() | change).items() if value is not None}
    with pytest.raises(ModelUnreadable, match=message):
        metadata_from_properties(properties, Path("m.onnx"))


def damage(model: Path, how: str) -> None:
    match how:
        case "missing":
            model.unlink()
        case "half":
            model.write_bytes(model.read_bytes()[:100])
        case "stripped":
            proto = onnx.load(model)
            helper.set_model_props(proto, {})
            onnx.save(proto, model)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "no model at"),
        ("half", "not a model that onnxruntime can load"),
        ("stripped", "was not exported by"),
    ],
)
def test_damaged_model_is_refused(model: Path, how: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    damage(model, how)
    with pytest.raises(ModelUnreadable, match=message) as caught:
        OnnxRuntimeRunner(model)
    assert "\n" not in str(caught.value)
    with pytest.raises(StaleArtifact, match=message) as stale:
        open_model(model)
    assert "sr-pipeline export" in stale.value.hint
    assert capfd.readouterr() == ("", "")


def test_missing_runtime_is_named_and_not_replaced(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeMissing, match="onnxruntime is not installed"):
        OnnxRuntimeRunner(model)
    with pytest.raises(BackendMissing, match="onnxruntime is not installed") as caught:
        open_model(model)
    assert caught.value.hint == "pip install onnxruntime"


def test_provider_without_its_libraries_is_named_and_not_replaced(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As onnxruntime-gpu raises it on a machine with a GPU and without TensorRT."""

    def session(*_: object, providers: list[str], enable_fallback: int) -> None:
        assert (providers, enable_fallback) == (["TensorrtExecutionProvider"], 0)
        where = "/src/state.cc:729 void onnxruntime::Register(Options&, const ProviderOptions&)"
        raise RuntimeError(f"{where} Please install TensorRT libraries\nas its documentation says")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", lambda _: None)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: sys.stdout.write("nothing found"), raising=False)
    with pytest.raises(BackendMissing, match=r"ExecutionProvider here: Please install TensorRT libraries$") as no:
        open_model(model, backend="onnxruntime tensorrt")
    assert "onnxruntime-gpu[cuda,cudnn]" in no.value.hint
    assert capfd.readouterr() == ("", "")


def test_deploy_needs_numpy_and_a_runtime_only(model: Path) -> None:
    program = (
        "import sys; import deploy.upscale; from deploy.runners import OnnxRuntimeRunner; from pathlib import Path;"
        f"OnnxRuntimeRunner(Path({str(model)!r}));"
        "print([name for name in ('torch', 'pipeline', 'onnx', 'PIL') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_margin_is_how_far_an_output_looks(architecture: Architecture, random_network: Callable[..., Network]) -> None:
    """A changed LR pixel changes SR pixels up to the margin away, and none beyond; ups are rounded up."""
    metadata = metadata_from_architecture(architecture, "fp32")
    network, scale = random_network(architecture), architecture.scale
    side = 2 * metadata.margin + 6
    frame = np.zeros((1, architecture.channels, side, side), np.float32)
    frame[:, :, side // 2, side // 2] = 1
    with TorchRunner(network) as runner:
        difference = np.abs(runner.infer(frame) - runner.infer(np.zeros_like(frame))).max(axis=(0, 1))
    changed = np.flatnonzero(difference.max(axis=1)) // scale - side // 2
    unit = metadata.multiple
    assert -metadata.margin - unit < changed.min() <= changed.max() < metadata.margin + unit
    if architecture.shuffle > 1:
        assert changed.max() - changed.min() >= 2 * metadata.margin
