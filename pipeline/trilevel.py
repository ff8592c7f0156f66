"""The trainable mixture over the `trilevel` space, and the network that is cut out of it."""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.architecture import TRILEVEL_OPS, Architecture
from pipeline.blocks import unrounded
from pipeline.budget import Budget
from pipeline.config import Relaxation
from pipeline.network import Network, TrilevelCell, Up, network_from_architecture
from pipeline.simplex import circumradius, order_penalty, relax
from pipeline.trilevel_cell import MixedCell
from pipeline.trilevel_choice import FLOOR, Scores, best_choice
from pipeline.trilevel_cost import ExpectedCost, Mixture, agreement
from pipeline.trilevel_space import Choice, TrilevelSpace

# The lift ends this far above all other logits of a variable.
MARGIN = 0.01
# Equal logits would leave sparsestmax without a direction.
INITIAL_NOISE = 1e-3
# How far the radius moves before the delivered network is chosen anew.
REFRESH = 0.01
# Learning rate of the logits, as a factor of that of the weights.
LOGIT_RATE = 5.0
# Factors of the penalties, beside an L1 loss of images in [0, 1].
ORDER_WEIGHT = 1e-4
BUDGET_WEIGHT = 0.1


class TrilevelSupernet(nn.Module):
    """All networks of a space at once, mixed by one categorical variable per choice.

    Branches of the tree share no weights. The output is the tail of sum over nodes of gamma[node] * features[node].
    Whatever has weight 0 is not computed: nodes with nothing below them, operations, channels.

    The network that would be delivered now is always feasible: `best_choice` takes the logits as scores and returns
    the best choice that uses 90-100 % of `budget`. As the radius grows, the logits of that choice are lifted towards
    the largest of their variable, by the share `fraction` of what they lack. So the radius closes on the feasible
    network, and not on the largest logits, and at fraction 1 the mixture is that network. The lift also counts as
    score, so that a choice that has begun to close is left only for a clearly better one.

    Weights, the noise on the initial logits and the seed of the Gumbel noise are drawn from torch's generator. After
    that all depends on the steps alone; the state dict holds what there is to resume from.

    Raises InfeasibleBudget before it makes any weight.
    """

    choosing = 0.005  # a step takes 20 to 30 times as long as one of the network that is left

    seed: Tensor
    fraction: Tensor
    refreshed: Tensor
    chosen_nodes: Tensor
    chosen_ops: Tensor
    chosen_widths: Tensor

    def __init__(self, space: TrilevelSpace, budget: Budget, relaxation: Relaxation = "sorted") -> None:
        space.ensure_feasible(budget)
        super().__init__()
        self.space, self.budget, self.relaxation = space, budget, relaxation
        image, trunk = 3 if space.color == "rgb" else 1, space.trunk
        shuffle = 1 if space.variant == "a" else space.scale
        self.stem = nn.Conv2d(image, trunk, 3, padding=1)
        self.steps = nn.ModuleList(
            MixedCell(space) if node.endswith("c") else Up(trunk, upsamples=shuffle == 1) for node in space.nodes
        )
        self.tail = nn.Conv2d(trunk, image * shuffle**2, 3, padding=1)
        self.shuffle = shuffle

        cells, positions = len(space.cells), space.positions
        self.node_logits = _initial_logits(len(space.deliverable))
        self.op_logits = _initial_logits(cells, positions, len(TRILEVEL_OPS))
        self.width_logits = _initial_logits(cells, positions - 1, len(space.widths))
        self.register_buffer("chosen_nodes", torch.zeros_like(self.node_logits))
        self.register_buffer("chosen_ops", torch.zeros_like(self.op_logits))
        self.register_buffer("chosen_widths", torch.zeros_like(self.width_logits))
        self.register_buffer("seed", torch.randint(2**31, ()))
        self.register_buffer("fraction", torch.zeros(()))
        self.register_buffer("refreshed", torch.zeros(()))
        self.cost = ExpectedCost(space, budget.lr_size)
        self._choose()

    def forward(self, lr: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """(batch, channels, height, width) in [0, 1] to (batch, channels, scale * height, scale * width), unclamped."""
        mixture = self.mixture(noise)
        agree = agreement(self.space, mixture.widths)
        gammas = dict(zip(self.space.deliverable, mixture.nodes, strict=True))
        features: dict[int, Tensor] = {-1: self.stem(lr)}
        mixed: list[Tensor] = []
        for node in self._live_nodes(mixture):
            before, step = features[self.space.parents[node]], self.steps[node]
            if isinstance(step, MixedCell):
                cell = self.space.cells.index(node)
                features[node] = step(before, mixture.ops[cell], mixture.widths[cell], agree[cell])
            else:
                features[node] = step(before)
            if node in gammas and gammas[node] > 0:
                # A 0-dimensional factor leaves the features in their own precision.
                mixed.append(gammas[node] * features[node])
        out = unrounded(self.tail, sum(mixed[1:], start=mixed[0]))
        return F.pixel_shuffle(out, self.shuffle)

    def set_radius(self, fraction: float) -> None:
        """Set every variable's radius to this share, 0 to 1, of its circumradius, and update the delivered network.

        It is chosen anew, which takes a fraction of a second, when the radius has moved far enough since the last time.
        """
        moved = abs(fraction - self.refreshed.item())
        if moved >= REFRESH or (fraction >= 1.0 and moved > 0.0):
            self._choose()
            self.refreshed.fill_(fraction)
        self.fraction.fill_(fraction)

    def mixture(self, noise: torch.Generator | None = None) -> Mixture:
        """The weights of all candidates, differentiable. Without `noise`, the Gumbel relaxation is a softmax."""
        name: Relaxation = "softmax" if self.relaxation == "gumbel" and noise is None else self.relaxation
        fraction = float(self.fraction)
        radii = (fraction * circumradius(logits.shape[-1]) for logits in self.architecture_parameters())
        return Mixture(
            *(
                relax(name, logits, radius, temperature=max(0.1, 1.0 - fraction), generator=noise)
                for logits, radius in zip(self._lifted(), radii, strict=True)
            )
        )

    def loss(self, lr: Tensor, hr: Tensor, step: int, objective: Callable[[Tensor], Tensor]) -> Tensor:  # noqa: ARG002
        """The objective of the mixture's output plus the regularizer; Gumbel noise depends on seed and step alone."""
        noise = torch.Generator().manual_seed(int(self.seed) * 1_000_003 + step)
        return objective(self(lr, noise)) + self.regularizer()

    def outputs(self, lr: Tensor) -> list[Tensor]:
        """What the mixture makes of `lr`: one output, as it weighs and does not sample."""
        return [self(lr)]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimizer trains, with factors of its rate."""
        weights = [parameter for name, parameter in self.named_parameters() if not name.endswith("_logits")]
        return [{"params": weights, "factor": 1.0}, {"params": self.architecture_parameters(), "factor": LOGIT_RATE}]

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Logits of nodes, ops and widths, in this order."""
        return [self.node_logits, self.op_logits, self.width_logits]

    def expected_cost(self) -> tuple[Tensor, Tensor]:
        """MACs at the budget's LR size, and params, of a network drawn from the mixture; differentiable, float64.

        Equal to `cost_from_architecture` where the mixture is one network.
        """
        macs, params = self.cost(self.mixture())
        return macs, params

    def regularizer(self) -> Tensor:
        """Penalty on an expected cost outside 90-100 % of the budget, and on the order of nodes if it is "sorted"."""
        macs, params = self.expected_cost()
        bounds = ((macs, self.budget.macs), (params, self.budget.params))
        shares = [used / bound for used, bound in bounds if bound is not None]
        penalty = self.node_logits.new_zeros(())
        if shares:
            share = torch.stack(shares).amax()
            outside = F.relu(share - 1.0) + F.relu(FLOOR - share)
            penalty = penalty + BUDGET_WEIGHT * outside.to(penalty.dtype)
        if self.relaxation == "sorted":
            penalty = penalty + ORDER_WEIGHT * order_penalty(self.node_logits, self.space.paths)
        return penalty

    def delivered(self) -> Architecture:
        """The feasible network that would be delivered now, as of the last radius at which it was chosen anew."""
        return self.space.architecture(self._choice())

    def is_discrete(self) -> bool:
        """Whether the mixture is the delivered network alone, so that cutting it out changes nothing."""
        mixture = self.mixture()
        on_path = self.chosen_ops.flatten(1).any(1)
        pairs = (
            (mixture.nodes, self.chosen_nodes),
            (mixture.ops[on_path], self.chosen_ops[on_path]),
            (mixture.widths[on_path], self.chosen_widths[on_path]),
        )
        return all(torch.equal(weights > 0, chosen > 0) for weights, chosen in pairs)

    def candidates(self) -> int:
        """Nodes that are still in the mixture."""
        return int((self.mixture().nodes > 0).sum())

    def cut(self) -> Network:
        """The delivered network in its training form, with copies of its slices of the weights."""
        architecture = self.delivered()
        network = network_from_architecture(architecture).to(self.stem.weight)
        network.stem.load_state_dict(self.stem.state_dict())
        network.tail.load_state_dict(self.tail.state_dict())
        cells = iter(architecture.cells)
        for target, node in zip(network.path, self.space.lineage(self._choice().node), strict=True):
            source = self.steps[node]
            if isinstance(source, MixedCell):
                source.copy_slices_to(list(cast(TrilevelCell, target).ops), next(cells).ops)
            else:
                target.load_state_dict(source.state_dict())
        return network

    def _lifted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of nodes, ops and widths, the chosen ones raised by `fraction` of what makes them the largest."""
        nodes, ops, widths = (
            logits + self.fraction * chosen * (logits.amax(-1, keepdim=True) - logits + MARGIN).detach()
            for logits, chosen in zip(self.architecture_parameters(), self._chosen(), strict=True)
        )
        return nodes, ops, widths

    def _chosen(self) -> tuple[Tensor, Tensor, Tensor]:
        """One where a candidate is chosen for the delivered network; variables without effect on it are all zero."""
        return self.chosen_nodes, self.chosen_ops, self.chosen_widths

    @torch.no_grad()
    def _choose(self) -> None:
        choice = best_choice(self.space, self.budget, Scores(*(part.double().cpu().numpy() for part in self._lifted())))
        for chosen in self._chosen():
            chosen.zero_()
        self.chosen_nodes[self.space.deliverable.index(choice.node)] = 1.0
        for cell, ops, widths in zip(self._cells_to(choice.node), choice.ops, choice.widths, strict=True):
            self.chosen_ops[cell, range(len(ops)), ops] = 1.0
            self.chosen_widths[cell, range(len(widths)), widths] = 1.0

    def _choice(self) -> Choice:
        node = self.space.deliverable[int(self.chosen_nodes.argmax())]
        picked = [
            (tuple(self.chosen_ops[cell].argmax(-1).tolist()), tuple(self.chosen_widths[cell].argmax(-1).tolist()))
            for cell in self._cells_to(node)
        ]
        return Choice(node, tuple(ops for ops, _ in picked), tuple(widths for _, widths in picked))

    def _cells_to(self, node: int) -> list[int]:
        """Which of the variables of cells belong to the path that ends at `node`."""
        return [self.space.cells.index(step) for step in self.space.lineage(node) if step in self.space.cells]

    def _live_nodes(self, mixture: Mixture) -> list[int]:
        """Nodes that are mixed or lead to one that is, parents first."""
        live = {node for node, weight in zip(self.space.deliverable, mixture.nodes.tolist(), strict=True) if weight > 0}
        return sorted({step for node in live for step in self.space.lineage(node)})


def _initial_logits(*shape: int) -> nn.Parameter:
    return nn.Parameter(INITIAL_NOISE * torch.randn(shape))
