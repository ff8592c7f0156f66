"""Runs an exported model: one shape for every runtime, and what a model says about itself."""

import io
import json
import re
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

SCHEMA = "1"
VALUE_RANGE = "0..1"
KERNEL_TIME = "_kernel_time"  # after the name of a layer, in what ONNX Runtime counts

Color = Literal["rgb", "y"]
OrtDevice = Literal["cpu", "cuda", "tensorrt"]
Frame = NDArray[np.float32]


PROVIDERS: dict[OrtDevice, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
GPU_NEEDS = (
    "needs an NVIDIA GPU and its driver; pip install 'onnxruntime-gpu[cuda,cudnn]' in place of onnxruntime, and "
    "TensorRT for its provider"
)


class DeployError(Exception):
    """A user's mistake, in one line."""


class RuntimeMissing(DeployError):
    """A runtime that is not installed, or whose device is not here. Nothing else is run in its place.

    runtime: name of the Python package. problem: what is wrong, after that name.
    remedy: what to do; None where installing the package is enough.
    """

    def __init__(self, runtime: str, problem: str = "is not installed", remedy: str | None = None) -> None:
        super().__init__(f"{runtime} {problem}")
        self.runtime = runtime
        self.remedy = remedy


def in_one_line(error: Exception) -> str:
    """What a program of this package says of a mistake before it ends, with the remedy where there is one."""
    if isinstance(error, RuntimeMissing):
        return f"error: {error}; {error.remedy or f'pip install {error.runtime}'}"
    return f"error: {error}"


class ModelUnreadable(DeployError):
    """The file is missing, damaged, or not a model of this schema."""


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a caller must know to feed a model; the values of a frame are in [0, 1].

    scale: enlargement in each direction.
    color: "rgb" (3 channels) or "y" (1 channel, luma of BT.601 over 255).
    multiple: height and width of the LR frame are multiples of it.
    margin: LR pixels around an LR pixel that its SR pixels depend on, in each direction; a multiple of `multiple`.
        Tiles that overlap by it give the result of the whole frame.
    architecture_id: id of the architecture.
    precision: of the features inside, as they are computed: "fp32", "fp16", "bf16" or "int8"; frames are float32.
    """

    scale: int
    color: Color
    multiple: int
    margin: int
    architecture_id: str
    precision: str

    def to_properties(self) -> dict[str, str]:
        """Text pairs, as a model file holds them."""
        fields = {name: str(value) for name, value in asdict(self).items()}
        return {"schema": SCHEMA, "value_range": VALUE_RANGE, **fields}


def metadata_from_properties(properties: Mapping[str, str], model: Path) -> ModelMetadata:
    """The inverse of `ModelMetadata.to_properties`; other pairs are ignored. Raises ModelUnreadable, naming `model`."""
    schema = properties.get("schema")
    if schema is None:
        raise ModelUnreadable(f"{model} was not exported by sr-pipeline: it holds no metadata")
    if schema != SCHEMA:
        raise ModelUnreadable(f"{model} has schema {schema}, this version reads schema {SCHEMA}")
    if (values := properties.get("value_range")) != VALUE_RANGE:
        raise ModelUnreadable(f"{model} has values in {values}, this version feeds {VALUE_RANGE}")
    try:
        if (color := properties["color"]) not in ("rgb", "y"):
            raise ValueError(f"color is {color!r}")
        return ModelMetadata(
            scale=int(properties["scale"]),
            color=cast(Color, color),
            multiple=int(properties["multiple"]),
            margin=int(properties["margin"]),
            architecture_id=properties["architecture_id"],
            precision=properties["precision"],
        )
    except (KeyError, ValueError) as error:
        raise ModelUnreadable(f"the metadata of {model} is damaged: {error}") from error


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as the runtime has it, after its fusions: name, operation, and milliseconds in one frame."""

    name: str
    op: str
    ms: float


class Runner(Protocol):
    """A loaded model. A context manager, because some runtimes hold a device."""

    @property
    def metadata(self) -> ModelMetadata: ...

    def infer(self, frame: Frame) -> Frame:
        """SR (batch, channels, scale*height, scale*width), unclamped, from LR (batch, channels, height, width)."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class CountingRunner(Runner, Protocol):
    """A runner that was opened with `counters`."""

    def layers(self) -> list[Layer]: ...


def _cannot_start(provider: str, reason: str = "") -> RuntimeMissing:
    return RuntimeMissing("onnxruntime", f"cannot start {provider} here{reason}", GPU_NEEDS)


class OnnxRuntimeRunner:
    """ONNX Runtime on one device, and nowhere else.

    threads: of one operator on the CPU; None leaves the number to the runtime.
    counters: whether it counts the time of each layer, for `layers`; that takes time itself.
    Raises RuntimeMissing, ModelUnreadable.
    """

    def __init__(
        self, path: Path, threads: int | None = None, device: OrtDevice = "cpu", *, counters: bool = False
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RuntimeMissing("onnxruntime") from error
        onnxruntime.disable_telemetry_events()
        provider = PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            raise RuntimeMissing("onnxruntime", f"has no {provider}", GPU_NEEDS)
        if not path.is_file():
            raise ModelUnreadable(f"no model at {path}")
        if device != "cpu" and hasattr(onnxruntime, "preload_dlls"):
            with redirect_stdout(io.StringIO()):  # it prints what it does not find, which then is an error below
                onnxruntime.preload_dlls()  # CUDA and cuDNN, where pip has installed them
            onnxruntime.set_default_logger_severity(4)  # and logs it past the options below
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3 if device == "cpu" else 4  # errors, which are raised as well
        # Between frames its threads sleep: else they take the processor from what runs next, another runner included.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if counters:
            self._folder = tempfile.TemporaryDirectory()
            options.enable_profiling, options.profile_file_prefix = True, str(Path(self._folder.name) / "layers")
        if device != "cpu":  # a node that the device cannot compute is an error
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider], enable_fallback=0)
        except Exception as error:  # the runtime's errors have no common class but this
            if device != "cpu" and isinstance(error, RuntimeError):  # none of what is wrong with a model is one
                reason = re.sub(r"^\S+:\d+ .*?\) ", "", first_line(error))  # without the place in onnxruntime's source
                raise _cannot_start(provider, f": {reason}") from error
            where = "" if device == "cpu" else f" on {device}"
            problem = f"is not a model that onnxruntime can load{where}: {first_line(error)}"
            raise ModelUnreadable(f"{path} {problem}") from error
        self._session.disable_fallback()
        if provider not in self._session.get_providers():  # its libraries, or the GPU, could not be opened
            raise _cannot_start(provider)
        self.metadata = metadata_from_properties(self._session.get_modelmeta().custom_metadata_map, path)
        self._input = self._session.get_inputs()[0].name

    def infer(self, frame: Frame) -> Frame:
        output: Frame = self._session.run(None, {self._input: frame})[0]
        return output

    def layers(self) -> list[Layer]:
        """The median time of each layer in all frames so far, in the order they run in; once, and with `counters`."""
        with self._folder:
            events = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        found: dict[tuple[str, str], list[float]] = {}
        for event in events:
            if event["cat"] == "Node" and event["name"].endswith(KERNEL_TIME):
                layer = event["name"].removesuffix(KERNEL_TIME), event["args"]["op_name"]
                found.setdefault(layer, []).append(event["dur"] / 1e3)
        return [Layer(name, op, float(np.median(times))) for (name, op), times in found.items()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._session


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
