"""Builds TensorRT engines from ONNX, for the GPU of this machine or for any."""

import argparse
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from deploy.cuda import Gpu
from deploy.engine_facts import EngineFacts, Flavour, Shape, Shapes, write_engine
from deploy.files import check_writable, write_at_once
from deploy.onnx_properties import properties_from_onnx
from deploy.runners import DeployError, ModelUnreadable, RuntimeMissing, in_one_line, metadata_from_properties

# What an engine of TensorRT for RTX runs on, whatever GPU it was built beside, or none.
RTX_CAPABILITY = "8.0"


def engine_from_onnx(
    onnx: Path, shapes: Shapes, flavour: Flavour, timing_cache: Path | None = None
) -> tuple[bytes, EngineFacts]:
    """The engine of a model, and what is to stand beside it.

    Types are those of the model: model.onnx gives an fp32 engine (without TF32), model.fp16.onnx an fp16 one, and a
    model with QuantizeLinear and DequantizeLinear an int8 one. tensorrt builds on the GPU that will run the engine,
    tensorrt-rtx anywhere.
    timing_cache: a file that is read, and written at once, so that the next engine is built faster. One of another
        version or another GPU is begun anew, with a warning. tensorrt-rtx measures nothing and has none.
    Raises RuntimeMissing; ModelUnreadable where the file is no model, or TensorRT refuses it; DeployError where the
    cache cannot be read or written.
    """
    properties = properties_from_onnx(onnx)
    channels = 3 if metadata_from_properties(properties, onnx).color == "rgb" else 1
    trt = tensorrt_module(flavour)
    gpu, capability = _place(flavour)
    log = logger(trt)
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # a null pointer inside
        raise RuntimeMissing(flavour, "cannot start its builder", "needs an NVIDIA GPU and its driver") from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    model = onnx.read_bytes()
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = [f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors]
        raise ModelUnreadable(f"{flavour} cannot read {onnx}: {first_reason([*reasons, *log.errors])}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    sides = (shapes.minimum, shapes.optimum, shapes.maximum)
    profile.set_shape(network.get_input(0).name, *((batch, channels, *size) for batch, *size in sides))
    config.add_optimization_profile(profile)
    if timing_cache is not None and flavour == "tensorrt":
        begin_with_timing_cache(timing_cache, config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelUnreadable(f"{flavour} cannot build an engine from {onnx}: {first_reason(log.errors)}")
    if timing_cache is not None and flavour == "tensorrt":
        write_at_once(timing_cache, bytes(config.get_timing_cache().serialize()))
    engine = bytes(plan)
    facts = EngineFacts(
        flavour=flavour,
        version=trt.__version__,
        gpu=gpu,
        compute_capability=capability,
        shapes=shapes,
        onnx_sha256=hashlib.sha256(model).hexdigest(),
        engine_sha256=hashlib.sha256(engine).hexdigest(),
        properties=properties,
    )
    return engine, facts


def begin_with_timing_cache(timing_cache: Path, config: Any) -> None:
    """Lets a build take the times that the file holds, where they are of this version of TensorRT and of this GPU."""
    try:
        timing_cache.parent.mkdir(parents=True, exist_ok=True)  # what cannot be written is known before the build
        known = timing_cache.read_bytes() if timing_cache.exists() else b""
    except OSError as error:
        raise DeployError(f"cannot use {timing_cache}: {error.strerror}") from error
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        logging.getLogger(__name__).warning(
            "%s is of another version of TensorRT or of another GPU; it is begun anew", timing_cache
        )
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def tensorrt_module(flavour: Flavour) -> Any:
    """Raises RuntimeMissing where the flavour is not installed."""
    try:
        if flavour == "tensorrt":
            import tensorrt

            return tensorrt
        import tensorrt_rtx

        return tensorrt_rtx
    except ImportError as error:
        raise RuntimeMissing(flavour) from error


def _place(flavour: Flavour) -> tuple[str | None, str]:
    """GPU and compute capability that an engine is built for."""
    if flavour == "tensorrt-rtx":
        return None, RTX_CAPABILITY
    gpu = Gpu(flavour)
    gpu.close()
    return gpu.name, gpu.compute_capability


def logger(trt: Any) -> Any:
    """Keeps errors for the exceptions that name them, and lets nothing through to the terminal."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message)

    return Log()


def first_reason(reasons: list[str]) -> str:
    return reasons[0].strip().partition("\n")[0] if reasons else "it gives no reason"


def shape_from_text(text: str) -> Shape:
    """(1, 360, 640) of "1x360x640". Raises ValueError."""
    batch, height, width = (int(part) for part in text.split("x"))
    return batch, height, width


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds one engine. Ends with a line on stderr and exit code 1 where it cannot."""
    parser = argparse.ArgumentParser(prog="python -m deploy.engines", description="Build a TensorRT engine of a model.")
    parser.add_argument("model", type=Path, help="a model.onnx of `sr-pipeline export`")
    parser.add_argument("engine", type=Path, help="where to write; what it was built for stands beside it")
    parser.add_argument("--flavour", choices=get_args(Flavour), default="tensorrt", help="(default: %(default)s)")
    parser.add_argument("--optimum", type=shape_from_text, required=True, help="BATCHxHEIGHTxWIDTH it is fastest at")
    parser.add_argument("--minimum", type=shape_from_text, help="the smallest it takes (default: the optimum)")
    parser.add_argument("--maximum", type=shape_from_text, help="the largest it takes (default: the optimum)")
    parser.add_argument("--timing-cache", type=Path, help="read and written; tensorrt only")
    given = parser.parse_args(arguments)
    try:
        check_writable(given.engine)
        shapes = Shapes(given.minimum or given.optimum, given.optimum, given.maximum or given.optimum)
        write_engine(given.engine, *engine_from_onnx(given.model, shapes, given.flavour, given.timing_cache))
    except (DeployError, ValueError) as error:
        raise SystemExit(in_one_line(error)) from error


if __name__ == "__main__":
    main()
