"""The network of an architecture, in its training form or as plain convolutions, and its file."""

import json
import logging
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.architecture import Architecture, Cell, architecture_from_dict
from pipeline.blocks import RESIDUAL_START, START, ZERO_START, CollapsibleConv, activation, trilevel_op, unrounded
from pipeline.budget import Cost
from pipeline.errors import StaleArtifact
from pipeline.manifest import atomic_path

SCHEMA = 1
Form = Literal["training", "plain"]


class EdgeCell(nn.Module):
    """A chain of convolutions, each followed by the activation; a residual joins before the last activation.

    Added after it, a residual chain whose last ReLU has died once would stay dead: nothing but the chain reaches it.
    """

    def __init__(self, cell: Cell, width: int, activation_name: str) -> None:
        super().__init__()
        bounds = (width, *cell.widths, width)
        starts = [START] * (len(cell.ops) - 1) + [RESIDUAL_START if cell.residual else START]
        self.convs = nn.ModuleList(
            CollapsibleConv(inputs, outputs, int(op[-1]), start=start)
            for op, inputs, outputs, start in zip(cell.ops, bounds, bounds[1:], starts, strict=False)
        )
        self.activations = nn.ModuleList(activation(activation_name, outputs) for outputs in bounds[1:])
        self.residual = cell.residual

    def forward(self, features: Tensor) -> Tensor:
        inner = features
        for conv, act in zip(self.convs, self.activations, strict=True):
            inner = conv(inner)
            if self.residual and conv is self.convs[-1]:
                inner = inner + features
            inner = act(inner)
        return inner


class TrilevelCell(nn.Module):
    """x + 0.2 * (chain of ops), as published (Wu et al., arXiv 2101.06658)."""

    def __init__(self, cell: Cell, width: int) -> None:
        super().__init__()
        bounds = (width, *cell.widths, width)
        self.ops = nn.Sequential(*(trilevel_op(op, *ends) for op, ends in zip(cell.ops, pairwise(bounds), strict=True)))

    def forward(self, features: Tensor) -> Tensor:
        chain: Tensor = self.ops(features)
        return features + 0.2 * chain


