"""A cell of the `trilevel` supernet: superkernels mixed over operations and widths."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.architecture import TRILEVEL_OPS
from pipeline.blocks import DepthwiseSeparable, PlainOp, Residual, trilevel_op
from pipeline.trilevel_space import TrilevelSpace


class Widths(NamedTuple):
    """The mixture of widths around one position.

    entering, leaving: a weight for each live channel of the boundary before and after it.
    agree: probability, 0-dimensional, that both boundaries have the same width.
    """

    entering: Tensor
    leaving: Tensor
    agree: Tensor


class MixedOps(nn.Module):
    """The operations at one position of a cell, each a superkernel whose leading slices are its narrower versions.

    Every convolution's output is weighed by the mixture of widths of its boundary: a candidate keeps the leading
    channels, so a channel's weight is the sum over the candidates that keep it. ReLU commutes with non-negative
    factors, so these weights, and that of the operation, scale the kernels instead of the features; thus they leave
    the features in the precision of autocast, too.

    A skip is the identity where the widths of both boundaries agree and a 1x1 convolution elsewhere: the two are mixed
    by the probability that they agree.
    """

    def __init__(self, inputs: int, outputs: int, *, always_agree: bool) -> None:
        super().__init__()
        self.choices = nn.ModuleList(trilevel_op(op, inputs, outputs) for op in TRILEVEL_OPS)
        for choice in self.choices:
            if isinstance(choice, Residual | DepthwiseSeparable) and not always_agree:
                choice.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, features: Tensor, ops: Tensor, widths: Widths) -> Tensor:
        """(batch, entering channels, height, width) to (batch, leaving channels, height, width). ops: weights (ops)."""
        live = [
            _weighed(choice, features, weight, widths)
            for choice, weight, value in zip(self.choices, ops, ops.tolist(), strict=True)
            if value > 0
        ]
        return sum(live[1:], start=live[0])


class MixedCell(nn.Module):
    """x + 0.2 * (chain of mixed operations). Channels beyond the widest live width are not computed."""

    def __init__(self, space: TrilevelSpace) -> None:
        super().__init__()
        widest, last = space.widths[-1], space.positions - 1
        self.trunk, self.widths = space.trunk, space.widths
        self.positions = nn.ModuleList(
            MixedOps(space.trunk if p == 0 else widest, space.trunk if p == last else widest, always_agree=last == 0)
            for p in range(space.positions)
        )

    def forward(self, features: Tensor, ops: Tensor, widths: Tensor, agree: Tensor) -> Tensor:
        """ops: (positions, ops). widths: (positions - 1, widths). agree: (positions), see `agreement`."""
        ends = widths.new_ones(self.trunk)
        bounds = [ends, *(self._channel_weights(row) for row in widths), ends]
        inner = features
        for p, position in enumerate(self.positions):
            inner = position(inner, ops[p], Widths(bounds[p], bounds[p + 1], agree[p]))
        return features + 0.2 * inner

    def copy_slices_to(self, ops: Sequence[nn.Module], names: Sequence[str]) -> None:
        """Copy the leading slices of the named operations into `ops`, the operations of one discrete cell."""
        for op, name, position in zip(ops, names, self.positions, strict=True):
            choices = cast(MixedOps, position).choices
            shared = dict(choices[TRILEVEL_OPS.index(name)].named_parameters())
            with torch.no_grad():
                for key, parameter in op.named_parameters():
                    parameter.copy_(shared[key][tuple(slice(size) for size in parameter.shape)])

    def _channel_weights(self, widths: Tensor) -> Tensor:
        """What each channel up to the widest live width weighs: the sum over the candidates that keep it."""
        live = max(width for width, weight in zip(self.widths, widths.tolist(), strict=True) if weight > 0)
        keeps = torch.arange(live) < torch.tensor(self.widths)[:, None]
        return (widths[:, None] * keeps.to(widths.device)).sum(0)


def _weighed(choice: nn.Module, features: Tensor, weight: Tensor, widths: Widths) -> Tensor:
    """An operation's output times its weight and its channels' weights."""
    scale = weight * widths.leaving
    match choice:
        case Residual():
            inner = F.relu(_scaled_conv(choice.first, features, widths.leaving))
            out = _scaled_conv(choice.second, inner, scale) + _scaled_skip(choice.skip, features, scale, widths.agree)
        case DepthwiseSeparable():
            inner = F.relu(_scaled_conv(choice.expand, features, widths.entering.repeat_interleave(4)))
            channels = inner.shape[1]
            inner = F.relu(F.conv2d(inner, choice.depthwise.weight[:channels], padding=1, groups=channels))
            out = _scaled_conv(choice.project, inner, scale) + _scaled_skip(choice.skip, features, scale, widths.agree)
        case _:
            out = _scaled_conv(cast(PlainOp, choice).conv, features, scale)
    return F.relu(out)


def _scaled_conv(conv: nn.Conv2d, features: Tensor, scale: Tensor) -> Tensor:
    """The leading slice of `conv` that fits, its output channels times `scale`."""
    kernel = conv.weight[: len(scale), : features.shape[1]] * scale[:, None, None, None]
    return F.conv2d(features, kernel, padding=conv.kernel_size[0] // 2)


def _scaled_skip(skip: nn.Module, features: Tensor, scale: Tensor, agree: Tensor) -> Tensor:
    if not isinstance(skip, nn.Conv2d) or agree.item() == 1.0:
        return features * scale[:, None, None].to(features.dtype)
    kernel = skip.weight[: len(scale), : features.shape[1]]
    identity = torch.eye(*kernel.shape[:2], dtype=kernel.dtype, device=kernel.device)[:, :, None, None]
    mixed = (agree * identity + (1.0 - agree) * kernel) * scale[:, None, None, None]
    return F.conv2d(features, mixed)
