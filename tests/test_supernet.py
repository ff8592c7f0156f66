from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.architecture import Architecture
from pipeline.budget import Budget, cost_from_architecture
from pipeline.config import Relaxation
from pipeline.network import network_from_architecture
from pipeline.simplex import RELAXATIONS, order_penalty
from pipeline.space import EdgeSpace
from pipeline.supernet import COOLEST, EdgeSupernet

BUDGET = Budget((32, 32), macs=5_000 * 1024)


def _supernet(relaxation: Relaxation = "sparsestmax", activation: str = "relu") -> EdgeSupernet:
    torch.manual_seed(0)
    return EdgeSupernet(EdgeSpace(2, "rgb", BUDGET, activation=activation), relaxation, 0)


def _shake(supernet: EdgeSupernet) -> None:
    """Random weights everywhere, so that no slice hides behind a zero tail."""
    with torch.no_grad():
        for parameter in (*supernet.shared.parameters(), *supernet.incumbent.parameters()):
            parameter.normal_(0, 0.1)


def _other(supernet: EdgeSupernet) -> Architecture:
    """Of the space, with weights that are none of the incumbent's."""
    supernet.set_radius(0.0)
    rng = np.random.default_rng(1)
    drawn = (supernet.space.architecture(supernet.sample(rng)) for _ in range(100))
    return next(one for one in drawn if supernet._source(one) is supernet.shared)


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 12, 12, generator=generator), torch.rand(2, 3, 24, 24, generator=generator)


