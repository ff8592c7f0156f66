from collections.abc import Callable

import torch
from torch import nn

from pipeline.architecture import Architecture
from pipeline.blocks import CollapsibleConv
from pipeline.fold import plain_from_network
from pipeline.network import Network

TOLERANCE = 1e-10
SIZES = ((12, 10), (2, 14), (6, 2))  # smaller than the kernels too: all of it is border

Build = Callable[..., Network]


def frame(architecture: Architecture, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.rand(2, architecture.channels, height, width, generator=generator, dtype=torch.float64)


def test_plain_form_is_the_same_function(architecture: Architecture, random_network: Build) -> None:
    network = random_network(architecture, torch.float64)
    plain = plain_from_network(network)
    for size in SIZES:
        lr = frame(architecture, *size)
        with torch.no_grad():
            expected, found = network(lr), plain(lr)
        assert expected.shape == (2, architecture.channels, size[0] * architecture.scale, size[1] * architecture.scale)
        assert expected.abs().max() > 0.1
        assert (found - expected).abs().max() < TOLERANCE


def test_plain_form_holds_no_branches_and_no_rearranged_input(
    edge_architecture: Architecture, random_network: Build
) -> None:
    plain = plain_from_network(random_network(edge_architecture))
    kinds = {type(module) for module in plain.modules()}
    assert CollapsibleConv not in kinds
    assert plain.form == "plain"
    assert isinstance(plain.stem, nn.Conv2d)
    assert plain.stem.in_channels == edge_architecture.channels
    assert plain.stem.stride == (edge_architecture.unshuffle,) * 2
    assert not plain.training
    assert not any(parameter.requires_grad for parameter in plain.parameters())


def test_argument_is_left_alone(architecture: Architecture, random_network: Build) -> None:
    network = random_network(architecture).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    plain = plain_from_network(network)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    after = network.state_dict()
    assert (network.form, network.training) == ("training", True)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_plain_network_folds_to_itself(architecture: Architecture, random_network: Build) -> None:
    once = plain_from_network(random_network(architecture))
    twice = plain_from_network(once)
    assert list(once.state_dict()) == list(twice.state_dict())
    assert all(torch.equal(twice.state_dict()[name], tensor) for name, tensor in once.state_dict().items())
    lr = frame(architecture, 6, 8).float()
    assert torch.equal(once(lr), twice(lr))
