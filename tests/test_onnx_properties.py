from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from deploy.onnx_properties import properties_from_onnx
from deploy.runners import ModelUnreadable


def model_bytes(properties: dict[str, str]) -> bytes:
    value = helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["batch", 3])
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [300], [1.0] * 300)  # its length takes two bytes
    graph = helper.make_graph([helper.make_node("Identity", ["lr"], ["sr"])], "graph", [value], [value], [weight])
    model = helper.make_model(graph)
    helper.set_model_props(model, properties)
    encoded: bytes = model.SerializeToString()
    return encoded


@pytest.mark.parametrize("properties", [{}, {"scale": "2"}, {"empty": "", "long": "x" * 500, "umlaut": "ü"}])
def test_pairs_are_those_that_onnx_wrote(tmp_path: Path, properties: dict[str, str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_bytes(properties))
    assert properties_from_onnx(path) == properties
    assert {entry.key: entry.value for entry in onnx.load(path).metadata_props} == properties


@pytest.mark.parametrize(
    "content",
    [
        model_bytes({"scale": "2"})[:-3],
        model_bytes({"scale": "2"})[:100],
        b"\x0b",
        b"\xff",
        b"\x72\x02\x12\x00",
        b"junk",
    ],
    ids=["cut off", "cut in the graph", "wire type", "number cut off", "value without key", "text"],
)
def test_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelUnreadable, match=r"model\.onnx is not an ONNX model"):
        properties_from_onnx(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match=r"no model at .*model\.onnx"):
        properties_from_onnx(tmp_path / "model.onnx")
