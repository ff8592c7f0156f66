"""Opens an exported model in a runtime and a precision, both by name, and in nothing else."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from deploy.onnx_properties import properties_from_onnx
from deploy.openvino_runner import OpenVinoRunner
from deploy.runners import (
    CountingRunner,
    ModelUnreadable,
    OnnxRuntimeRunner,
    Runner,
    RuntimeMissing,
    metadata_from_properties,
)

Backend = Literal[
    "onnxruntime", "onnxruntime cuda", "onnxruntime tensorrt", "openvino f32", "openvino bf16", "openvino f16"
]

# Each takes a path and, by name, `threads`, and `counters` where it counts layers.
OPENERS: dict[Backend, Callable[..., CountingRunner]] = {
    "onnxruntime": OnnxRuntimeRunner,
    "onnxruntime cuda": partial(OnnxRuntimeRunner, device="cuda"),
    "onnxruntime tensorrt": partial(OnnxRuntimeRunner, device="tensorrt"),
    "openvino f32": partial(OpenVinoRunner, precision="f32"),
    "openvino bf16": partial(OpenVinoRunner, precision="bf16"),
    "openvino f16": partial(OpenVinoRunner, precision="f16"),
}
# (runtime, precision) -> what opens it, and the precision that its model is exported in.
CANDIDATES: dict[tuple[str, str], tuple[Backend, str]] = {
    ("onnxruntime", "fp32"): ("onnxruntime", "fp32"),
    ("onnxruntime", "fp16"): ("onnxruntime", "fp16"),
    ("onnxruntime", "int8"): ("onnxruntime", "int8"),
    ("onnxruntime cuda", "fp32"): ("onnxruntime cuda", "fp32"),
    ("onnxruntime cuda", "fp16"): ("onnxruntime cuda", "fp16"),
    ("onnxruntime tensorrt", "fp32"): ("onnxruntime tensorrt", "fp32"),
    ("onnxruntime tensorrt", "fp16"): ("onnxruntime tensorrt", "fp16"),
    ("openvino", "fp32"): ("openvino f32", "fp32"),
    ("openvino", "bf16"): ("openvino bf16", "fp32"),
    ("openvino", "fp16"): ("openvino f16", "fp32"),
    ("openvino", "int8"): ("openvino f32", "int8"),
}
RUNTIMES = tuple(dict.fromkeys(runtime for runtime, _ in CANDIDATES))
ENGINE = "tensorrt"  # the runtime of a file that TensorRT, or TensorRT for RTX, was built into
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


def positive_int(text: str) -> int:
    """A number of threads, or of pixels, as the command lines of this package take it. Raises ValueError below 1."""
    if (value := int(text)) < 1:
        raise ValueError(text)
    return value


def exported_precision(runtime: str, precision: str) -> str:
    """Precision of the model file that runs as `runtime` `precision`. Raises RuntimeMissing for an unknown pair."""
    if (runtime, precision) not in CANDIDATES:
        known = ", ".join(" ".join(pair) for pair in CANDIDATES)
        raise RuntimeMissing(runtime, f"does not run {precision} here", f"take one of: {known}")
    return CANDIDATES[runtime, precision][1]


def open_candidate(
    path: Path, runtime: str, precision: str, threads: int | None = None, *, counters: bool = False
) -> CountingRunner:
    """counters: whether the runner counts the time of each layer, which takes time itself.

    Raises RuntimeMissing where the runtime, its device or the pair is absent; ModelUnreadable where the file is no
    model, or one of another precision.
    """
    stored = exported_precision(runtime, precision)
    runner = OPENERS[CANDIDATES[runtime, precision][0]](path, threads=threads, counters=counters)
    # Of the file: a runner of OpenVINO states what it computes in
    if (found := metadata_from_properties(properties_from_onnx(path), path).precision) != stored:
        runner.__exit__(None, None, None)
        raise ModelUnreadable(f"{path} computes in {found}; {runtime} {precision} needs a model exported in {stored}")
    return runner


def open_in(path: Path, runtime: str, precision: str | None = None, threads: int | None = None) -> Runner:
    """A model in one of `RUNTIMES`, or an engine in `ENGINE`, which runs on a GPU and takes no threads.

    precision: None for that which the file was exported in. Raises as `open_candidate`, and EngineMismatch.
    """
    if runtime == ENGINE:
        from deploy.tensorrt_runner import TensorRtRunner  # a bundle goes without it

        runner = TensorRtRunner(path)
        if precision not in (None, runner.metadata.precision):
            runner.__exit__(None, None, None)
            raise ModelUnreadable(f"{path} computes in {runner.metadata.precision}, not in {precision}")
        return runner
    if precision is None:
        precision = metadata_from_properties(properties_from_onnx(path), path).precision
    return open_candidate(path, runtime, precision, threads)
