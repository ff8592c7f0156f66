import pytest
import torch
from torch import nn

from pipeline.optimizer import SPIKE, limit_gradients, optimizer_from_groups, rate_at


def stepped(gradients: list[float], steps: int = 50) -> tuple[list[nn.Parameter], torch.optim.AdamW]:
    """Parameters of 10 weights each, after steps with these gradients."""
    parameters = [nn.Parameter(torch.zeros(10)) for _ in gradients]
    optimizer = optimizer_from_groups([{"params": parameters, "factor": 1.0}])
    for _ in range(steps):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.full_like(parameter, gradient)
        limit_gradients(optimizer)
        optimizer.step()
    return parameters, optimizer


def test_usual_gradients_are_left_as_they_are() -> None:
    parameters, optimizer = stepped([1.0, 1e-3])
    for parameter, gradient in zip(parameters, (3.3, 1.1e-3), strict=True):
        parameter.grad = torch.full_like(parameter, gradient)
    assert limit_gradients(optimizer) == pytest.approx(((3.3**2 + 1.1**2) / 2) ** 0.5, rel=0.02)
    assert all(
        torch.equal(parameter.grad, torch.full_like(parameter, gradient))  # type: ignore[arg-type]
        for parameter, gradient in zip(parameters, (3.3, 1.1e-3), strict=True)
    )


def test_a_spike_in_small_gradients_scales_all_of_them_down() -> None:
    """The norm of all gradients grows by a tenth; the small ones are a thousand times what they were."""
    parameters, optimizer = stepped([10.0, 1e-3])
    for parameter, gradient in zip(parameters, (10.0, 1.0), strict=True):
        parameter.grad = torch.full_like(parameter, gradient)
    size = float(limit_gradients(optimizer))
    assert size == pytest.approx(1000 / 2**0.5, rel=0.02)
    assert [float(parameter.grad[0]) for parameter in parameters] == pytest.approx([10 * SPIKE / size, SPIKE / size])  # type: ignore[index]
    assert float(limit_gradients(optimizer)) == pytest.approx(SPIKE)


def test_weights_without_gradients_before_are_held_to_those_of_their_tensor() -> None:
    """A supernet trains slices: one that comes to its turn for the first time is no spike."""
    (parameter,), optimizer = stepped([1.0])
    optimizer.state[parameter]["exp_avg_sq"][:1] = 0.0
    parameter.grad = torch.ones(10)
    assert float(limit_gradients(optimizer)) < SPIKE
    parameter.grad = None
    assert limit_gradients(optimizer) == 1.0
    new = nn.Parameter(torch.zeros(3))
    new.grad = torch.ones(3)
    assert limit_gradients(optimizer_from_groups([{"params": [new]}])) == 1.0


def test_rate_rises_at_the_start_of_each_phase_and_falls_to_zero() -> None:
    rates = [rate_at(step, 1000, 1.0) for step in range(1000)]
    assert max(rates) == rates[99] > 0.97
    assert rates[0] == pytest.approx(0.01)
    assert rates[-1] < 1e-5
    assert rate_at(600, 1000, 1.0, begun=600) < 0.01 * rates[600] * 1.01
