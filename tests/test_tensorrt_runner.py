import ctypes
import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy.engine_facts import EngineFacts, EngineMismatch, Shapes, write_engine
from deploy.runners import DeployError, ModelMetadata, RuntimeMissing
from deploy.tensorrt_runner import TensorRtRunner
from pipeline.backends import open_engine
from pipeline.errors import BackendMissing, StaleArtifact

METADATA = ModelMetadata(scale=2, color="rgb", multiple=1, margin=4, architecture_id="a", precision="fp16")
FACTS = EngineFacts(
    flavour="tensorrt-rtx",
    version="1.7.0",
    gpu=None,
    compute_capability="8.0",
    shapes=Shapes((1, 4, 4), (1, 8, 8), (2, 16, 16)),
    onnx_sha256="ab",
    engine_sha256=hashlib.sha256(b"engine").hexdigest(),
    properties=METADATA.to_properties(),
)


class Context:
    """Repeats pixels, in the host's memory."""

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, _: str, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def get_tensor_shape(self, _: str) -> tuple[int, ...]:
        batch, channels, height, width = self.shape
        return batch, channels, 2 * height, 2 * width

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7
        count = int(np.prod(self.shape))
        frame = np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses["lr"])).reshape(self.shape)
        enlarged = np.ascontiguousarray(frame.repeat(2, axis=2).repeat(2, axis=3))
        ctypes.memmove(self.addresses["sr"], enlarged.ctypes.data, enlarged.nbytes)
        return True


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for tensorrt-rtx on a machine with a GPU."""

    class Logger:
        INTERNAL_ERROR, ERROR, INFO = range(3)

    class Runtime:
        def __init__(self, log: Any) -> None:
            self.log = log

        def deserialize_cuda_engine(self, engine: bytes) -> Any:
            if module.broken:
                self.log.log(Logger.INFO, "loading")
                self.log.log(Logger.ERROR, "serialization assertion failed\nsecond line")
                return None
            assert engine == b"engine"
            return SimpleNamespace(create_execution_context=Context)

    module = SimpleNamespace(__version__="1.7.0", ILogger=Logger, Runtime=Runtime, broken=False)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    return module


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    write_engine(path, b"engine", FACTS)
    return path


@pytest.mark.usefixtures("rtx")
def test_frames_go_to_the_gpu_and_back(engine: Path, cuda_driver: SimpleNamespace) -> None:
    generator = np.random.default_rng(0)
    with TensorRtRunner(engine, onnx_sha256="ab") as runner:
        assert runner.metadata == METADATA
        for shape in [(1, 3, 4, 6), (2, 3, 16, 16), (1, 3, 5, 4)]:
            frame = generator.random(shape, np.float32)
            given = frame.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)  # not contiguous
            np.testing.assert_array_equal(runner.infer(given), frame.repeat(2, axis=2).repeat(2, axis=3))
        assert len(cuda_driver.memory) == 2
        with pytest.raises(DeployError, match=r"the engine takes .* of \(1, 4, 4\) to \(2, 16, 16\), not \(1, 3, 4\)"):
            runner.infer(np.zeros((1, 3, 3, 4), np.float32))
    assert cuda_driver.memory == {}


@pytest.mark.usefixtures("rtx")
def test_a_gpu_without_memory_left_is_told_and_goes_on_with_what_fits(
    engine: Path, cuda_driver: SimpleNamespace
) -> None:
    small, large = (np.zeros((1, 3, side, side), np.float32) for side in (4, 16))
    allocate = cuda_driver.cuMemAlloc_v2
    with TensorRtRunner(engine) as runner:
        runner.infer(small)
        cuda_driver.cuMemAlloc_v2 = lambda *_: 2
        with pytest.raises(DeployError, match="cuMemAlloc_v2 failed on the GPU with CUDA error 2"):
            runner.infer(large)
        cuda_driver.cuMemAlloc_v2 = allocate
        runner.infer(small)
        assert len(cuda_driver.memory) == 2
    assert cuda_driver.memory == {}


@pytest.mark.usefixtures("cuda_driver")
def test_engine_that_the_runtime_refuses_is_named(engine: Path, rtx: SimpleNamespace) -> None:
    rtx.broken = True
    with pytest.raises(EngineMismatch, match=r"cannot load .*model\.engine: serialization assertion failed$"):
        TensorRtRunner(engine)


@pytest.mark.usefixtures("rtx", "cuda_driver")
@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (replace(FACTS, version="1.6.0"), r"was built with tensorrt-rtx 1\.6\.0, installed is 1\.7\.0"),
        (replace(FACTS, onnx_sha256="cd"), "was built from another model"),
        (replace(FACTS, compute_capability="12.0"), r"needs compute capability 12\.0 or more, this is NVIDIA Test"),
        (replace(FACTS, engine_sha256="ef"), "its hash differs"),
    ],
    ids=["version", "model", "capability", "tampered"],
)
def test_engine_of_another_machine_is_stale(engine: Path, facts: EngineFacts, message: str) -> None:
    write_engine(engine, b"engine", facts)
    with pytest.raises(EngineMismatch, match=message):
        TensorRtRunner(engine, onnx_sha256="ab")
    with pytest.raises(StaleArtifact, match=message) as caught:
        open_engine(engine, "ab")
    assert "sr-pipeline export" in caught.value.hint


@pytest.mark.usefixtures("rtx")
def test_machine_without_a_gpu_says_so(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise OSError("cannot open shared object file")

    monkeypatch.setattr("deploy.cuda.ctypes.CDLL", missing)
    with pytest.raises(BackendMissing, match="tensorrt-rtx finds no NVIDIA driver") as caught:
        open_engine(engine, "ab")
    assert caught.value.hint == "needs an NVIDIA GPU"


def test_missing_runtime_names_its_extra(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(RuntimeMissing, match="tensorrt-rtx is not installed"):
        TensorRtRunner(engine)
    with pytest.raises(BackendMissing) as caught:
        open_engine(engine, "ab")
    assert caught.value.hint == "pip install 'sr-pipeline[tensorrt-rtx]'"
