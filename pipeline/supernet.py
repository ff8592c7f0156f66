"""The trainable mixture over the `edge` space: shared weights, sampled networks, evidence from paired losses."""

import copy
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.architecture import Architecture
from pipeline.config import Relaxation
from pipeline.network import Network, network_from_architecture
from pipeline.optimizer import rate_factor
from pipeline.simplex import circumradius, relax
from pipeline.space import EdgeSpace, Floats

Genes = tuple[int, ...]

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
PRIOR = 30.0  # pairs that the prior "no choice makes a difference" weighs in the regression
PATIENCE = 6.0  # standard errors that make one unit of logit
HEAD_START = 0.8  # logit by which the options of the incumbent begin above the others
SLENDER = 1.0  # logit by which a shape twice or half as deep as a well-proportioned one begins below it
PLAIN = 4.0  # the same for one whose 3x3 network takes twice or half the budget
CAPACITY = 4.0  # the same for one in which the budget buys half the MACs of another
COMPARE = 2  # steps from one comparison to the next
RATE = 0.2  # of the learning rate: weights that many networks share bear less
MEMORY = 0.98  # of the running mean of the weights
ORDER_WEIGHT = 0.05
COOLEST = 0.1  # temperature at which the Gumbel relaxation ends


class EdgeSupernet(nn.Module):
    """The network that the search begins with, and all others as slices of one set of weights; a step trains both.

    Mixing outputs would cost every choice in every step, and the gradient of a mixture weight says little about a
    linear branch, whose kernel makes up for any scale. So the relaxation is a distribution to sample from, inside the
    budget's window. Every other step compares two samples: they see the same batch, and the difference of their log
    errors is one observation. A ridge regression on the choices in which they differ estimates what each choice is
    worth; estimate over standard error, divided by `PATIENCE`, is its logit. The radius of the relaxation then closes
    the distributions until each is one-hot.

    The comparison is of running means of the weights: at a high learning rate deep networks suffer more from the noise
    of the last steps than shallow ones, which says nothing of what they reach once the rate falls. Even so, what is
    compared early favours shallow and wide. So the search begins with the network that a person would draw, its
    incumbent, and evidence has to lead away from there. The incumbent is of residual cells of 3x3 kernels of one width,
    moved into the window, and of the shape that is likeliest by `SLENDER` and `PLAIN`, against those out of proportion
    or budget, and `CAPACITY`, for those in which a budget of time buys more. All of its options have `HEAD_START`.

    Weights that many networks share train worse than those of one. So the incumbent has weights of its own, which every
    step trains beside the sample, and what is cut is a slice of them where it can be one.
    """

    choosing = 0.1

    gram: Tensor
    moment: Tensor
    noise: Tensor

    def __init__(self, space: EdgeSpace, relaxation: Relaxation, seed: int) -> None:
        super().__init__()
        self.space, self.relaxation, self.seed = space, relaxation, seed
        self.shared = network_from_architecture(space.envelope())
        sizes = [len(variable.options) for variable in space.variables]
        self._starts = np.cumsum([0, *sizes])
        self._shape_features = _shape_features(space)
        self._prior = CAPACITY * space.capacity() - SLENDER * space.slenderness() ** 2 - PLAIN * space.plainness**2
        features = self._shape_features.shape[1] + sum(sizes[1:])
        self.register_buffer("gram", torch.zeros(features, features, dtype=torch.float64))
        self.register_buffer("moment", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("noise", torch.zeros(2, dtype=torch.float64))  # sum of squares, count
        self._skeletons: dict[Architecture, Network] = {}
        self._favoured = [variable.plain for variable in space.variables]
        self.set_radius(0.0)
        self._favoured = [*space.fit(self._scores(None))]
        self.set_radius(0.0)
        self.incumbent = network_from_architecture(space.architecture(self._favoured))
        self._begin_as(self.incumbent)
        self.average = copy.deepcopy(self.shared).requires_grad_(False)

    @torch.no_grad()
    def _begin_as(self, network: Network) -> None:
        """Gives the slice of a network the weights that it would begin with alone.

        How branches start decides more than the shape does, and a slice of a wider network with larger kernels would
        start as hardly more than its identities.
        """
        own = dict(network.named_parameters())
        for name, weights in _slices(self.shared, network).items():
            if name in own:
                weights.copy_(own[name])

    # -- the relaxation --

    def set_radius(self, fraction: float) -> None:
        """Set every distribution from the evidence so far, at `fraction` (0 to 1) of the way to one-hot."""
        self.logits = self._logits()
        self.weights: list[Floats] = []
        for logit in self.logits:
            if self.relaxation == "gumbel":  # draws add the noise; a temperature that falls makes it count less
                weight = relax("softmax", torch.from_numpy(logit / max(COOLEST, 1.0 - fraction)), 0.0)
            else:
                weight = relax(self.relaxation, torch.from_numpy(logit), fraction * circumradius(len(logit)))
            self.weights.append((weight / weight.sum()).numpy())

    def is_discrete(self) -> bool:
        return all((weight > 0).sum() == 1 for weight in self.weights)

    def candidates(self) -> int:
        """Shapes that can still be drawn."""
        return int((self.weights[0] > 0).sum())

    def delivered(self, correction: float | None = None) -> Architecture:
        """The network that would be delivered now: the likeliest option of every choice, moved into the window.

        correction: of the latencies that the space's device predicts, in place of the space's own.
        """
        space = self.space if correction is None else self.space.corrected(correction)
        return self.space.architecture(space.fit(self._scores(None)))

    def sample(self, rng: np.random.Generator) -> Genes:
        return self.space.fit(self._scores(rng))

    def _scores(self, rng: np.random.Generator | None) -> list[Floats]:
        """Log weights; with `rng`, perturbed by Gumbel noise, so that the largest is a draw from the distribution.

        Options of weight zero stay far below the others, in the order of their logits.
        """
        scores = []
        for weight, logit in zip(self.weights, self.logits, strict=True):
            live = weight > 0
            score = np.where(live, np.log(np.maximum(weight, 1e-12)), -50.0) + 1e-3 * logit
            if rng is not None and live.sum() > 1:
                score = score + np.where(live, rng.gumbel(size=len(weight)), 0.0)
            scores.append(score)
        return scores

    # -- the weights --

    def forward(self, lr: Tensor, architecture: Architecture) -> Tensor:
        """(batch, channels, h, w) to (batch, channels, scale*h, scale*w), as `architecture` does on its weights."""
        return self._sliced(self._source(architecture), lr, architecture)

    def _source(self, architecture: Architecture) -> Network:
        """The weights that an architecture is a slice of: the incumbent's where they hold all of it."""
        own = self.incumbent.architecture
        residuals = [cell.residual for cell in own.cells]
        if [cell.residual for cell in architecture.cells] != residuals[: len(architecture.cells)]:
            return self.shared
        sizes = {name: parameter.shape for name, parameter in self.incumbent.named_parameters()}
        held = all(
            name in sizes and all(map(int.__le__, parameter.shape, sizes[name]))
            for name, parameter in self._skeleton(architecture).named_parameters()
        )
        return self.incumbent if held else self.shared

    def _sliced(self, source: Network, lr: Tensor, architecture: Architecture) -> Tensor:
        skeleton = self._skeleton(architecture)
        out: Tensor = functional_call(skeleton, _slices(source, skeleton), (lr,))
        return out

    def _skeleton(self, architecture: Architecture) -> Network:
        """A network without weights."""
        skeleton = self._skeletons.get(architecture)
        if skeleton is None:
            with torch.device("meta"):
                skeleton = network_from_architecture(architecture)
            self._skeletons = {**dict(list(self._skeletons.items())[-31:]), architecture: skeleton}
        return skeleton

    def cut(self, architecture: Architecture | None = None) -> Network:
        """A network of the space, `delivered()` if none is given, in its training form with a copy of its weights.

        Another one than `delivered()`, which the incumbent does not hold, is `_grown`.
        """
        delivered = self.delivered()
        architecture = architecture or delivered
        source = self._source(architecture)
        if source is self.shared and architecture != delivered:
            return self._grown(architecture)
        network = network_from_architecture(architecture)
        slices = _slices(source, network)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(slices[name])
        return network

    def _grown(self, architecture: Architecture) -> Network:
        """A network with the incumbent's weights as far as both have them, elsewhere those that it would begin with.

        A cell that has a residual in one of them alone begins anew. One 3x3 convolution in place of a 1x1, at 125 ms,
        was 0.07 dB away from the incumbent; a slice of the shared weights 1.4 dB.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)  # the same after an interrupt
            network = network_from_architecture(architecture)
        pairs = zip(architecture.cells, self.incumbent.architecture.cells, strict=False)
        anew = tuple(f"path.{at}." for at, (one, own) in enumerate(pairs) if one.residual != own.residual)
        weights = dict(self.incumbent.named_parameters())
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name in weights and not name.startswith(anew):
                    common = tuple(slice(size) for size in map(min, parameter.shape, weights[name].shape))
                    parameter[common] = weights[name][common]
        return network

    def outputs(self, lr: Tensor) -> list[Tensor]:
        """What the mixture makes of `lr`: the outputs of a few draws; of the one network left, if it is discrete."""
        rng = np.random.default_rng([self.seed, 3])
        draws = {self.sample(rng) for _ in range(8)}
        return [self(lr, self.space.architecture(genes)) for genes in sorted(draws)]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimizer trains, with factors of its rate. The logits are estimated, not trained."""
        factor = rate_factor(self.incumbent.architecture)
        return [
            {"params": list(self.shared.parameters()), "factor": RATE * factor},
            {"params": list(self.incumbent.parameters()), "factor": factor},
        ]

    def loss(self, lr: Tensor, hr: Tensor, step: int, objective: Callable[[Tensor], Tensor]) -> Tensor:
        """The mean objective of the incumbent and an architecture drawn for this step.

        Every other step also compares two architectures.
        objective: maps an output (batch, channels, scale*h, scale*w) to a scalar. Draws depend on seed and step alone.
        """
        rng = np.random.default_rng([self.seed, step, 1])
        self._average(min(MEMORY, (step + 1) / (step + 10)))
        if step % COMPARE == 0:
            self._compare(lr, hr, rng)
        drawn = self._sliced(self.shared, lr, self.space.architecture(self.sample(rng)))
        return (objective(drawn) + objective(self.incumbent(lr))) / 2

    # -- the evidence --

    @torch.no_grad()
    def _average(self, memory: float) -> None:
        torch._foreach_lerp_(list(self.average.parameters()), list(self.shared.parameters()), 1.0 - memory)

    @torch.no_grad()
    def _compare(self, lr: Tensor, hr: Tensor, rng: np.random.Generator) -> None:
        first, second = self.sample(rng), self.sample(rng)
        if first != second:
            errors = [self._error(genes, lr, hr) for genes in (first, second)]
            if min(errors) > 0:  # patches of one colour tell nothing
                self._note(first, second, math.log(errors[0] / errors[1]))

    def _error(self, genes: Genes, lr: Tensor, hr: Tensor) -> float:
        """Mean squared error of luma, which PSNR-Y is made of."""
        error = self._sliced(self.average, lr, self.space.architecture(genes)).float() - hr
        with torch.autocast(lr.device.type, enabled=False):  # bf16 would round away what sets two networks apart
            if error.shape[1] == 3:
                error = torch.einsum("bchw,c->bhw", error, error.new_tensor(LUMA))
            return float(error.square().mean())

    def _note(self, first: Genes, second: Genes, difference: float) -> None:
        features = torch.from_numpy(self._features(first) - self._features(second)).to(self.gram.device)
        self.gram += features[:, None] * features
        self.moment += features * difference
        self.noise += self.noise.new_tensor([difference**2, 1.0])

    def _features(self, genes: Genes) -> Floats:
        offset = self._shape_features.shape[1] - self._starts[1]
        features = np.zeros(len(self.moment))
        features[: self._shape_features.shape[1]] = self._shape_features[genes[0]]
        for at in self.space.active(genes):
            features[offset + self._starts[at] + genes[at]] = 1.0
        return features

    def _logits(self) -> list[Floats]:
        """Worth of each option, in units of `PATIENCE` standard errors. Equal where nothing is known yet."""
        covariance = np.linalg.inv(self.gram.cpu().numpy() + PRIOR * np.eye(len(self.moment)))
        worth = -covariance @ self.moment.cpu().numpy()
        squares, count = self.noise.tolist()
        covariance *= squares / count if count else 1.0
        shape, offset = self._shape_features, self._shape_features.shape[1] - self._starts[1]
        logits = []
        for index, variable in enumerate(self.space.variables):
            basis = np.zeros((len(variable.options), len(worth)))
            if index == 0:
                basis[:, : shape.shape[1]] = shape
            else:
                rows = np.arange(len(variable.options))
                basis[rows, offset + self._starts[index] + rows] = 1.0
            basis -= basis.mean(0)
            error = np.sqrt(np.einsum("of,fg,og->o", basis, covariance, basis).mean())
            logit = basis @ worth / (PATIENCE * max(error, 1e-12))
            if index == 0:
                logit += self._prior
            if self._favoured[index] >= 0:
                logit[self._favoured[index]] += HEAD_START
            # Equal logits leave a sparse projection without a direction (and a hidden one: the lowest index).
            logit += 1e-3 * np.random.default_rng([self.seed, index, 2]).standard_normal(len(logit))
            logits.append(logit)
        if self.relaxation == "sorted":
            logits[0] = logits[0] - ORDER_WEIGHT * self._order_gradient
        return logits

    @cached_property
    def _order_gradient(self) -> Floats:
        """Gradient of `simplex.order_penalty` over the paths that deepen one width cell by cell: a constant."""
        gradient = np.zeros(len(self.space.shapes))
        for width in {width for width, _ in self.space.shapes}:
            path = [at for at, shape in enumerate(self.space.shapes) if shape[0] == width]
            gradient[path[0]] -= 1.0
            gradient[path[-1]] += 1.0
        return gradient


def _slices(source: Network, network: Network) -> dict[str, Tensor]:
    """For each parameter and buffer of `network`, the leading part of its namesake in `source`."""
    shared = {**dict(source.named_parameters()), **dict(source.named_buffers())}
    own = [*network.named_parameters(), *network.named_buffers()]
    return {name: shared[name][tuple(slice(size) for size in tensor.shape)] for name, tensor in own}


def _shape_features(space: EdgeSpace) -> NDArray[np.float64]:
    """(shapes, 5): a quadratic in log width and log depth, so that neighbours share what is learnt of a shape."""
    width, cells = np.log2(np.array(space.shapes, dtype=np.float64)).T
    width, cells = width - width.mean(), cells - cells.mean()
    return np.stack([width, cells, width**2, cells**2, width * cells], axis=1)
