"""The plain form of a network: the same function in PyTorch's own modules, re-parameterised convolutions collapsed."""

import copy

import torch.nn.functional as F
from torch import nn

from pipeline.blocks import CollapsibleConv, PReLU
from pipeline.network import Network


def plain_from_network(network: Network) -> Network:
    """A new network of plain convolutions; `network` is left alone. Exact up to the rounding of its dtype.

    A space-to-depth at the input becomes the stride of the convolutions that read it. A plain network folds to itself.
    """
    plain = copy.deepcopy(network)
    for module in list(plain.modules()):
        for name, child in module.named_children():
            if isinstance(child, CollapsibleConv | PReLU):
                setattr(module, name, child.folded())
    step = plain.architecture.unshuffle
    if step > 1 and plain.form == "training":
        for conv in (plain.stem, plain.skip):
            if isinstance(conv, nn.Conv2d):
                stride_over_blocks(conv, step)
    plain.form = "plain"
    plain.requires_grad_(False)
    return plain.eval()


def stride_over_blocks(conv: nn.Conv2d, step: int) -> None:
    """Turns kernel k on an image whose depth holds its `step` x `step` blocks into kernel k * step on the image itself.

    Depth holds a block's pixels in the order in which pixel_shuffle lays them out, so the kernel is shuffled likewise.
    """
    half = conv.kernel_size[0] // 2
    conv.weight = nn.Parameter(F.pixel_shuffle(conv.weight.detach(), step))
    conv.in_channels //= step**2
    conv.kernel_size = conv.weight.shape[2], conv.weight.shape[3]
    conv.stride = (step, step)
    conv.padding = (half * step, half * step)
