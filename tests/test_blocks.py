import pytest
import torch
from torch import nn

from pipeline.blocks import ACON, PReLU


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


def test_acon_is_a_leaky_relu_with_a_round_bend() -> None:
    features = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    far = features.sign() * (features.abs() + 5)
    with torch.no_grad():
        acon = ACON(0.1)
        torch.testing.assert_close(acon(features), features * (0.1 + 0.9 * torch.sigmoid(4 * features)))
        torch.testing.assert_close(acon(far), torch.where(far > 0, far, 0.1 * far), rtol=0, atol=1e-4)
