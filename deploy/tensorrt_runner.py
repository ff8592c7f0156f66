"""Runs an engine of TensorRT or TensorRT for RTX on the GPU, after checking that it was built for it."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from deploy.cuda import Gpu
from deploy.engine_facts import (
    EngineMismatch,
    check_gpu,
    check_onnx,
    check_version,
    metadata_from_facts,
    read_engine,
)
from deploy.engines import first_reason, logger, tensorrt_module
from deploy.runners import DeployError, Frame

INPUT, OUTPUT = "lr", "sr"


class TensorRtRunner:
    """An engine that `engines.write_engine` wrote, on the first NVIDIA GPU.

    onnx_sha256: of the model that it is to stand for; None where that is not known.
    Raises ModelUnreadable; EngineMismatch, naming what differs; RuntimeMissing without the runtime or a GPU.
    """

    def __init__(self, path: Path, onnx_sha256: str | None = None) -> None:
        engine, facts = read_engine(path)
        self.metadata = metadata_from_facts(facts, path)
        self._shapes = facts.shapes
        if onnx_sha256 is not None:
            check_onnx(facts, path, onnx_sha256)
        trt = tensorrt_module(facts.flavour)
        check_version(facts, path, trt.__version__)
        self._gpu = Gpu(facts.flavour)
        check_gpu(facts, path, self._gpu.name, self._gpu.compute_capability)
        log = logger(trt)
        self._runtime = trt.Runtime(log)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise EngineMismatch(f"{facts.flavour} cannot load {path}: {first_reason(log.errors)}")
        self._context = self._engine.create_execution_context()
        self._buffers: dict[str, tuple[int, int]] = {}  # tensor -> address and size in bytes

    def infer(self, frame: Frame) -> Frame:
        """SR (batch, channels, scale*height, scale*width), unclamped, from LR (batch, channels, height, width).

        Raises DeployError for a frame outside the shapes of the engine.
        """
        batch, _, height, width = frame.shape
        if not self._shapes.hold((batch, height, width)):
            taken = f"{self._shapes.minimum} to {self._shapes.maximum}"
            raise DeployError(f"the engine takes (batch, height, width) of {taken}, not {(batch, height, width)}")
        values = np.ascontiguousarray(frame, np.float32)
        self._context.set_input_shape(INPUT, values.shape)
        shape = tuple(self._context.get_tensor_shape(OUTPUT))
        self._gpu.upload(self._buffer(INPUT, values.nbytes), values)
        output = self._buffer(OUTPUT, int(np.prod(shape)) * values.itemsize)
        if not self._context.execute_async_v3(self._gpu.stream):
            raise DeployError("the engine failed on the GPU")
        return self._gpu.download(output, shape)

    def _buffer(self, tensor: str, size: int) -> int:
        """Address of at least `size` bytes on the GPU, which the engine reads or writes as `tensor`."""
        address, held = self._buffers.get(tensor, (0, 0))
        if held < size:
            if held:
                del self._buffers[tensor]
                self._gpu.free(address)
            address = self._gpu.allocate(size)
            self._buffers[tensor] = address, size
            self._context.set_tensor_address(tensor, address)
        return address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for address, _ in self._buffers.values():
            self._gpu.free(address)
        del self._context, self._engine, self._runtime
        self._gpu.close()
