"""Quantises an exported model to INT8, with ranges measured on calibration images."""

import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from deploy.color import ycbcr_from_rgb
from deploy.openvino_runner import usage_events_off
from deploy.runners import Frame
from pipeline.architecture import Color
from pipeline.data import Pair
from pipeline.errors import BackendMissing, DataError

INT8_MODELS = 3  # raised when a network is quantised in another way: exports are made, and devices measured, anew
IMAGES = 32  # that ranges are measured on, at most
SIDE = 256  # of a calibration frame in LR pixels, at most
PERCENTILE = 99.999  # of the values of a feature that its range holds, in onnxruntime's quantiser

Quantiser = Literal["onnxruntime", "nncf"]


def quantisers() -> list[Quantiser]:
    """What int8 models are made with here: onnxruntime's quantiser, and nncf for OpenVINO where it is installed."""
    return ["onnxruntime", "nncf"] if find_spec("nncf") else ["onnxruntime"]


def int8_from_onnx(model: onnx.ModelProto, frames: Sequence[Frame]) -> onnx.ModelProto:
    """The fp32 `model` as onnxruntime computes INT8 on a CPU: weights by channel, features with a zero point.

    Its kernels take over a convolution or an addition only where what it reads, what it gives and its bias are rounded;
    anything less is computed in float32 between roundings, at half the speed. What `float_nodes` names stays in float.

    frames: LR (batch, channels, height, width) in [0, 1]; the range of a feature holds `PERCENTILE` of its values on
    them. With all of them networks of 12 channels lose up to twice as much, with 99.99 drawings and text do.
    Raises DataError without frames.
    """
    from onnxruntime.quantization import QuantType

    operations = ["Conv", "Relu", "LeakyRelu", "Add"]
    return _described_as(_rounded(model, frames, QuantType.QUInt8, operations, ActivationSymmetric=False), model)


def tensorrt_int8_from_onnx(model: onnx.ModelProto, frames: Sequence[Frame]) -> onnx.ModelProto:
    """The fp32 `model` as TensorRT reads INT8: convolutions alone, weights by channel, features by tensor, without zero
    points. Additions read the values before the rounding, and biases are floats.

    What `float_nodes` names stays in float. frames: as `int8_from_onnx` takes them. Raises DataError without frames.
    """
    from onnxruntime.quantization import QuantType

    options = {
        "ActivationSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": ["Conv"],
    }
    quantised = _rounded(model, frames, QuantType.QInt8, ["Conv"], **options)
    _read_unrounded(quantised)
    return _described_as(quantised, model)


