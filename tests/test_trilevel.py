from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pipeline.architecture import TRILEVEL_OPS, Architecture
from pipeline.budget import Budget, Cost, cost_from_architecture
from pipeline.config import Relaxation
from pipeline.errors import InfeasibleBudget
from pipeline.fold import plain_from_network
from pipeline.network import fvcore_cost, network_from_architecture
from pipeline.simplex import RELAXATIONS
from pipeline.trilevel import TrilevelSupernet
from pipeline.trilevel_space import TrilevelSpace
from tests.bench.published import PUBLISHED, published

LR = (256, 256)


def set_logits(supernet: TrilevelSupernet, architecture: Architecture) -> None:
    """Make every logit 0 but those of `architecture`, which become 1."""
    space = supernet.space
    node = space.nodes.index("".join("u" if step == "up" else "c" for step in architecture.path))
    cells = [space.cells.index(step) for step in space.lineage(node) if step in space.cells]
    with torch.no_grad():
        for logits in supernet.architecture_parameters():
            logits.zero_()
        supernet.node_logits[space.deliverable.index(node)] = 1.0
        for cell, part in zip(cells, architecture.cells, strict=True):
            for position, op in enumerate(part.ops):
                supernet.op_logits[cell, position, TRILEVEL_OPS.index(op)] = 1.0
            for boundary, width in enumerate(part.widths):
                supernet.width_logits[cell, boundary, space.widths.index(width)] = 1.0


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_cost_what_was_published(name: str) -> None:
    architecture = published(name)
    cost = cost_from_architecture(architecture, LR)
    *_, params, macs = PUBLISHED[name]
    assert f"{cost.params / 1e3:.1f}" == f"{params:.1f}"
    assert f"{cost.macs / 1e9:.1f}" == f"{macs:.1f}"
    # Every layer's MACs are proportional to the LR pixels: a traced frame of 32x32 tells those of 256x256.
    counted = fvcore_cost(plain_from_network(network_from_architecture(architecture)), (32, 32))
    assert Cost(64 * counted.macs, counted.params) == cost


@pytest.fixture(scope="module")
def full_supernet() -> Callable[[Any], TrilevelSupernet]:
    """The supernet over the whole space of a variant, built once."""

    @cache
    def build(variant: Any) -> TrilevelSupernet:
        torch.manual_seed(0)
        return TrilevelSupernet(TrilevelSpace(variant=variant), Budget(LR))

    return build


@pytest.mark.parametrize("name", PUBLISHED)
def test_supernet_delivers_each_published_network(full_supernet: Callable[[Any], TrilevelSupernet], name: str) -> None:
    supernet, architecture = full_supernet(name[0].lower()), published(name)
    cost = cost_from_architecture(architecture, LR)
    supernet.budget = Budget(LR, macs=int(1.03 * cost.macs), params=int(1.03 * cost.params))
    supernet.set_radius(0.0)
    set_logits(supernet, architecture)
    supernet.set_radius(1.0)
    assert supernet.delivered() == architecture
    assert supernet.is_discrete()
    assert [part.item() for part in supernet.expected_cost()] == [cost.macs, cost.params]

    network = supernet.cut()
    lr = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert network.architecture == architecture
        torch.testing.assert_close(network(lr), supernet(lr), rtol=0, atol=1e-5)


def tiny(variant: Any = "b", relaxation: Relaxation = "sorted", seed: int = 0, **fields: Any) -> TrilevelSupernet:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"trunk": 8, "widths": (4, 8), "positions": 2, "max_cells": 2, "max_ups": 1} | fields
    budget = Budget((16, 16), macs=2_500_000 if variant == "a" else 1_200_000)
    return TrilevelSupernet(TrilevelSpace(scale=2, variant=variant, **shape), budget, relaxation)


def scatter_logits(supernet: TrilevelSupernet, seed: int, scale: float = 0.5) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for logits in supernet.architecture_parameters():
            logits.copy_(scale * torch.randn(logits.shape, generator=generator))


@pytest.fixture
def lr() -> Tensor:
    return torch.rand(2, 3, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("variant", "fields"),
    [
        ("a", {}),
        ("b", {}),
        ("b", {"positions": 1}),
        ("b", {"widths": (4, 12), "positions": 3}),
        ("b", {"widths": (6,), "max_ups": 0, "positions": 4}),
    ],
)
def test_cut_is_the_supernet_once_it_is_discrete(variant: Any, fields: dict[str, Any], seed: int, lr: Tensor) -> None:
    supernet = tiny(variant, **fields).double()
    scatter_logits(supernet, seed)
    supernet.set_radius(1.0)
    assert supernet.is_discrete()
    network = supernet.cut()
    with torch.no_grad():
        torch.testing.assert_close(network(lr), supernet(lr), rtol=0, atol=1e-12)
    cost = cost_from_architecture(network.architecture, supernet.budget.lr_size)
    assert [part.item() for part in supernet.expected_cost()] == [cost.macs, cost.params]
    assert supernet.budget.allows(cost)


