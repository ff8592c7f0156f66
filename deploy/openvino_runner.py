"""Runs an exported model in OpenVINO on the CPU, in a precision that is always named."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from xml.etree import ElementTree

import numpy as np

from deploy.onnx_properties import properties_from_onnx
from deploy.runners import Frame, Layer, ModelUnreadable, RuntimeMissing, first_line, metadata_from_properties

Hint = Literal["f32", "bf16", "f16"]

# What a CPU must say that it can do, and the name of the precision in a model's metadata.
CAPABILITIES: dict[Hint, str] = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
COMPUTED: dict[Hint, str] = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
SHAPES = 8  # compiled networks that are kept, one for each shape of a frame


class OpenVinoRunner:
    """OpenVINO on the CPU. A network is compiled for each shape of a frame: fixed shapes run up to twice as fast.

    precision: of everything that the model does not hold as INT8. Left to itself OpenVINO takes what is fastest. Below
        f32 the convolutions that read the frame stay in f32: 8 bits of mantissa are fewer than those of an image.
    threads: None leaves the number to the runtime.
    counters: whether it counts the time of each layer, for `layers`; that takes time itself.
    Raises ModelUnreadable; RuntimeMissing where OpenVINO is not installed or this CPU does not compute in `precision`.
    """

    def __init__(
        self, path: Path, precision: Hint = "f32", threads: int | None = None, *, counters: bool = False
    ) -> None:
        try:
            with usage_events_off():
                import openvino
        except ImportError as error:
            raise RuntimeMissing("openvino") from error
        self._openvino = openvino
        self._core = openvino.Core()
        if CAPABILITIES[precision] not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            name = self._core.get_property("CPU", "FULL_DEVICE_NAME")
            raise RuntimeMissing(
                "openvino", f"cannot compute in {precision} on this CPU ({name})", "take another precision"
            )
        metadata = metadata_from_properties(properties_from_onnx(path), path)
        kept = precision == "f32" or metadata.precision == "int8"
        self.metadata = metadata if kept else replace(metadata, precision=COMPUTED[precision])
        try:
            self._model = self._core.read_model(path)
            if precision != "f32":
                self._model = _image_in_float(self._model)
        except Exception as error:  # the runtime's errors have no common class but this
            raise ModelUnreadable(f"{path} is not a model that openvino can load: {_reason(error)}") from error
        self._settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        if counters:
            self._settings["PERF_COUNT"] = True
        self._request = lru_cache(SHAPES)(self._compiled)
        self._latest: Any = None

    def infer(self, frame: Frame) -> Frame:
        """SR (batch, channels, scale*height, scale*width), unclamped, from LR (batch, channels, height, width)."""
        self._latest, shape = self._request(frame.shape)
        output: Frame = np.empty(shape, np.float32)
        self._latest.set_output_tensor(self._openvino.Tensor(output, shared_memory=True))
        self._latest.infer([frame], share_inputs=True, share_outputs=True)
        return output.transpose(0, 3, 1, 2)

    def layers(self) -> list[Layer]:
        """The mean time of each layer in all frames of the latest size, in the order they run in; with `counters`."""
        return layers_of(self._latest)

    def _compiled(self, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
        """A request, and the shape of what it puts out: channels come last, as the last layer has them in memory."""
        model = self._model.clone()
        model.reshape(list(shape))
        ends = self._openvino.preprocess.PrePostProcessor(model)
        ends.output().model().set_layout(self._openvino.Layout("NCHW"))
        ends.output().tensor().set_layout(self._openvino.Layout("NHWC"))
        compiled = self._core.compile_model(ends.build(), "CPU", self._settings)
        return compiled.create_infer_request(), tuple(compiled.output().shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._request.cache_clear()
        self._latest = None
        del self._model, self._core


def layers_of(request: Any) -> list[Layer]:
    """The mean time of each layer in all frames of a request that counts, in the order they run in."""
    counted = request.get_profiling_info()
    times = [(info.node_name, info.node_type, info.real_time / timedelta(milliseconds=1)) for info in counted]
    return [Layer(name, op, ms) for name, op, ms in times if ms > 0]


def _image_in_float(model: Any) -> Any:
    """The model with the convolutions that read its input marked as precise, which only its text can say."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        text, weights = ElementTree.parse(path).getroot(), path.with_suffix(".bin").read_bytes()
    layers = {layer.get("id"): layer for layer in text.iter("layer")}
    for edge in text.iter("edge"):
        source, reader = layers[edge.get("from-layer")], layers[edge.get("to-layer")]
        if source.get("type") == "Parameter" and reader.get("type") == "Convolution":
            notes = reader.find("rt_info")
            notes = ElementTree.SubElement(reader, "rt_info") if notes is None else notes
            ElementTree.SubElement(notes, "attribute", name="precise", version="0")
    return openvino.Core().read_model(ElementTree.tostring(text), weights)


@contextmanager
def usage_events_off() -> Iterator[None]:
    """What is imported inside does not find the package with which OpenVINO and nncf report to their maker."""
    package = "openvino_telemetry"
    found = sys.modules.pop(package, None)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        if found is not None:
            sys.modules[package] = found


def _reason(error: Exception) -> str:
    """OpenVINO's errors begin with the places in its source that they passed through."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from ")]
    return lines[0].strip() if lines else first_line(error)
