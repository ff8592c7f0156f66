import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deploy.openvino_runner import Hint, OpenVinoRunner
from deploy.runners import DeployError, ModelUnreadable, OnnxRuntimeRunner, RuntimeMissing
from pipeline.architecture import Architecture
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
