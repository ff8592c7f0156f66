import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.budget import cost_from_architecture
from pipeline.trilevel_cost import ExpectedCost, Mixture, agreement
from pipeline.trilevel_space import Choice, TrilevelSpace

LR = (6, 5)


def tiny(variant: Any, positions: int = 2) -> TrilevelSpace:
    return TrilevelSpace(scale=2, variant=variant, trunk=8, widths=(4, 8), positions=positions, max_cells=2, max_ups=1)


def random_mixture(space: TrilevelSpace, dtype: torch.dtype = torch.float64) -> Mixture:
    generator = torch.Generator().manual_seed(0)

    def weights(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype).softmax(-1)

    cells = len(space.cells)
    return Mixture(
        weights(len(space.deliverable)),
        weights(cells, space.positions, 4),
        weights(cells, space.positions - 1, len(space.widths)),
    )


@pytest.mark.parametrize("variant", ["a", "b"])
def test_expectation_is_the_mean_over_all_networks(variant: Any) -> None:
    space = tiny(variant)
    mixture = random_mixture(space)
    macs = params = total = 0.0
    for place, node in enumerate(space.deliverable):
        cells = [space.cells.index(step) for step in space.lineage(node) if step in space.cells]
        options = list(itertools.product(range(4), range(4), range(2)))
        for picks in itertools.product(options, repeat=len(cells)):
            probability = float(mixture.nodes[place])
            for cell, (first, second, width) in zip(cells, picks, strict=True):
                probability *= float(mixture.ops[cell, 0, first] * mixture.ops[cell, 1, second])
                probability *= float(mixture.widths[cell, 0, width])
            choice = Choice(node, tuple(pick[:2] for pick in picks), tuple(pick[2:] for pick in picks))
            cost = cost_from_architecture(space.architecture(choice), LR)
            macs += probability * cost.macs
            params += probability * cost.params
            total += probability
    expected = ExpectedCost(space, LR)(mixture)
    assert total == pytest.approx(1.0)
    assert [float(part) for part in expected] == pytest.approx([macs, params], rel=1e-12)


def test_expectation_is_differentiable_and_keeps_float64() -> None:
    space = tiny("b", positions=3)
    cost = ExpectedCost(space, LR).float()
    mixture = random_mixture(space)
    for part in mixture:
        part.requires_grad_()
    assert torch.autograd.gradcheck(lambda *parts: sum(cost(Mixture(*parts))), tuple(mixture), atol=1e-2)
    macs, params = cost(Mixture(*(part.float() for part in mixture)))
    assert macs.dtype is params.dtype is torch.float64


def test_expectation_under_autocast_is_not_rounded() -> None:
    space = TrilevelSpace()
    cost, mixture = ExpectedCost(space, (256, 256)), random_mixture(space, torch.float32)
    macs, params = cost(mixture)
    with torch.autocast("cpu", torch.bfloat16):
        assert [float(part) for part in cost(mixture)] == [float(macs), float(params)]


def test_expectation_takes_weights_that_do_not_add_up() -> None:
    space = tiny("a")
    mixture = random_mixture(space)
    scaled = Mixture(0.3 * mixture.nodes, 2.0 * mixture.ops, 0.7 * mixture.widths)
    cost = ExpectedCost(space, LR)
    assert [float(part) for part in cost(scaled)] == pytest.approx([float(part) for part in cost(mixture)])


def test_agreement_is_the_probability_of_equal_widths() -> None:
    space = tiny("b", positions=3)
    widths = random_mixture(space).widths
    agree = agreement(space, widths)
    assert agree.shape == (len(space.cells), 3)
    # The trunk has 8 channels, as the second candidate has.
    torch.testing.assert_close(agree[:, 0], widths[:, 0, 1])
    torch.testing.assert_close(agree[:, 1], (widths[:, 0] * widths[:, 1]).sum(-1))
    torch.testing.assert_close(agree[:, 2], widths[:, 1, 1])
    assert torch.equal(
        agreement(tiny("b", positions=1), random_mixture(tiny("b", positions=1)).widths), torch.ones(3, 1)
    )
