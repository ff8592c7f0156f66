"""Replays the steps of a network on a GPU, where launching the work of a small one takes longer than the work."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.backends import cudnn

from pipeline.torch_runner import Device


class _Apart(nn.Module):
    """A network inside of another module: making a graph replaces the `forward` of what it is given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor) -> Tensor:
        sr: Tensor = self.network(lr)
        return sr


def replayed(
    network: nn.Module, shape: tuple[int, int, int, int], device: Device, *, bf16: bool
) -> Callable[[Tensor], Tensor]:
    """What does as `network` in training does; on a GPU for batches of `shape` alone, by way of a CUDA graph.

    shape: (batch, channels, height, width). bf16: whether it computes under autocast. The weights stay the network's.
    """
    if device != "cuda":
        return network
    # Gradients of weights are added up on the stream of the capture, which has ended: newer versions warn of that, and
    # can be told not to in the whole process alone
    if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    lr = torch.zeros(shape, device=device).to(memory_format=torch.channels_last)
    with (
        cudnn.flags(enabled=True, deterministic=True),
        torch.autocast(device, torch.bfloat16, enabled=bf16, cache_enabled=False),
    ):
        return cast(Callable[[Tensor], Tensor], torch.cuda.make_graphed_callables(_Apart(network), (lr,)))
