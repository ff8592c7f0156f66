"""Runs a network in PyTorch, on the CPU or on an NVIDIA GPU, in the shape of the runners of deploy."""

import copy
from types import TracebackType
from typing import Literal, Self

import torch
from torch.backends import cudnn

from deploy.runners import Frame
from pipeline.config import TrainDevice
from pipeline.errors import BackendMissing
from pipeline.model_facts import metadata_from_architecture
from pipeline.network import Network

Device = Literal["cpu", "cuda"]
Computed = Literal["fp32", "tf32", "fp16", "bf16"]

TYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def device_named(asked: TrainDevice) -> Device:
    """ "auto" is a GPU where PyTorch finds one. Raises BackendMissing where one is asked for and absent."""
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise BackendMissing("PyTorch finds no CUDA device", "needs an NVIDIA GPU and a PyTorch built for CUDA")
    return asked


class TorchRunner:
    """A copy of a network, in either form, on `device`; the network is left alone.

    precision: of the features; half precisions are for the plain form. The skip path stays in float32, as it does in an
    exported model. tf32 is float32 whose products a GPU forms from 10 bits of mantissa; fp32 forms none so.
    Raises BackendMissing without a CUDA device where one is asked for.
    """

    def __init__(self, network: Network, device: Device = "cpu", precision: Computed = "fp32") -> None:
        device = device_named(device)
        self.metadata = metadata_from_architecture(network.architecture, precision)
        self._device, self._tf32 = device, precision == "tf32"
        self._network = copy.deepcopy(network).to(device, torch.float32).eval()
        if device == "cuda":
            self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if (computed := TYPES[precision]) != torch.float32:
            for name, module in self._network.named_children():
                if name != "skip":
                    module.to(computed)
            self._network.stem.register_forward_pre_hook(lambda _, frames: (frames[0].to(computed),))
            last = self._network.spread or self._network.tail
            last.register_forward_hook(lambda *found: found[2].float())

    def infer(self, frame: Frame) -> Frame:
        """SR (batch, channels, scale*height, scale*width), unclamped, from LR (batch, channels, height, width)."""
        with torch.inference_mode(), cudnn.flags(enabled=True, allow_tf32=self._tf32):
            output: Frame = self._network(torch.from_numpy(frame).to(self._device)).cpu().numpy()
        return output

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._network