def test_cut_copies_its_weights(lr: Tensor) -> None:
    supernet = tiny().double()
    supernet.set_radius(1.0)
    before = supernet(lr)
    network = supernet.cut()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.equal(supernet(lr), before)


@pytest.mark.parametrize("variant", ["a", "b"])
def test_output_is_the_tail_of_the_mixed_nodes(variant: Any, lr: Tensor) -> None:
    supernet = tiny(variant).double()
    scatter_logits(supernet, 0, scale=0.05)
    with torch.no_grad():
        supernet.get_parameter("tail.bias").zero_()
    mixed = supernet(lr)
    gammas = supernet.mixture().nodes
    assert (gammas > 0).all()
    outputs = []
    for place in range(len(gammas)):
        # A logit far above the others leaves its node alone, and the cells as they were.
        with torch.no_grad():
            supernet.node_logits.fill_(-100.0)
            supernet.node_logits[place] = 100.0
        outputs.append(supernet(lr))
    expected = sum(gamma * output for gamma, output in zip(gammas, outputs, strict=True))
    torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("variant", ["a", "b"])
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.7, 0.95])
def test_delivered_network_is_feasible_at_any_radius(variant: Any, fraction: float) -> None:
    for seed in range(3):
        supernet = tiny(variant)
        scatter_logits(supernet, seed)
        first = supernet.delivered()
        supernet.set_radius(fraction)
        cost = cost_from_architecture(supernet.delivered(), supernet.budget.lr_size)
        assert 0.9 <= supernet.budget.share(cost) <= 1.0
        assert supernet.delivered() != first


def test_radius_closes_on_the_feasible_network() -> None:
    supernet = tiny()
    supernet.budget = Budget((16, 16), macs=600_000)
    with torch.no_grad():
        # The largest logits stand for the dearest network, far dearer than the budget allows.
        supernet.op_logits[..., TRILEVEL_OPS.index("residual")] += 0.3
        supernet.width_logits[..., -1] += 0.3
    shares = []
    for step in range(11):
        supernet.set_radius(step / 10)
        shares.append(supernet.expected_cost()[0].item() / 600_000)
    assert shares[0] > 1.2
    assert 0.9 <= shares[-1] <= 1.0
    assert supernet.is_discrete()


def test_steps_get_cheaper_as_the_radius_grows(lr: Tensor) -> None:
    supernet = tiny(positions=3)
    assert supernet.candidates() == 5
    computed = []
    for fraction in (0.0, 0.5, 0.8, 1.0):
        supernet.set_radius(fraction)
        with FlopCounterMode(display=False) as counter:
            supernet.outputs(lr.float())
        computed.append(counter.get_total_flops())
    assert supernet.candidates() == 1
    assert computed == sorted(computed, reverse=True)
    assert computed[-1] < 0.35 * computed[0]


def test_dead_branches_are_not_computed(lr: Tensor) -> None:
    supernet = tiny().double()
    supernet.set_radius(1.0)
    before = supernet(lr)
    kept = {
        f"steps.{node}."
        for node in supernet.space.lineage(supernet.space.deliverable[int(supernet.chosen_nodes.argmax())])
    }
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if name.startswith("steps.") and not any(name.startswith(prefix) for prefix in kept):
                parameter.fill_(torch.nan)
    assert torch.equal(supernet(lr), before)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_every_relaxation_trains_weights_and_logits(relaxation: Relaxation, lr: Tensor) -> None:
    supernet = tiny(relaxation=relaxation).double()
    scatter_logits(supernet, 1, scale=0.01)
    supernet.set_radius(0.1)
    supernet.loss(lr, lr, 0, lambda sr: sr.square().mean()).backward()  # type: ignore[no-untyped-call]
    for parameter in supernet.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    for logits in supernet.architecture_parameters():
        assert logits.grad is not None
        assert logits.grad.abs().sum() > 0


