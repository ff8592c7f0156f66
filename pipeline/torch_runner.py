"""Runs a network in PyTorch, in the shape of the runners of deploy."""

import copy
from types import TracebackType
from typing import Self

import torch

from deploy.runners import Frame
from pipeline.model_facts import metadata_from_architecture
from pipeline.network import Network


class TorchRunner:
    """A copy of a network, in either form, in float32 on `device`; the network is left alone."""

    def __init__(self, network: Network, device: str = "cpu") -> None:
        self.metadata = metadata_from_architecture(network.architecture, "fp32")
        self._network = copy.deepcopy(network).to(device, torch.float32).eval()
        self._device = device

    def infer(self, frame: Frame) -> Frame:
        """SR (batch, channels, scale*height, scale*width), unclamped, from LR (batch, channels, height, width)."""
        with torch.inference_mode():
            output: Frame = self._network(torch.from_numpy(frame).to(self._device)).cpu().numpy()
        return output

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._network
