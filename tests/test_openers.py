import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deploy.engine_facts import EngineFacts, EngineMismatch, Shapes, write_engine
from deploy.onnx_properties import properties_from_onnx
from deploy.openers import CANDIDATES, ENGINE, PRECISIONS, exported_precision, open_candidate, open_in
from deploy.runners import ModelUnreadable, RuntimeMissing
from pipeline.architecture import Architecture, Cell
from pipeline.export import properties
from pipeline.fold import plain_from_network
from pipeline.network import Network
from pipeline.onnx_graph import onnx_from_network
from pipeline.quantise import int8_from_onnx

ARCHITECTURE = Architecture("edge", 2, "rgb", 8, (Cell(("conv3", "conv1"), (8,)),))
FRAME = np.random.default_rng(0).random((1, 3, 8, 10), np.float32)


@pytest.fixture
def model(random_network: Callable[..., Network], tmp_path: Path) -> Callable[[str], Path]:
    def write(precision: str) -> Path:
        plain = plain_from_network(random_network(ARCHITECTURE))
        if precision == "int8":
            proto = int8_from_onnx(onnx_from_network(plain, "fp32", properties(plain, "int8")), [FRAME])
        else:
            proto = onnx_from_network(plain, precision, properties(plain, precision))  # type: ignore[arg-type]
        path = tmp_path / f"{precision}.onnx"
        path.write_bytes(proto.SerializeToString())
        return path

    return write


@pytest.mark.parametrize(("runtime", "precision"), [pair for pair in CANDIDATES if " " not in pair[0]])
def test_candidate_computes_in_its_precision(model: Callable[[str], Path], runtime: str, precision: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
    path = model(exported_precision(runtime, precision))
    try:
        runner = open_candidate(path, runtime, precision, threads=1)
    except RuntimeMissing as error:
        pytest.skip(str(error))
    with runner:
        assert runner.metadata.precision == precision
        assert runner.infer(FRAME).shape == (1, 3, 16, 20)


@pytest.mark.parametrize(
    ("runtime", "precision", "stored"),
    [
        ("onnxruntime", "int8", "fp32"),
        ("onnxruntime", "fp32", "int8"),
        ("onnxruntime", "fp16", "fp32"),
        ("openvino", "fp32", "fp16"),
        ("openvino", "fp32", "int8"),
    ],
)
def test_model_of_another_precision_is_refused(
    model: Callable[[str], Path], runtime: str, precision: str, stored: str
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
    with pytest.raises(ModelUnreadable, match=f"computes in {stored}; {runtime} {precision} needs a model exported in"):
        open_candidate(model(stored), runtime, precision)


@pytest.mark.parametrize(("runtime", "precision"), [("onnxruntime", "bf16"), ("abacus", "fp32")])
def test_unknown_pair_lists_the_known_ones(runtime: str, precision: str) -> None:
    with pytest.raises(RuntimeMissing, match=f"{runtime} does not run {precision} here") as caught:
        exported_precision(runtime, precision)
    assert "openvino bf16" in (caught.value.remedy or "")


def test_every_precision_has_a_candidate() -> None:
    assert {precision for _, precision in CANDIDATES} == {*PRECISIONS}


@pytest.mark.parametrize("stored", ["fp32", "fp16", "int8"])
def test_precision_is_that_of_the_model_where_none_is_named(model: Callable[[str], Path], stored: str) -> None:
    with open_in(model(stored), "onnxruntime", threads=1) as runner:
        assert runner.metadata.precision == stored
        assert runner.infer(FRAME).shape == (1, 3, 16, 20)


def test_engine_is_opened_as_one(model: Callable[[str], Path], tmp_path: Path) -> None:
    """As far as it gets without a GPU: the file is read, and what is missing is the runtime or the GPU."""
    engine, onnx, shape = tmp_path / "model.engine", model("fp16"), (1, 8, 10)
    facts = EngineFacts(
        flavour="tensorrt",
        version="10.9.0",
        gpu="NVIDIA L4",
        compute_capability="8.9",
        shapes=Shapes(shape, shape, shape),
        onnx_sha256=hashlib.sha256(onnx.read_bytes()).hexdigest(),
        engine_sha256=hashlib.sha256(b"engine").hexdigest(),
        properties=properties_from_onnx(onnx),
    )
    write_engine(engine, b"engine", facts)
    with pytest.raises((RuntimeMissing, EngineMismatch), match="tensorrt"):
        open_in(engine, ENGINE)
