from collections.abc import Callable

import pytest
import torch

from pipeline.architecture import Architecture, Cell
from pipeline.network import Network
from pipeline.replay import replayed

SHAPE = (2, 3, 12, 10)
EDGE = Architecture("edge", 2, "rgb", 8, (Cell(("conv3", "conv3"), (8,), residual=True),), activation="acon")


def test_on_a_cpu_the_network_itself_steps(random_network: Callable[..., Network]) -> None:
    network = random_network(EDGE)
    assert replayed(network, SHAPE, "cpu", bf16=False) is network


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_replays_compute_what_steps_compute_with_the_weights_of_the_moment(
    random_network: Callable[..., Network],
) -> None:
    network = random_network(EDGE).train().to("cuda")
    replay = replayed(network, SHAPE, "cuda", bf16=False)
    for seed in range(3):
        lr = torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)).to("cuda")
        found = []
        for forward in (network, replay):
            sr = forward(lr)
            gradients = torch.autograd.grad(sr.square().mean(), list(network.parameters()))
            found.append([sr.detach().clone(), *(gradient.clone() for gradient in gradients)])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(0.9)
