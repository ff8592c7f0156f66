"""What a mixture over the `trilevel` space is expected to cost, differentiable."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.trilevel_space import TrilevelSpace


class Mixture(NamedTuple):
    """Weights of all candidates.

    nodes: (deliverable nodes). ops: (cells, positions, ops). widths: (cells, positions - 1, widths).
    """

    nodes: Tensor
    ops: Tensor
    widths: Tensor


def boundary_pairs(space: TrilevelSpace, widths: Tensor) -> Tensor:
    """Probability (cells, positions, bounds, bounds) of each pair of widths before and after a position.

    widths: (cells, positions - 1, widths), normalised here. The ends of a cell have the trunk's width for certain.
    """
    cells, candidates = len(space.cells), len(space.widths)
    ends = widths.new_zeros(cells, 1, candidates + 1)
    ends[..., candidates] = 1.0
    inner = torch.nn.functional.pad(_normalised(widths), (0, 1))
    bounds = torch.cat([ends, inner, ends], 1)
    return bounds[:, :-1, :, None] * bounds[:, 1:, None, :]


def agreement(space: TrilevelSpace, widths: Tensor) -> Tensor:
    """Probability (cells, positions) that the widths before and after a position are the same."""
    bounds = torch.tensor(space.bounds, device=widths.device)
    return (boundary_pairs(space, widths) * (bounds[:, None] == bounds)).sum((-1, -2))


class ExpectedCost(nn.Module):
    """Closed formula of the cost of a network drawn from a mixture, each variable by itself, at one LR size.

    The cost is a product of at most one factor per variable, and so is its expectation. Its tables are integers, which
    a change of the module's precision leaves alone; results are float64.
    """

    def __init__(self, space: TrilevelSpace, lr_size: tuple[int, int]) -> None:
        super().__init__()
        self.space = space
        skeletons = [space.skeleton_cost(node, lr_size) for node in space.deliverable]
        pixels = [lr_size[0] * lr_size[1] * space.magnification(node) for node in space.cells]
        on_path = [[cell in space.lineage(node) for cell in space.cells] for node in space.deliverable]
        self.register_buffer("op_table", torch.tensor(space.op_table()), persistent=False)
        self.register_buffer("pixels", torch.tensor(pixels), persistent=False)
        self.register_buffer("on_path", torch.tensor(on_path), persistent=False)
        self.register_buffer("skeleton_macs", torch.tensor([cost.macs for cost in skeletons]), persistent=False)
        self.register_buffer("skeleton_params", torch.tensor([cost.params for cost in skeletons]), persistent=False)

    def forward(self, mixture: Mixture) -> tuple[Tensor, Tensor]:
        """Expected MACs and params, 0-dimensional."""
        nodes, ops, widths = (part.double() for part in mixture)
        pairs = boundary_pairs(self.space, widths)
        of_ops = (pairs[:, :, None] * self.get_buffer("op_table")).sum((-1, -2))
        of_cells = (_normalised(ops) * of_ops).sum((-1, -2))
        on_path, nodes = self.get_buffer("on_path"), _normalised(nodes)
        macs = self.get_buffer("skeleton_macs") + (on_path * (of_cells * self.get_buffer("pixels"))).sum(-1)
        params = self.get_buffer("skeleton_params") + (on_path * of_cells).sum(-1)
        return (nodes * macs).sum(), (nodes * params).sum()


def _normalised(weights: Tensor) -> Tensor:
    """Weights that add up to 1, which those of the sigmoid relaxation do not."""
    return weights / weights.sum(-1, keepdim=True)
