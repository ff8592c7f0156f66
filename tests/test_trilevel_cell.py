import pytest
import torch
from torch import Tensor, nn

from pipeline.architecture import TRILEVEL_OPS, Cell
from pipeline.blocks import trilevel_op
from pipeline.network import TrilevelCell
from pipeline.trilevel_cell import MixedCell, MixedOps, Widths
from pipeline.trilevel_space import TrilevelSpace

SPACE = TrilevelSpace(scale=2, trunk=8, widths=(4, 6, 8), positions=3)


def one_hot(index: int, size: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(index), size).double()


def features(channels: int) -> Tensor:
    return torch.randn(2, channels, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(channels))


def discrete_op(mixed: MixedOps, op: str, inputs: int, outputs: int) -> nn.Module:
    """A discrete operation that holds the leading slices of the superkernel."""
    narrow = trilevel_op(op, inputs, outputs).double()
    wide = dict(mixed.choices[TRILEVEL_OPS.index(op)].named_parameters())
    with torch.no_grad():
        for name, parameter in narrow.named_parameters():
            parameter.copy_(wide[name][tuple(slice(size) for size in parameter.shape)])
    return narrow


@pytest.mark.parametrize("op", TRILEVEL_OPS)
@pytest.mark.parametrize(("inputs", "outputs"), [(4, 4), (4, 8), (8, 4), (8, 8)])
def test_one_live_candidate_is_the_discrete_op(op: str, inputs: int, outputs: int) -> None:
    mixed = MixedOps(8, 8, always_agree=False).double()
    agree = torch.tensor(float(inputs == outputs)).double()
    widths = Widths(torch.ones(inputs).double(), torch.ones(outputs).double(), agree)
    out = mixed(features(inputs), one_hot(TRILEVEL_OPS.index(op), 4), widths)
    torch.testing.assert_close(out, discrete_op(mixed, op, inputs, outputs)(features(inputs)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("op", ["conv1", "conv3", "dws"])
def test_widths_are_mixed_as_the_sum_of_their_weighed_outputs(op: str) -> None:
    # The trunk enters with 10 channels, a width no candidate has, so that every skip is a 1x1 convolution.
    mixed = MixedOps(10, 8, always_agree=False).double()
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    expected = torch.zeros(2, 8, 5, 6, dtype=torch.float64)
    leaving = torch.zeros(8, dtype=torch.float64)
    for width, weight in zip(SPACE.widths, weights, strict=True):
        expected[:, :width] += weight * discrete_op(mixed, op, 10, width)(features(10))
        leaving[:width] += weight
    widths = Widths(torch.ones(10).double(), leaving, torch.tensor(0.0).double())
    out = mixed(features(10), one_hot(TRILEVEL_OPS.index(op), 4), widths)
    torch.testing.assert_close(out, expected)


def test_ops_are_mixed_as_the_sum_of_their_weighed_outputs() -> None:
    mixed = MixedOps(8, 6, always_agree=False).double()
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    widths = Widths(torch.ones(8).double(), torch.ones(6).double(), torch.tensor(0.0).double())
    expected = sum(
        weight * discrete_op(mixed, op, 8, 6)(features(8)) for op, weight in zip(TRILEVEL_OPS, weights, strict=True)
    )
    torch.testing.assert_close(mixed(features(8), weights, widths), expected)


@pytest.mark.parametrize("op", ["residual", "dws"])
def test_skips_are_mixed_by_the_probability_that_widths_agree(op: str) -> None:
    mixed = MixedOps(8, 8, always_agree=False).double()
    gate = one_hot(TRILEVEL_OPS.index(op), 4)
    ends = torch.ones(8).double()

    with torch.no_grad():
        for name, parameter in mixed.named_parameters():
            if ".skip" not in name:
                parameter.zero_()
        skips = {
            agree: mixed(features(8).abs(), gate, Widths(ends, ends, torch.tensor(agree).double()))
            for agree in (0.0, 0.25, 1.0)
        }
        choice = mixed.choices[TRILEVEL_OPS.index(op)]
        kernel = choice.get_submodule("skip")(features(8).abs())
    assert torch.equal(skips[1.0], features(8).abs())
    torch.testing.assert_close(skips[0.0], kernel.relu())
    torch.testing.assert_close(skips[0.25], (0.25 * features(8).abs() + 0.75 * kernel).relu())


def random_mixture(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def test_what_has_no_weight_is_not_computed() -> None:
    cell = MixedCell(SPACE).double()
    ops, widths = random_mixture(3, 4), random_mixture(2, 3)
    ops[0, 3] = ops[1, 2] = 0.0
    widths[0, 2] = widths[1, 1] = widths[1, 2] = 0.0
    agree = torch.full((3,), 0.5, dtype=torch.float64)
    before = cell(features(8), ops, widths, agree)
    with torch.no_grad():
        first, second, third = (position.get_submodule("choices") for position in cell.positions)
        dead = [first.get_submodule("3"), second.get_submodule("2")]
        for op in dead:
            for parameter in op.parameters():
                parameter.fill_(torch.nan)
        # Six channels are live at the first inner boundary, and four at the second.
        first.get_submodule("1").get_parameter("conv.weight")[6:] = torch.nan
        second.get_submodule("1").get_parameter("conv.weight")[:, 6:] = torch.nan
        second.get_submodule("3").get_parameter("depthwise.weight")[24:] = torch.nan
        third.get_submodule("1").get_parameter("conv.weight")[:, 4:] = torch.nan
        third.get_submodule("3").get_parameter("expand.weight")[16:] = torch.nan
    assert torch.equal(cell(features(8), ops, widths, agree), before)


def test_weights_get_a_gradient_through_the_widths() -> None:
    cell = MixedCell(TrilevelSpace(scale=2, trunk=4, widths=(2, 4), positions=2)).double()
    mixture = random_mixture(2, 4), random_mixture(1, 2), torch.full((2,), 0.5, dtype=torch.float64)
    for part in mixture:
        part.requires_grad_()
    lr = features(4)[:1, :, :2, :2]
    assert torch.autograd.gradcheck(lambda *parts: cell(lr, *parts).sum(), mixture)


def test_cell_copies_its_slices_out() -> None:
    cell = MixedCell(SPACE)
    names = ("dws", "residual", "conv3")
    target = TrilevelCell(Cell(names, (4, 6)), 8)
    cell.copy_slices_to(list(target.ops), names)
    first = cell.positions[0].get_submodule("choices.3")
    assert torch.equal(target.get_parameter("ops.0.project.weight"), first.get_parameter("project.weight")[:4])
    ops = torch.stack([one_hot(TRILEVEL_OPS.index(name), 4) for name in names]).float()
    widths = torch.stack([one_hot(0, 3), one_hot(1, 3)]).float()
    out = cell(features(8).float(), ops, widths, torch.zeros(3))
    torch.testing.assert_close(out, target(features(8).float()), rtol=0, atol=1e-5)


def test_features_stay_in_the_precision_of_autocast() -> None:
    cell = MixedCell(SPACE)
    seen: list[torch.dtype] = []
    for position in cell.positions:
        position.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        for agree in (0.5, 1.0):
            ops, widths = random_mixture(3, 4).float(), random_mixture(2, 3).float()
            if agree == 1.0:
                widths = one_hot(2, 3).expand(2, 3).float()
            out = cell(features(8).bfloat16(), ops, widths, torch.full((3,), agree))
            assert out.dtype is torch.bfloat16
    assert seen == [torch.bfloat16] * 6
