"""Opens an exported model with a runner of deploy, whose errors become the pipeline's."""

from pathlib import Path

from deploy.runners import ModelUnreadable, OnnxRuntimeRunner, Runner, RuntimeMissing
from pipeline.errors import BackendMissing, StaleArtifact


def open_model(path: Path, threads: int | None = None) -> Runner:
    """Raises BackendMissing where the runtime is not installed, StaleArtifact where the file is no model of ours."""
    try:
        return OnnxRuntimeRunner(path, threads)
    except RuntimeMissing as error:
        raise BackendMissing(str(error), f"pip install {error.runtime}") from error
    except ModelUnreadable as error:
        raise StaleArtifact(str(error), "name a model.onnx that `sr-pipeline export` of this version wrote") from error
