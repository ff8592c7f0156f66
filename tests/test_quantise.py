import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from deploy.runners import Frame
from pipeline.architecture import Architecture, Cell, Color
from pipeline.data import Pair
from pipeline.errors import BackendMissing, DataError
from pipeline.export import properties
from pipeline.fold import plain_from_network
from pipeline.network import Network
from pipeline.onnx_graph import onnx_from_network
from pipeline.quantise import (
    IMAGES,
    SIDE,
    _of_one_size,
    float_nodes,
    frames_from_pairs,
    int8_from_onnx,
    openvino_int8_from_onnx,
    quantisers,
    tensorrt_int8_from_onnx,
)

Quantise = Callable[[onnx.ModelProto, list[Frame]], onnx.ModelProto]

needs_nncf = pytest.mark.skipif("nncf" not in quantisers(), reason="nncf is not installed")
QUANTISERS = [
    pytest.param(int8_from_onnx, id="onnxruntime"),
    pytest.param(tensorrt_int8_from_onnx, id="tensorrt"),
    pytest.param(openvino_int8_from_onnx, id="nncf", marks=needs_nncf),
]


def exported(random_network: Callable[..., Network], architecture: Architecture) -> onnx.ModelProto:
    plain = plain_from_network(random_network(architecture))
    return onnx_from_network(plain, "fp32", properties(plain, "int8"))


def test_tensorrt_has_convolutions_in_int8_and_the_rest_in_float(
    random_network: Callable[..., Network], architecture: Architecture, caplog: pytest.LogCaptureFixture
) -> None:
    model = exported(random_network, architecture)
    before = model.SerializeToString()
    side = 12 * architecture.unshuffle
    frames = [np.random.default_rng(0).random((1, architecture.channels, side, side), np.float32)]
    quantised = tensorrt_int8_from_onnx(model, frames)
    assert model.SerializeToString() == before
    assert quantised.SerializeToString(deterministic=True) == tensorrt_int8_from_onnx(model, frames).SerializeToString(
        deterministic=True
    )
    source = {name: node for node in quantised.graph.node for name in node.output}
    kinds = {weight.name: weight.data_type for weight in quantised.graph.initializer}
    for node in quantised.graph.node:
        read = [source[name].op_type for name in node.input if name in source]
        if node.op_type == "Conv" and node.name not in float_nodes(model):
            assert read == ["DequantizeLinear", "DequantizeLinear"]  # features and weights; the bias is a float
            weight = source[node.input[1]]
            assert kinds[weight.input[0]] == TensorProto.INT8
            assert weight.attribute[0].name == "axis"  # by channel
        elif node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            assert "DequantizeLinear" not in read
    for node in quantised.graph.node:
        if node.op_type == "QuantizeLinear":  # symmetric
            zero = next(weight for weight in quantised.graph.initializer if weight.name == node.input[2])
            assert not onnx.numpy_helper.to_array(zero).any()
    assert caplog.messages == []


def test_onnxruntime_computes_in_int8_all_but_the_path_of_the_image(
    random_network: Callable[..., Network], architecture: Architecture, tmp_path: Path
) -> None:
    """Its optimiser takes over what is rounded on all sides; a convolution that it leaves is computed in float32."""
    model = exported(random_network, architecture)
    side = 12 * architecture.unshuffle
    frames = [np.random.default_rng(0).random((1, architecture.channels, side, side), np.float32)]
    quantised = int8_from_onnx(model, frames)
    assert quantised.SerializeToString(deterministic=True) == int8_from_onnx(model, frames).SerializeToString(
        deterministic=True
    )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3  # it warns that the file is for this machine
    onnxruntime.InferenceSession(quantised.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ran = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    in_float = {node.name for node in model.graph.node if node.name in float_nodes(model) and node.op_type == "Conv"}
    assert ran["QLinearConv"] == sum(node.op_type == "Conv" for node in model.graph.node) - len(in_float)
    assert ran["Conv"] + ran["FusedConv"] == len(in_float)


@needs_nncf
def test_openvino_has_additions_in_int8_and_the_image_in_float(
    random_network: Callable[..., Network],
    architecture: Architecture,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = exported(random_network, architecture)
    before = model.SerializeToString()
    side = 12 * architecture.unshuffle
    frames = [np.random.default_rng(0).random((1, architecture.channels, side, side), np.float32)]
    quantised = openvino_int8_from_onnx(model, frames)
    assert model.SerializeToString() == before
    assert quantised.SerializeToString(deterministic=True) == openvino_int8_from_onnx(model, frames).SerializeToString(
        deterministic=True
    )
    source = {name: node for node in quantised.graph.node for name in node.output}
    kinds = {weight.name: weight.data_type for weight in quantised.graph.initializer}
    in_float = float_nodes(model, corrected=True)
    for node in quantised.graph.node:
        read = [source[name].op_type for name in node.input if name in source]
        if node.name in in_float:
            assert "DequantizeLinear" not in read
        elif node.op_type == "Conv":
            assert read[:2] == ["DequantizeLinear", "DequantizeLinear"]
            weight = source[node.input[1]]
            assert kinds[weight.input[0]] == TensorProto.INT8
            assert "axis" in {attribute.name for attribute in weight.attribute}  # by channel
        elif node.op_type == "Add":
            assert "DequantizeLinear" in read
    assert caplog.messages == []
    assert capfd.readouterr() == ("", "")


@needs_nncf
def test_nncf_is_quiet_and_handlers_of_others_are_as_they_were(random_network: Callable[..., Network]) -> None:
    """Test runners and applications hand one handler to several loggers: with its level theirs would be lost too."""
    model = exported(random_network, Architecture("edge", 2, "rgb", 8, ()))
    frames = [np.random.default_rng(0).random((1, 3, 12, 12), np.float32)]
    openvino_int8_from_onnx(model, frames)  # imports nncf, which makes its logger
    logger, shared = logging.getLogger("nncf"), logging.NullHandler()
    logger.addHandler(shared)
    try:
        openvino_int8_from_onnx(model, frames)
    finally:
        logger.removeHandler(shared)
    assert (logger.level, shared.level) == (logging.ERROR, logging.NOTSET)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"skip": "conv3"}, ["stem", "tail", "skip", "add_1", "sr"]),
        ({"skip": "nearest"}, ["stem", "tail", "skip", "add_1", "sr"]),
        ({"skip": "none"}, ["stem", "tail", "sr"]),
        ({"tail_width": 4}, ["stem", "tail", "spread", "skip", "add_1", "sr"]),
        (
            {"tail_width": 4, "activation": "prelu"},
            ["stem", "path_0_convs_0", "add", "tail", "spread", "skip", "add_1", "sr"],
        ),
        ({"activation": "prelu"}, ["stem", "add", "tail", "skip", "add_1", "sr"]),
    ],
)
def test_the_image_goes_through_float_and_what_prelu_needs(
    random_network: Callable[..., Network], fields: dict[str, Any], names: list[str]
) -> None:
    architecture = Architecture("edge", 2, "rgb", 8, (Cell(("conv3",), ()),), **fields)
    model = exported(random_network, architecture)
    assert float_nodes(model) == names
    needed = architecture.activation == "prelu" or architecture.tail_width > 0
    assert [name for name in names if needed or name != "tail"] == float_nodes(model, corrected=True)


