import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from deploy.cuda import SIGNATURES, Gpu
from deploy.runners import DeployError, RuntimeMissing


def test_gpu_is_named_and_holds_memory(cuda_driver: SimpleNamespace) -> None:
    gpu = Gpu("tensorrt")
    assert (gpu.name, gpu.compute_capability, gpu.stream) == ("NVIDIA Test", "8.9", 7)
    values = np.random.default_rng(0).random((2, 3, 4), np.float32)
    address = gpu.allocate(values.nbytes)
    gpu.upload(address, values)
    np.testing.assert_array_equal(gpu.download(address, values.shape), values)
    gpu.free(address)
    assert cuda_driver.memory == {}
    gpu.close()


def test_every_function_has_its_types(cuda_driver: SimpleNamespace) -> None:
    Gpu("tensorrt")
    for name, types in SIGNATURES.items():
        assert getattr(cuda_driver, name).argtypes == types


def test_failure_on_the_gpu_is_named(cuda_driver: SimpleNamespace) -> None:
    gpu = Gpu("tensorrt")
    cuda_driver.cuMemAlloc_v2 = lambda *_: 2
    with pytest.raises(DeployError, match="cuMemAlloc_v2 failed on the GPU with CUDA error 2"):
        gpu.allocate(10)


def test_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise OSError("cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(RuntimeMissing, match=r"tensorrt-rtx finds no NVIDIA driver \(libcuda\.so\.1\)") as caught:
        Gpu("tensorrt-rtx")
    assert caught.value.remedy == "needs an NVIDIA GPU"


def test_driver_without_a_gpu_is_told_apart(cuda_driver: SimpleNamespace) -> None:
    cuda_driver.cuInit = lambda _: 100
    with pytest.raises(RuntimeMissing, match="tensorrt finds no NVIDIA GPU"):
        Gpu("tensorrt")
