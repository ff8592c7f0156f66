import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploy.openvino_runner import Hint, OpenVinoRunner
from deploy.runners import DeployError, ModelUnreadable, OnnxRuntimeRunner, RuntimeMissing
from pipeline.architecture import Architecture, Cell
from pipeline.export import properties
from pipeline.fold import plain_from_network
from pipeline.network import Network
from pipeline.onnx_graph import Precision, onnx_from_network

openvino = pytest.importorskip("openvino", reason="openvino is not installed")

LUMA = Architecture("edge", 3, "y", 8, (), unshuffle=2, shuffle=6)


@pytest.fixture
def model(random_network: Callable[..., Network], tmp_path: Path) -> Callable[..., Path]:
    def write(precision: Precision = "fp32", architecture: Architecture = LUMA) -> Path:
        plain = plain_from_network(random_network(architecture))
        path = tmp_path / f"model.{precision}.onnx"
        path.write_bytes(onnx_from_network(plain, precision, properties(plain, precision)).SerializeToString())
        return path

    return write


def can(capability: str) -> bool:
    return capability in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_it_computes_what_onnxruntime_computes(model: Callable[..., Path], architecture: Architecture) -> None:
    path = model(architecture=architecture)
    generator = np.random.default_rng(0)
    with OpenVinoRunner(path, threads=1) as runner, OnnxRuntimeRunner(path, threads=1) as expected:
        assert runner.metadata == expected.metadata
        for shape in [(2, 8, 6), (1, 6, 12), (2, 8, 6)]:
            frame = generator.random((shape[0], architecture.channels, *shape[1:]), np.float32)
            found = runner.infer(frame)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected.infer(frame), atol=1e-5)


@pytest.mark.parametrize("skip", ["nearest", "conv3"])
def test_image_goes_through_float_in_bf16(model: Callable[..., Path], skip: str) -> None:
    if not can("BF16"):
        pytest.skip("this CPU does not compute in bf16")
    path = model(architecture=Architecture("edge", 2, "rgb", 8, (Cell(("conv3",), ()),), skip=skip))
    silent = onnx.load(path)
    for weight in silent.graph.initializer:
        if weight.name.startswith("tail_"):
            weight.CopyFrom(onnx.numpy_helper.from_array(0 * onnx.numpy_helper.to_array(weight), weight.name))
    path.write_bytes(silent.SerializeToString())
    frame = np.random.default_rng(0).random((1, 3, 9, 7), np.float32)
    with OpenVinoRunner(path, "bf16", threads=1) as runner, OnnxRuntimeRunner(path, threads=1) as expected:
        np.testing.assert_allclose(runner.infer(frame), expected.infer(frame), atol=1e-6)


def test_every_architecture_runs_in_bf16(model: Callable[..., Path], architecture: Architecture) -> None:
    if not can("BF16"):
        pytest.skip("this CPU does not compute in bf16")
    path = model(architecture=architecture)
    frame = np.random.default_rng(0).random((1, architecture.channels, 8, 6), np.float32)
    with OpenVinoRunner(path, "bf16", threads=1) as runner, OnnxRuntimeRunner(path, threads=1) as expected:
        reference = expected.infer(frame)
        error = np.abs(runner.infer(frame) - reference).max()
    assert 0 < error < 0.02 * np.abs(reference).max()


def test_an_output_outlives_the_next(model: Callable[..., Path]) -> None:
    frame = np.random.default_rng(0).random((1, 1, 8, 6), np.float32)
    with OpenVinoRunner(model(), threads=1) as runner:
        first = runner.infer(frame)
        kept = first.copy()
        runner.infer(1 - frame)
    np.testing.assert_array_equal(first, kept)


def test_nothing_is_reported_to_its_maker(model: Callable[..., Path], tmp_path: Path) -> None:
    """OpenVINO's package for that writes an identity into the home folder as soon as it is imported."""
    home = tmp_path / "home"
    home.mkdir()
    script = (
        "import sys; from pathlib import Path; from deploy.openvino_runner import OpenVinoRunner; "
        f"OpenVinoRunner(Path({str(model())!r})); assert 'openvino_telemetry' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "HOME": str(home)})
    assert [*home.iterdir()] == []


@pytest.mark.parametrize(
    ("hint", "stored", "computed"),
    [("f32", "fp32", "fp32"), ("bf16", "fp32", "bf16"), ("f16", "fp32", "fp16"), ("f32", "fp16", "fp16")],
)
def test_precision_is_set_and_told(model: Callable[..., Path], hint: Hint, stored: Precision, computed: str) -> None:
    if not can({"f32": "FP32", "bf16": "BF16", "f16": "FP16"}[hint]):
        pytest.skip(f"this CPU does not compute in {hint}")
    frame = np.random.default_rng(0).random((1, 1, 8, 6), np.float32)
    with OnnxRuntimeRunner(model(), threads=1) as runner:
        expected = runner.infer(frame)
    with OpenVinoRunner(model(stored), hint, threads=1) as runner:
        assert runner.metadata.precision == computed
        error = np.abs(runner.infer(frame) - expected).max()
    least, most = {"fp32": (0, 1e-5), "bf16": (1e-4, 0.1), "fp16": (1e-6, 1e-2)}[computed]
    assert least <= error <= most


def test_precision_that_the_cpu_lacks_is_not_replaced(
    model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class OldCpu:
        def get_property(self, _: str, name: str) -> object:
            return ["FP32"] if name == "OPTIMIZATION_CAPABILITIES" else "Old CPU"

    path = model()
    monkeypatch.setattr(openvino, "Core", OldCpu)
    with pytest.raises(RuntimeMissing, match=r"openvino cannot compute in bf16 on this CPU \(Old CPU\)"):
        OpenVinoRunner(path, "bf16")


def test_missing_runtime_is_named(model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = model()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeMissing, match="openvino is not installed"):
        OpenVinoRunner(path)


def test_damaged_model_is_refused(model: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    path = model()
    whole = path.read_bytes()
    for content, message in [
        (b"", "was not exported by sr-pipeline"),
        (whole[:100], "is not an ONNX model"),
        (whole.replace(b"Relu", b"Rulu"), "is not a model that openvino can load"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ModelUnreadable, match=message) as caught:
            OpenVinoRunner(path)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(DeployError, match="no model at"):
        OpenVinoRunner(path)
    assert capfd.readouterr() == ("", "")