@pytest.mark.parametrize("quantise", QUANTISERS)
def test_model_keeps_what_it_says_of_itself(random_network: Callable[..., Network], quantise: Quantise) -> None:
    model = exported(random_network, Architecture("edge", 2, "rgb", 8, (Cell(("conv3",), ()),)))
    quantised = quantise(model, [np.zeros((1, 3, 8, 8), np.float32)])
    assert quantised.metadata_props == model.metadata_props
    assert (quantised.producer_name, quantised.doc_string) == (model.producer_name, model.doc_string)
    assert (quantised.ir_version, quantised.opset_import) == (model.ir_version, model.opset_import)


@pytest.mark.parametrize("quantise", [int8_from_onnx, tensorrt_int8_from_onnx, openvino_int8_from_onnx])
def test_no_frames_are_refused(random_network: Callable[..., Network], quantise: Quantise) -> None:
    with pytest.raises(DataError, match="INT8 needs calibration images") as caught:
        quantise(exported(random_network, Architecture("edge", 2, "rgb", 8, ())), [])
    assert "--calibration" in caught.value.hint


def test_nncf_is_not_replaced(random_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.quantise.find_spec", lambda _: None)
    model = exported(random_network, Architecture("edge", 2, "rgb", 8, ()))
    with pytest.raises(BackendMissing, match="nncf is not installed") as caught:
        openvino_int8_from_onnx(model, [np.zeros((1, 3, 8, 8), np.float32)])
    assert "openvino" in caught.value.hint


def pair(height: int, width: int, channels: int, value: int = 0) -> Pair:
    lr = np.full((height, width, channels), value, np.uint8)
    return Pair("flat", lr, lr.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize(
    ("given", "color", "multiple", "shape"),
    [
        (pair(20, 31, 3), "rgb", 1, (1, 3, 20, 31)),
        (pair(20, 31, 1), "rgb", 2, (1, 3, 20, 30)),
        (pair(20, 31, 3), "y", 2, (1, 1, 20, 30)),
        (pair(SIDE + 5, SIDE - 5, 1), "y", 1, (1, 1, SIDE, SIDE - 5)),
    ],
)
def test_frames_are_what_the_network_reads(given: Pair, color: Color, multiple: int, shape: tuple[int, ...]) -> None:
    (frame,) = frames_from_pairs([given], color, multiple)
    assert frame.shape == shape
    assert frame.dtype == np.float32


def test_luma_frames_hold_the_luma_of_the_standard() -> None:
    (white,) = frames_from_pairs([pair(16, 16, 3, 255)], "y", 1)
    assert white == pytest.approx(235 / 255)


def test_frames_are_spread_over_all_photographs() -> None:
    frames = frames_from_pairs([pair(16, 16, 1, value) for value in range(2 * IMAGES)], "y", 1)
    assert [round(float(frame[0, 0, 0, 0]) * 255) for frame in frames] == list(range(0, 2 * IMAGES, 2))


def test_small_photographs_do_not_shrink_the_others() -> None:
    sizes = [(20, 30), (40, 60), (60, 40), (8, 90)]
    frames = [np.arange(height * width, dtype=np.float32).reshape(1, 1, height, width) for height, width in sizes]
    cut = _of_one_size(frames)
    assert [frame.shape for frame in cut] == [(1, 1, 40, 40)] * 2
    np.testing.assert_array_equal(cut[0], frames[1][:, :, :, 10:50])  # the middle