def _rounded(
    model: onnx.ModelProto, frames: Sequence[Frame], features: Any, operations: list[str], **options: Any
) -> onnx.ModelProto:
    """`model` with QuantizeLinear and DequantizeLinear around what `operations` read and give, but for `float_nodes`.

    features: their type, a QuantType. options: of onnxruntime's quantiser. Raises DataError without frames.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    _check_frames(frames)
    frames = _of_one_size(frames)
    with tempfile.TemporaryDirectory() as folder, _quiet(), redirect_stdout(io.StringIO()):  # it prints its progress
        float_path, int8_path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, float_path)
        quantize_static(
            float_path,
            int8_path,
            _Frames(model.graph.input[0].name, frames),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=operations,
            nodes_to_exclude=float_nodes(model),
            per_channel=True,
            activation_type=features,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"WeightSymmetric": True, "CalibPercentile": PERCENTILE, **options},
        )
        return onnx.load(int8_path)


def openvino_int8_from_onnx(model: onnx.ModelProto, frames: Sequence[Frame]) -> onnx.ModelProto:
    """The fp32 `model` as OpenVINO computes INT8 fastest: features after a ReLU without a sign, and residual additions
    in INT8 as well, which nncf quantises by the rules of that runtime. Biases take up the mean error of the rounding.

    What `float_nodes` names stays in float. frames: as `int8_from_onnx` takes them. Raises DataError without frames,
    BackendMissing without nncf.
    """
    _check_frames(frames)
    if "nncf" not in quantisers():
        raise BackendMissing("nncf is not installed", "pip install 'sr-pipeline[openvino]'")
    with usage_events_off(), redirect_stdout(io.StringIO()):  # it draws its progress
        import nncf
        from nncf.quantization import advanced_parameters as advanced
        from nncf.quantization import range_estimator as ranges

        # Not nncf.set_log_level: it changes every handler there, those too that others share with their own loggers.
        logging.getLogger("nncf").setLevel(logging.ERROR)
        largest = ranges.StatisticsCollectorParameters(ranges.StatisticsType.MAX, ranges.AggregatorType.MAX)
        smallest = ranges.StatisticsCollectorParameters(ranges.StatisticsType.MIN, ranges.AggregatorType.MIN)
        lr = model.graph.input[0].name
        quantised: onnx.ModelProto = nncf.quantize(
            model,
            nncf.Dataset(frames, lambda frame: {lr: frame}),
            subset_size=len(frames),
            ignored_scope=nncf.IgnoredScope(names=float_nodes(model, corrected=True)),
            advanced_parameters=advanced.AdvancedQuantizationParameters(
                # All 8 bits in the weights of the first layer too. Before VNNI (2019) a CPU could overflow with them.
                overflow_fix=advanced.OverflowFix.DISABLE,
                activations_range_estimator_params=ranges.RangeEstimatorParameters(min=smallest, max=largest),
            ),
        )
    return _described_as(quantised, model)


def float_nodes(model: onnx.ModelProto, *, corrected: bool = False) -> list[str]:
    """Names of the nodes that stay in float: those through which the image itself goes, and those that lose most.

    The image: what reads the frame, as it is or moved about, since the 127 steps above zero are fewer than the 255 of
    an image; and all that comes after the last convolutions, the addition of the image to what the network makes of it.
    The last convolutions lose an eighth to a half of all that is lost, but less than that where the quantiser corrects
    biases and features have no sign. After PReLU they have one, and half the steps for each: additions stay in float,
    and so do the operations of an ACON.
    A narrow tail hands on the result itself: both of its convolutions stay, and after signed features the one before,
    which loses half of all that is lost then.
    """
    kept = _image_path(model)
    signed = any(node.op_type in ("PRelu", "Sigmoid") for node in model.graph.node)
    last = _convs_before(model, kept)
    narrow = _convs_before(model, last)
    if signed or narrow or not corrected:
        kept |= last | narrow
    if signed:
        convs = [node.name for node in model.graph.node if node.op_type == "Conv"]
        kept |= {before for before, conv in pairwise(convs) if conv in narrow}
        kept |= {node.name for node in model.graph.node if node.op_type in ("Add", "Mul", "Sigmoid")}
    return [node.name for node in model.graph.node if node.name in kept]


def _convs_before(model: onnx.ModelProto, names: set[str]) -> set[str]:
    """Convolutions that one of the nodes reads as they are."""
    read = {name for node in model.graph.node if node.name in names for name in node.input}
    return {node.name for node in model.graph.node if node.op_type == "Conv" and node.output[0] in read}


def _image_path(model: onnx.ModelProto) -> set[str]:
    frame, read = {model.graph.input[0].name}, set[str]()
    for node in model.graph.node:
        if frame & {*node.input}:
            read.add(node.name)
            frame |= {*node.output} if node.op_type != "Conv" else set()
    convolved, last = set[str](), set[str]()
    for node in reversed(model.graph.node):
        if node.op_type == "Conv" or convolved & {*node.output}:
            convolved |= {*node.input}
        else:
            last.add(node.name)
    return read | last


def frames_from_pairs(pairs: Sequence[Pair], color: Color, multiple: int) -> list[Frame]:
    """LR frames (1, channels, height, width) in [0, 1] of `IMAGES` photographs, evenly spread over `pairs`.

    Each is the middle of its photograph, at most `SIDE` pixels on a side, which are multiples of `multiple`.
    """
    chosen = [pairs[index * len(pairs) // IMAGES] for index in range(IMAGES)] if len(pairs) > IMAGES else pairs
    return [_frame(pair, color, multiple) for pair in chosen]


def _frame(pair: Pair, color: Color, multiple: int) -> Frame:
    height, width = (min(side, SIDE) // multiple * multiple for side in pair.lr.shape[:2])
    top, left = (pair.lr.shape[0] - height) // 2, (pair.lr.shape[1] - width) // 2
    pixels = pair.lr[top : top + height, left : left + width]
    if color == "rgb":
        pixels = np.broadcast_to(pixels, (height, width, 3))
    elif pixels.shape[2] == 3:
        pixels = ycbcr_from_rgb(pixels)[:, :, :1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def _of_one_size(frames: Sequence[Frame]) -> list[Frame]:
    """The middles of the larger half of `frames`, or of all where they are alike: histograms need one size."""
    sides = [min(frame.shape[2:]) for frame in frames]
    usual = sorted(sides)[len(sides) // 2]
    kept = [frame for frame, side in zip(frames, sides, strict=True) if side >= usual]
    height, width = (min(frame.shape[axis] for frame in kept) for axis in (2, 3))
    cut = []
    for frame in kept:
        top, left = (frame.shape[2] - height) // 2, (frame.shape[3] - width) // 2
        cut.append(np.ascontiguousarray(frame[:, :, top : top + height, left : left + width]))
    return cut


def _check_frames(frames: Sequence[Frame]) -> None:
    if not frames:
        raise DataError("INT8 needs calibration images, and there are none", "name a folder with --calibration")


def _described_as(quantised: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """`quantised` with what `model` says of itself, checked."""
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    quantised.doc_string = model.doc_string
    onnx.helper.set_model_props(quantised, {entry.key: entry.value for entry in model.metadata_props})
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


class _Frames:
    """What onnxruntime reads calibration data from."""

    def __init__(self, name: str, frames: Sequence[Frame]) -> None:
        self._name, self._frames = name, iter(frames)

    def get_next(self) -> dict[str, Frame] | None:
        frame = next(self._frames, None)
        return None if frame is None else {self._name: frame}


def _read_unrounded(model: onnx.ModelProto) -> None:
    """Lets everything but convolutions read what stands before QuantizeLinear and DequantizeLinear."""
    rounded = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    source = {
        node.output[0]: rounded[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in rounded
    }
    for node in model.graph.node:
        if node.op_type != "Conv":
            node.input[:] = [source.get(name, name) for name in node.input]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back the advice that onnxruntime logs through the root logger: to simplify a graph that is simple."""
    root = logging.getLogger()
    root.addFilter(_about_preprocessing)
    try:
        yield
    finally:
        root.removeFilter(_about_preprocessing)


def _about_preprocessing(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()
