import pytest
import torch
from torch import nn

from pipeline.blocks import PReLU


@pytest.mark.parametrize("training", [True, False])
def test_slopes_are_those_of_pytorch(training: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 6, 7, generator=generator)
    slopes = torch.tensor([0.1, 0.0, -0.5, 1.0, 2.0])
    wanted: tuple[torch.Tensor, ...] = ()
    for activation in (nn.PReLU(5), PReLU(5)):
        activation.train(training)
        with torch.no_grad():
            activation.weight.copy_(slopes)
        inputs = features.clone().requires_grad_()
        output = activation(inputs)
        (output * features.cos()).sum().backward()
        assert inputs.grad is not None
        assert activation.weight.grad is not None
        found = (output.detach(), inputs.grad, activation.weight.grad)
        for one, other in zip(found, wanted, strict=False):
            torch.testing.assert_close(one, other)
        wanted = found