@pytest.mark.parametrize("incumbent", [True, False])
@pytest.mark.parametrize("activation", ["relu", "prelu"])
def test_the_cut_network_computes_what_its_weights_did(
    activation: str, incumbent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    supernet = _supernet(activation=activation)
    _shake(supernet)
    if not incumbent:
        other = _other(supernet)
        monkeypatch.setattr(supernet, "delivered", lambda: other)
    network = supernet.cut()
    lr, _ = _batch()
    with torch.no_grad():
        assert torch.equal(network(lr), supernet(lr, network.architecture))
        assert torch.equal(network(lr), supernet.incumbent(lr)) == incumbent


def test_a_finalist_begins_as_the_incumbent_where_both_have_weights() -> None:
    supernet = _supernet()
    _shake(supernet)
    own = supernet.incumbent.architecture
    first, second, third, *rest = own.cells
    assert first.residual
    wider = replace(second, ops=("conv5", second.ops[1]), widths=(second.widths[0] + 4,))
    narrower = replace(third, widths=(third.widths[0] - 4,))
    network = supernet.cut(replace(own, path=(replace(first, residual=False), wider, narrower, *rest, first)))
    torch.manual_seed(supernet.seed)
    alone = dict(network_from_architecture(network.architecture).named_parameters())
    old, new = dict(supernet.incumbent.named_parameters()), dict(network.named_parameters())
    grown, shrunk = "path.1.convs.0.branches.3", "path.2.convs.0.branches.3"
    width = second.widths[0]
    assert torch.equal(new[grown][:width], old[grown])
    assert torch.equal(new[shrunk], old[shrunk][: width - 4])
    assert torch.equal(new["tail.bias"], old["tail.bias"])
    # The rest begins as alone: what was added, and a cell without the pass-through that its weights were made for
    anew = [name for name in new if name not in old or name.startswith("path.0.")]
    assert {"path.0.convs.1.identity", "path.1.convs.0.branches.5", f"path.{len(own.path)}.convs.0.branches.3"} <= {
        *anew
    }
    assert all(torch.equal(new[name], alone[name]) for name in anew)
    assert torch.equal(new[grown][width:], alone[grown][width:])


def test_cutting_copies() -> None:
    supernet = _supernet()
    _shake(supernet)
    for architecture in (supernet.incumbent.architecture, _other(supernet)):
        network = supernet.cut(architecture)
        before = network.get_parameter("tail.branches.3").clone()
        _shake(supernet)
        assert torch.equal(network.get_parameter("tail.branches.3"), before)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_without_evidence_the_incumbent_is_delivered(relaxation: Relaxation) -> None:
    supernet = _supernet(relaxation)
    for fraction in (0.0, 1.0):
        supernet.set_radius(fraction)
        assert supernet.delivered() == supernet.incumbent.architecture


def test_what_the_incumbent_holds_is_cut_out_of_it() -> None:
    supernet = _supernet()
    own = supernet.incumbent.architecture
    fewer = replace(own, path=own.path[:-1])
    without = replace(own, path=(replace(own.cells[0], residual=False), *own.path[1:]))
    assert supernet._source(own) is supernet._source(fewer) is supernet.incumbent
    assert supernet._source(without) is supernet.shared


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_every_draw_is_within_the_budget(relaxation: Relaxation) -> None:
    supernet = _supernet(relaxation)
    rng = np.random.default_rng(0)
    for fraction in (0.0, 0.5, 1.0):
        supernet.set_radius(fraction)
        for _ in range(5):
            architecture = supernet.space.architecture(supernet.sample(rng))
            assert 0.9 <= BUDGET.share(cost_from_architecture(architecture, BUDGET.lr_size)) <= 1.0


@pytest.mark.parametrize("relaxation", ["sparsestmax", "sorted"])
def test_a_full_radius_leaves_one_network(relaxation: Relaxation) -> None:
    supernet = _supernet(relaxation)
    assert not supernet.is_discrete()
    supernet.set_radius(1.0)
    assert supernet.is_discrete()
    assert supernet.candidates() == 1
    rng = np.random.default_rng(0)
    drawn = {supernet.space.architecture(supernet.sample(rng)) for _ in range(20)}
    assert drawn == {supernet.delivered()}
    lr, _ = _batch()
    assert len(supernet.outputs(lr)) == 1


def test_softmax_does_not_become_one_network() -> None:
    supernet = _supernet("softmax")
    supernet.set_radius(1.0)
    assert not supernet.is_discrete()


def test_gumbel_closes_by_its_temperature_and_its_draws_alone_are_random() -> None:
    soft, gumbel = _supernet("softmax"), _supernet("gumbel")
    for one, other in zip(soft.weights, gumbel.weights, strict=True):
        np.testing.assert_allclose(one, other)
    gumbel.set_radius(0.5)
    for logit, weight in zip(gumbel.logits, gumbel.weights, strict=True):
        assert weight.argmax() == logit.argmax()
        powers = np.exp(2 * (logit - logit.max()))
        np.testing.assert_allclose(weight, powers / powers.sum())
    soft.set_radius(1.0)
    gumbel.set_radius(1.0)
    for one, other in zip(soft.logits, gumbel.weights, strict=True):
        powers = np.exp((one - one.max()) / COOLEST)
        np.testing.assert_allclose(other, powers / powers.sum())
    gumbel.set_radius(0.5)
    rng = np.random.default_rng(0)
    assert len({gumbel.sample(rng) for _ in range(8)}) > 1


def test_evidence_moves_the_distribution_to_the_better_option() -> None:
    supernet = _supernet()
    space, rng = supernet.space, np.random.default_rng(0)
    residual = next(at for at, variable in enumerate(space.variables) if variable.name == "residual")
    for _ in range(300):
        first, second = supernet.sample(rng), supernet.sample(rng)
        # A cell without, index 0, is against the head start; it is made to be 2 % better here.
        supernet._note(first, second, 0.02 * (first[residual] - second[residual]) + 0.01 * rng.standard_normal())
    supernet.set_radius(0.3)
    assert supernet.weights[residual][0] > 0.9
    assert not supernet.delivered().cells[0].residual


def test_sorted_ranks_deeper_shapes_of_a_width_lower_than_sparsestmax_does() -> None:
    plain, ordered = _supernet("sparsestmax"), _supernet("sorted")
    lowered = ordered.logits[0] - plain.logits[0]
    shapes = plain.space.shapes
    width = max({w for w, _ in shapes}, key=[w for w, _ in shapes].count)
    path = [at for at, shape in enumerate(shapes) if shape[0] == width]
    assert lowered[path[0]] > 0 > lowered[path[-1]]


def test_order_gradient_is_that_of_the_penalty() -> None:
    supernet = _supernet("sorted")
    shapes = supernet.space.shapes
    paths = [[at for at, shape in enumerate(shapes) if shape[0] == width] for width in {width for width, _ in shapes}]
    logits = torch.zeros(len(shapes), dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(order_penalty(logits, paths), logits)
    np.testing.assert_array_equal(supernet._order_gradient, expected.numpy())


def test_a_step_trains_the_slice_that_was_drawn_and_repeats_exactly() -> None:
    lr, hr = _batch()
    gradients = []
    for _ in range(2):
        supernet = _supernet()
        loss = supernet.loss(lr, hr, 0, lambda sr: (sr - hr).abs().mean())
        loss.backward()  # type: ignore[no-untyped-call]
        assert supernet.incumbent.get_parameter("tail.bias").grad is not None
        gradients.append(supernet.shared.get_parameter("tail.bias").grad)
        assert supernet.noise[1] <= 1
    first, second = gradients
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)


def test_evidence_survives_a_checkpoint() -> None:
    supernet, other = _supernet(), _supernet()
    lr, hr = _batch()
    for step in range(0, 20, 2):
        supernet.loss(lr, hr, step, lambda sr: sr.mean())
    assert supernet.noise[1] > 0
    other.load_state_dict(supernet.state_dict())
    supernet.set_radius(0.5)
    other.set_radius(0.5)
    assert all(np.array_equal(one, two) for one, two in zip(supernet.weights, other.weights, strict=True))


def test_patches_of_one_colour_are_no_evidence() -> None:
    supernet = _supernet()
    lr, hr = torch.full((2, 3, 12, 12), 0.5), torch.full((2, 3, 24, 24), 0.5)
    supernet.loss(lr, hr, 0, lambda sr: (sr - hr).abs().mean())
    assert not supernet.gram.any()


def test_evidence_is_not_rounded_to_bf16() -> None:
    supernet = _supernet()
    _shake(supernet)
    lr, hr = _batch()
    genes = supernet.sample(np.random.default_rng(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        error = supernet._error(genes, lr, hr)
    assert float(torch.tensor(error).bfloat16()) != error
