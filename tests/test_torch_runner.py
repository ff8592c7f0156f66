from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipeline.architecture import Architecture
from pipeline.errors import BackendMissing
from pipeline.fold import plain_from_network
from pipeline.metrics import psnr
from pipeline.network import Network
from pipeline.torch_runner import Computed, Device, TorchRunner, device_named

# Least PSNR between the outputs of random networks, whose features are larger than those of trained ones, in dB.
PARITY: dict[Computed, int] = {"fp32": 120, "tf32": 60, "fp16": 60, "bf16": 40}

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", PARITY)
def test_precisions_agree(
    architecture: Architecture, random_network: Callable[..., Network], precision: Computed, device: Device
) -> None:
    plain = plain_from_network(random_network(architecture))
    frame = np.random.default_rng(0).random((2, architecture.channels, 24, 20), np.float32)
    before = torch.backends.cudnn.allow_tf32
    with TorchRunner(plain) as reference, TorchRunner(plain, device, precision) as runner:
        expected, found = reference.infer(frame), runner.infer(frame)
    assert torch.backends.cudnn.allow_tf32 == before
    assert runner.metadata.precision == precision
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert psnr(expected, found, peak=float(np.ptp(expected))) > PARITY[precision]
    if device == "cpu":
        assert np.array_equal(expected, found) == (precision in ("fp32", "tf32"))
    assert {str(parameter.dtype) for parameter in plain.parameters()} == {"torch.float32"}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_image_keeps_its_bits_in_half_precision(random_network: Callable[..., Network], precision: Computed) -> None:
    """What comes by the skip path alone is exact."""
    plain = plain_from_network(random_network(Architecture("edge", 2, "rgb", 8, (), skip="conv3")))
    with torch.no_grad():
        for parameter in plain.tail.parameters():
            parameter.zero_()
    frame = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    with TorchRunner(plain) as reference, TorchRunner(plain, precision=precision) as runner:
        assert np.array_equal(reference.infer(frame), runner.infer(frame))


@pytest.mark.parametrize("there", [False, True])
def test_a_gpu_is_taken_where_there_is_one(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device_named("auto") == ("cuda" if there else "cpu")
    assert device_named("cpu") == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_gpu_is_not_replaced(random_network: Callable[..., Network]) -> None:
    with pytest.raises(BackendMissing, match="PyTorch finds no CUDA device") as caught:
        TorchRunner(random_network(Architecture("edge", 2, "rgb", 8, ())), "cuda", "fp16")
    assert "NVIDIA GPU" in caught.value.hint
