"""Opens exported models and builds engines through deploy, whose errors become the pipeline's."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

from deploy.bundle import BundleDamaged, BundleUnsafe
from deploy.engine_facts import EngineMismatch, Flavour, Shapes, facts_path, json_from_facts
from deploy.engines import engine_from_onnx
from deploy.measure import TooSlow
from deploy.openers import OPENERS, Backend, exported_precision, open_in
from deploy.runners import DeployError, ModelUnreadable, Runner, RuntimeMissing
from deploy.tensorrt_runner import TensorRtRunner
from pipeline.errors import BackendMissing, ConfigError, StaleArtifact

Precision = Literal["fp32", "fp16", "int8"]  # of an exported model

OPENVINO_INT8 = "model.int8.openvino.onnx"  # which nncf makes
TENSORRT_INT8 = "model.int8.tensorrt.onnx"  # which engines are built from; model.int8.onnx is for onnxruntime
EXTRAS = ("openvino", "tensorrt", "tensorrt-rtx")  # of this project, in pyproject.toml


def model_name(precision: Precision) -> str:
    return "model.onnx" if precision == "fp32" else f"model.{precision}.onnx"


def engine_model_name(precision: Precision) -> str:
    """Name of the model that engines of a precision are built from."""
    return TENSORRT_INT8 if precision == "int8" else model_name(precision)


def candidate_model(runtime: str, precision: str) -> str:
    """Name of the exported model that `runtime` runs in `precision`. Raises BackendMissing for an unknown pair."""
    if (runtime, precision) == ("openvino", "int8"):
        return OPENVINO_INT8
    with deploy_errors():
        return model_name(cast(Precision, exported_precision(runtime, precision)))


def engine_name(precision: Precision, flavour: Flavour) -> str:
    return f"model.{precision}.{flavour}.engine"


def open_model(path: Path, threads: int | None = None, backend: Backend = "onnxruntime") -> Runner:
    """Raises BackendMissing where the runtime or its device is absent, StaleArtifact where it is no model of ours."""
    with deploy_errors():
        return OPENERS[backend](path, threads=threads)


def open_named(path: Path, runtime: str, precision: str | None = None) -> Runner:
    """A model in a runtime and a precision as `deploy.openers.open_in` names them. Raises as `open_model`."""
    with deploy_errors():
        return open_in(path, runtime, precision)


def open_engine(path: Path, onnx_sha256: str) -> Runner:
    """An engine, on the GPU. onnx_sha256: of the model that it stands for.

    Raises BackendMissing as `open_model`, StaleArtifact with what differs where it was built for something else.
    """
    with deploy_errors():
        return TensorRtRunner(path, onnx_sha256)


def engine_fits(path: Path) -> bool:
    """Whether an engine is for the version of its runtime and the GPU that are here; True where they are absent."""
    try:
        with TensorRtRunner(path):
            return True
    except EngineMismatch:
        return False
    except DeployError:
        return True


def engine_files(
    model: bytes, name: str, shapes: Shapes, flavour: Flavour, timing_cache: Path | None = None
) -> dict[str, bytes]:
    """File name -> content: the engine of an ONNX model, called `name`, and what stands beside it.

    timing_cache: as `deploy.engines.engine_from_onnx` takes it. Raises BackendMissing, StaleArtifact where the flavour
    does not take the model, ConfigError where the cache cannot be read or written.
    """
    with tempfile.TemporaryDirectory() as folder, deploy_errors():
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        engine, facts = engine_from_onnx(path, shapes, flavour, timing_cache)
    return {name: engine, facts_path(Path(name)).name: json_from_facts(facts)}


@contextmanager
def deploy_errors() -> Iterator[None]:
    """What deploy raises inside becomes an error of the pipeline, with what to do."""
    try:
        yield
    except RuntimeMissing as error:
        package = f"'sr-pipeline[{error.runtime}]'" if error.runtime in EXTRAS else error.runtime
        raise BackendMissing(str(error), error.remedy or f"pip install {package}") from error
    except EngineMismatch as error:
        raise StaleArtifact(str(error), "build it here with `sr-pipeline export RUN` or `deploy.engines`") from error
    except ModelUnreadable as error:
        raise StaleArtifact(str(error), "name a model that `sr-pipeline export` of this version wrote") from error
    except (BundleDamaged, BundleUnsafe) as error:
        raise StaleArtifact(str(error), "write the bundle again with `sr-pipeline profile --bundle FILE`") from error
    except TooSlow as error:
        raise ConfigError(str(error), "measure with a smaller --lr-size, or more --minutes") from error
    except DeployError as error:
        hint = "see that the file can be written, the GPU is free, and an engine was built for frames of this size"
        raise ConfigError(str(error), hint) from error
