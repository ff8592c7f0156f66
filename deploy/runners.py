"""Runs an exported model: one shape for every runtime, and what a model says about itself."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

SCHEMA = "1"
VALUE_RANGE = "0..1"

Color = Literal["rgb", "y"]
Frame = NDArray[np.float32]


class DeployError(Exception):
    """A user's mistake, in one line."""


class RuntimeMissing(DeployError):
    """runtime: the name of the Python package that is not installed."""

    def __init__(self, runtime: str) -> None:
        super().__init__(f"{runtime} is not installed")
        self.runtime = runtime


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
    precision: of the weights and the features inside, "fp32" or "fp16"; frames are float32 always.
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


class OnnxRuntimeRunner:
    """ONNX Runtime on the CPU, and nowhere else.

    threads: of one operator; None leaves the number to the runtime.
    Raises RuntimeMissing, ModelUnreadable.
    """

    PROVIDER = "CPUExecutionProvider"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RuntimeMissing("onnxruntime") from error
        if not path.is_file():
            raise ModelUnreadable(f"no model at {path}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # errors; they are raised as well
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[self.PROVIDER])
        except Exception as error:  # the runtime's errors have no common class but this
            raise ModelUnreadable(f"{path} is not a model that onnxruntime can load: {first_line(error)}") from error
        self.metadata = metadata_from_properties(self._session.get_modelmeta().custom_metadata_map, path)
        self._input = self._session.get_inputs()[0].name

    def infer(self, frame: Frame) -> Frame:
        output: Frame = self._session.run(None, {self._input: frame})[0]
        return output

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._session


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