class Up(nn.Module):
    """An upsampling step: nearest x2 (variant A only), a 3x3 convolution, LeakyReLU(0.2) (variant A only)."""

    def __init__(self, width: int, *, upsamples: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.upsamples = upsamples

    def forward(self, features: Tensor) -> Tensor:
        if not self.upsamples:
            out: Tensor = self.conv(features)
            return out
        return F.leaky_relu(self.conv(F.interpolate(features, scale_factor=2.0, mode="nearest")), 0.2)


class Network(nn.Module):
    """Maps an LR image (batch, channels, height, width) in [0, 1] to SR (batch, channels, scale*height, scale*width).

    The output is not clamped. Height and width are multiples of `architecture.unshuffle`. In the plain form the
    space-to-depth at the input is part of the kernels that read the image: stem and skip stride over it.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.form: Form = "training"
        image, width = architecture.channels, architecture.width
        inputs, outputs = image * architecture.unshuffle**2, image * architecture.shuffle**2
        edge = architecture.space == "edge"
        self.stem = (
            CollapsibleConv(inputs, width, architecture.stem)
            if edge
            else nn.Conv2d(inputs, width, architecture.stem, padding=architecture.stem // 2)
        )
        self.stem_activation = activation(architecture.activation, width) if edge else nn.Identity()
        self.path = nn.ModuleList()
        for step in architecture.path:
            if step == "up":
                self.path.append(Up(width, upsamples=architecture.shuffle == 1))
            elif edge:
                self.path.append(EdgeCell(step, width, architecture.activation))
            else:
                self.path.append(TrilevelCell(step, width))
        self.tail = (
            CollapsibleConv(width, architecture.tail_width or outputs, architecture.tail, start=ZERO_START)
            if edge
            else nn.Conv2d(width, outputs, architecture.tail, padding=architecture.tail // 2)
        )
        self.spread: nn.Conv2d | None = None
        if architecture.tail_width:
            self.spread = nn.Conv2d(architecture.tail_width, outputs, 1, bias=False)
            with torch.no_grad():
                subpixels = torch.eye(architecture.shuffle**2, architecture.tail_width)
                nn.init.normal_(self.spread.weight, std=0.1).add_(subpixels.repeat(image, 1)[:, :, None, None])
        self.skip: nn.Conv2d | None = None
        if architecture.skip.startswith("conv"):
            size = int(architecture.skip[-1])
            self.skip = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
            with torch.no_grad():
                self.skip.weight.zero_()
                self.skip.weight[:, :, size // 2, size // 2] = nearest_matrix(architecture)

    def forward(self, lr: Tensor) -> Tensor:
        architecture = self.architecture
        image = lr
        trained = self.form == "training"
        if architecture.unshuffle > 1 and trained:
            image = F.pixel_unshuffle(lr, architecture.unshuffle)
        features = self.stem_activation(self.stem(image))
        for step in self.path:
            features = step(features)
        makes_image = trained and architecture.skip == "none"
        out: Tensor = unrounded(self.tail, features) if makes_image else self.tail(features)
        if self.spread is not None:
            out = self.spread(out)
        if self.skip is not None:
            out = out + (unrounded(self.skip, image) if trained else self.skip(image))
        if architecture.shuffle > 1:
            out = F.pixel_shuffle(out, architecture.shuffle)
        if architecture.skip == "nearest":
            out = out + F.interpolate(lr, scale_factor=float(architecture.scale), mode="nearest")
        return out


def nearest_matrix(architecture: Architecture) -> Tensor:
    """The (outputs, inputs) matrix that repeats each LR pixel into its subpixels, between unshuffle and shuffle."""
    inputs = architecture.channels * architecture.unshuffle**2
    lr = F.pixel_shuffle(torch.eye(inputs, device="cpu")[:, :, None, None], architecture.unshuffle)
    sr = F.interpolate(lr, scale_factor=float(architecture.scale), mode="nearest")
    return F.pixel_unshuffle(sr, architecture.shuffle)[:, :, 0, 0].T


def network_from_architecture(architecture: Architecture) -> Network:
    """A newly initialised network in its training form."""
    return Network(architecture)


def fvcore_cost(network: Network, lr_size: tuple[int, int]) -> Cost:
    """MACs at `lr_size` (height, width) and params of a plain network, as `fvcore_macs` counts them."""
    architecture = network.architecture
    step = architecture.unshuffle
    size = tuple(-(-side // step) * step for side in lr_size)
    parameter = next(network.parameters())
    frame = torch.zeros(1, architecture.channels, *size, dtype=parameter.dtype, device=parameter.device)
    return Cost(fvcore_macs(network, frame), sum(parameter.numel() for parameter in network.parameters()))


def fvcore_macs(module: nn.Module, frame: Tensor) -> int:
    """Multiply-adds of `module` on `frame`, counted by fvcore, which traces it.

    fvcore counts one flop per multiply-add. Only convolutions are counted, as `pipeline.budget` states.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fvcore scripts functions when it is imported
        from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    analysis = FlopCountAnalysis(module, frame).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return int(analysis.by_operator().get("conv", 0))


def save_network(path: Path, network: Network) -> None:
    """Writes the weights beside the architecture and the form that rebuild the network, atomically.

    The same network makes the same bytes: all metadata is one entry, because safetensors shuffles entries.
    """
    header = {"schema": SCHEMA, "form": network.form, "architecture": network.architecture.to_dict()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, {"network": json.dumps(header, sort_keys=True)}))


def load_network(path: Path) -> Network:
    """The network a file holds, in the form it was saved in. Raises StaleArtifact."""
    from pipeline.fold import plain_from_network

    hint = "restore the file, or search again"
    if not path.is_file():
        raise StaleArtifact(f"no weights at {path}", "run `sr-pipeline search` first")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("network", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise StaleArtifact(f"{path} is not a safetensors file: {error}", hint) from error
    if header.get("schema") != SCHEMA:
        raise StaleArtifact(f"{path} has schema {header.get('schema')}, this version reads {SCHEMA}", hint)
    network = Network(architecture_from_dict(header.get("architecture", {})))
    if header.get("form") == "plain":
        network = plain_from_network(network)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise StaleArtifact(f"{path} does not fit its architecture", hint) from error
    return network.eval()
