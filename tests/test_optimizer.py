import pytest
import torch
from torch import nn

from pipeline.architecture import Architecture, Cell
from pipeline.network import network_from_architecture
from pipeline.optimizer import SPIKE, WARM_UP, limit_gradients, optimizer_from_groups, rate_at, rate_factor


def stepped(gradients: list[float], steps: int = WARM_UP) -> tuple[list[nn.Parameter], torch.optim.AdamW]:
    """Parameters of 10 weights each, after steps with these gradients."""
    parameters = [nn.Parameter(torch.zeros(10)) for _ in gradients]
    optimizer = optimizer_from_groups([{"params": parameters, "factor": 1.0}])
    for _ in range(steps):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.full_like(parameter, gradient)
        limit_gradients(optimizer)
        optimizer.step()
    return parameters, optimizer


def test_wide_networks_have_less_of_the_rate() -> None:
    cells = (Cell(("conv3", "conv3"), (8,)),)
    factors = {width: rate_factor(Architecture("edge", 2, "rgb", width, cells)) for width in (8, 16, 17, 64)}
    assert factors == {8: 1.0, 16: 1.0, 17: 0.75, 64: 0.75}
    assert rate_factor(Architecture("trilevel", 4, "rgb", 64, cells, shuffle=4)) == 1.0


def test_usual_gradients_are_left_as_they_are() -> None:
    parameters, optimizer = stepped([1.0, 1e-3])
    for parameter, gradient in zip(parameters, (3.3, 1.1e-3), strict=True):
        parameter.grad = torch.full_like(parameter, gradient)
    assert limit_gradients(optimizer) == pytest.approx(((3.3**2 + 1.1**2) / 2) ** 0.5, rel=0.02)
    assert all(
        torch.equal(parameter.grad, torch.full_like(parameter, gradient))  # type: ignore[arg-type]
        for parameter, gradient in zip(parameters, (3.3, 1.1e-3), strict=True)
    )


def test_a_spike_in_small_gradients_is_held_to_what_is_usual_for_them() -> None:
    """The norm of all gradients grows by a tenth; the small ones are a thousand times what they were."""
    parameters, optimizer = stepped([10.0, 1e-3])
    for parameter, gradient in zip(parameters, (10.0, 1.0), strict=True):
        parameter.grad = torch.full_like(parameter, gradient)
    assert float(limit_gradients(optimizer)) == pytest.approx(1000 / 2**0.5, rel=0.02)
    assert [float(parameter.grad[0]) for parameter in parameters] == pytest.approx([10, SPIKE * 1e-3], rel=0.02)  # type: ignore[index]
    assert float(limit_gradients(optimizer)) < SPIKE


def test_each_weight_is_held_to_its_own_usual_size() -> None:
    """Whatever the sizes of tensors are, and in whichever order their elements lie in memory."""
    shapes = ((7,), (4, 3, 2, 2), (5,))
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    parameters[1].data = parameters[1].data.contiguous(memory_format=torch.channels_last)
    usual = [torch.linspace(1, 9, len(one.flatten())).view_as(one) * 10.0**-at for at, one in enumerate(parameters)]
    optimizer = optimizer_from_groups([{"params": parameters, "factor": 1.0}])
    for times in [1.0] * WARM_UP + [100.0]:
        for parameter, gradient in zip(parameters, usual, strict=True):
            # Gradients of weights in channels_last may lie as in contiguous ones
            parameter.grad = times * gradient
        size = limit_gradients(optimizer)
        optimizer.step()
    assert float(size) == pytest.approx(100, rel=0.02)
    for parameter, gradient in zip(parameters, usual, strict=True):
        torch.testing.assert_close(parameter.grad, SPIKE * gradient, rtol=0.05, atol=0)


def test_gradients_grow_as_they_like_while_none_are_usual() -> None:
    """What is before a tail that starts at zero has no gradients to speak of until that has left zero."""
    (parameter,), optimizer = stepped([1e-12], WARM_UP - 1)
    parameter.grad = torch.ones(10)
    assert float(limit_gradients(optimizer)) == 0.0
    assert torch.equal(parameter.grad, torch.ones(10))


@pytest.mark.parametrize("unknown", [slice(0, 1), slice(0, 10)])
def test_weights_without_gradients_before_are_no_spike(unknown: slice) -> None:
    """A supernet trains slices: one that comes to its turn for the first time."""
    (parameter,), optimizer = stepped([1.0])
    optimizer.state[parameter]["exp_avg_sq"][unknown] = 0.0
    parameter.grad = torch.ones(10)
    assert float(limit_gradients(optimizer)) < SPIKE
    assert torch.equal(parameter.grad, torch.ones(10))


def test_what_is_not_trained_yet_has_no_size() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = optimizer_from_groups([{"params": [parameter]}])
    assert limit_gradients(optimizer) == 1.0
    parameter.grad = torch.ones(3)
    assert limit_gradients(optimizer) == 1.0


def test_a_network_begins_as_without_a_limit() -> None:
    """Its tail starts at zero, so nothing before it has gradients in the first step."""
    torch.manual_seed(0)
    network = network_from_architecture(Architecture("edge", 2, "rgb", 8, (Cell(("conv3", "conv3"), (8,)),)))
    optimizer = optimizer_from_groups([{"params": [*network.parameters()]}])
    for _ in range(5):
        optimizer.zero_grad()
        network(torch.rand(1, 3, 8, 8)).square().mean().backward()
        before = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
        limit_gradients(optimizer)
        after = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        assert all(map(torch.equal, before, after))
        optimizer.step()


def test_rate_rises_at_the_start_of_each_phase_and_falls_to_zero() -> None:
    rates = [rate_at(step, 1000, 1.0) for step in range(1000)]
    assert max(rates) == rates[99] > 0.97
    assert rates[0] == pytest.approx(0.01)
    assert rates[-1] < 1e-5
    assert rate_at(600, 1000, 1.0, begun=600) < 0.01 * rates[600] * 1.01