def test_gumbel_noise_depends_on_seed_and_step_alone(lr: Tensor) -> None:
    supernet, same, other = (tiny(relaxation="gumbel", seed=seed).double() for seed in (0, 0, 1))
    other.load_state_dict(supernet.state_dict() | {"seed": other.seed})

    def loss(net: TrilevelSupernet, step: int) -> float:
        return net.loss(lr, lr, step, Tensor.mean).item()

    assert loss(supernet, 3) == loss(supernet, 3) == loss(same, 3)
    assert loss(supernet, 3) not in (loss(supernet, 4), loss(other, 3))
    assert torch.equal(supernet(lr), other(lr))
    assert torch.equal(supernet.outputs(lr)[0], supernet(lr))


def test_only_sparse_relaxations_close() -> None:
    for relaxation in RELAXATIONS:
        supernet = tiny(relaxation=relaxation)
        supernet.set_radius(1.0)
        assert supernet.is_discrete() == (relaxation in ("sparsestmax", "sorted"))


def test_a_mixture_that_is_discrete_elsewhere_is_not_the_delivered_network() -> None:
    supernet = tiny()
    set_logits(supernet, supernet.space.cheapest())
    assert not supernet.is_discrete()


def test_penalty_turns_the_expected_cost_towards_the_budget() -> None:
    supernet = tiny(relaxation="sparsestmax")
    supernet.budget = Budget((16, 16), macs=800_000)
    conv1, residual = TRILEVEL_OPS.index("conv1"), TRILEVEL_OPS.index("residual")
    signs = []
    for op in (conv1, residual):
        with torch.no_grad():
            supernet.op_logits.fill_(0.0)[..., op] = 0.7
        (gradient,) = torch.autograd.grad(supernet.regularizer(), supernet.op_logits)
        signs.append(float((gradient[..., residual] - gradient[..., conv1]).sum()))
    too_cheap, too_dear = signs
    assert too_cheap < 0 < too_dear
    supernet.budget = Budget((16, 16))
    assert supernet.regularizer() == 0


def test_order_penalty_belongs_to_the_sorted_relaxation() -> None:
    for relaxation in ("sparsestmax", "sorted"):
        supernet = tiny(relaxation=relaxation)
        supernet.budget = Budget((16, 16))
        with torch.no_grad():
            supernet.node_logits.copy_(torch.arange(5.0))
        # Paths c-cc-ccu, and c-cu-cuc: the last logit minus the first of each.
        assert supernet.space.nodes == ("c", "cc", "cu", "ccu", "cuc")
        assert supernet.regularizer().item() == pytest.approx(7e-4 if relaxation == "sorted" else 0.0)


def test_an_impossible_budget_ends_before_any_weight_is_trained() -> None:
    with pytest.raises(InfeasibleBudget, match="the cheapest needs"):
        TrilevelSupernet(TrilevelSpace(), Budget(LR, macs=1000))


def test_autocast_keeps_bf16_features_and_float32_mixtures() -> None:
    supernet = tiny()
    seen = []
    for step in supernet.steps:
        step.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        out = supernet(torch.rand(1, 3, 8, 8))
        assert all(part.dtype is torch.float32 for part in supernet.mixture())
    assert out.dtype is torch.float32  # the image itself is not rounded
    assert set(seen) == {torch.bfloat16}


def train(supernet: TrilevelSupernet, steps: range, closed_at: int = 15) -> list[float]:
    """A plain search loop on smooth random images; returns the loss of each step."""
    optimizer = torch.optim.SGD([group | {"lr": 0.05 * group["factor"]} for group in supernet.parameter_groups()])
    losses = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        hr = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4, generator=generator), size=16, mode="bilinear")
        lr = torch.nn.functional.avg_pool2d(hr, 2)
        supernet.set_radius(min(1.0, step / closed_at))
        loss = supernet.loss(lr, hr, step, lambda sr, hr=hr: (sr - hr).abs().mean())  # type: ignore[misc]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("variant", ["a", "b"])
def test_search_ends_in_one_trained_feasible_network(variant: Any) -> None:
    supernet = tiny(variant)
    losses = train(supernet, range(20))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert supernet.is_discrete()
    cost = cost_from_architecture(supernet.delivered(), supernet.budget.lr_size)
    assert 0.9 <= supernet.budget.share(cost) <= 1.0
    lr = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(supernet.cut()(lr), supernet(lr), rtol=0, atol=1e-5)


def test_same_seed_makes_the_same_search_and_a_state_resumes_it() -> None:
    whole, again, resumed = tiny(), tiny(), tiny(seed=9)
    train(whole, range(16))
    train(again, range(8))
    resumed.load_state_dict(again.state_dict())
    assert resumed.delivered() == again.delivered()
    train(again, range(8, 16))
    train(resumed, range(8, 16))
    for other in (again, resumed):
        assert other.delivered() == whole.delivered()
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
