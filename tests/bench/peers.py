"""The hand-designed networks that ours is held against, each in the training form of its paper, with its plain form."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploy.runners import Color

PEERS = ("FSRCNN", "ESPCN", "SESR-M5", "SESR-M11", "ECBSR-M4C16", "ECBSR-M10C16", "QuickSRNet-Small")
# Without a skip around all, the image itself goes through the convolutions: not in bfloat16, which rounds it
WITHOUT_SKIP = ("FSRCNN", "ESPCN", "QuickSRNet-Small")


class Peer(nn.Module):
    """Maps LR (batch, channels, height, width) in [0, 1] to SR (batch, channels, scale*height, scale*width).

    color: "y" (luma, one channel) or "rgb". paper: where the network is from.
    """

    def __init__(self, name: str, scale: int, color: Color, paper: str, body: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.scale = scale
        self.color: Color = color
        self.paper = paper
        self.body = body

    @property
    def channels(self) -> int:
        return 3 if self.color == "rgb" else 1

    def forward(self, lr: Tensor) -> Tensor:
        sr: Tensor = self.body(lr)
        return sr

    def plain(self) -> nn.Module:
        """A new network that computes the same function with plain convolutions; exact up to rounding, borders too."""
        plain = copy.deepcopy(self.body)
        for module in list(plain.modules()):
            for name, child in module.named_children():
                if isinstance(child, LinearBlock | EdgeBlock):
                    setattr(module, name, child.folded())
        return plain.requires_grad_(False).eval()


def peer_from_name(name: str, scale: int) -> Peer:
    """A newly initialised peer, in its training form. Raises ValueError for a name that is not in PEERS."""
    match name:
        case "FSRCNN":
            paper = "Dong et al., Accelerating the Super-Resolution Convolutional Neural Network, arXiv 1608.00367"
            return Peer(name, scale, "y", paper, fsrcnn(scale))
        case "ESPCN":
            paper = "Shi et al., Real-Time Single Image and Video Super-Resolution, arXiv 1609.05158"
            return Peer(name, scale, "y", paper, espcn(scale))
        case "SESR-M5" | "SESR-M11":
            paper = "Bhardwaj et al., Collapsible Linear Blocks for Super-Efficient Super Resolution, arXiv 2103.09404"
            body = Sesr(5, 256, scale) if name == "SESR-M5" else Sesr(11, 64, scale)
            return Peer(name, scale, "y", paper, body)
        case "ECBSR-M4C16" | "ECBSR-M10C16":
            paper = "Zhang et al., Edge-oriented Convolution Block for Real-time Super Resolution, ACM Multimedia 2021"
            depth = 4 if name == "ECBSR-M4C16" else 10
            return Peer(name, scale, "y", paper, Ecbsr(depth, 16, scale))
        case "QuickSRNet-Small":
            paper = "Berger et al., QuickSRNet: Plain Single-Image Super-Resolution Architecture, arXiv 2303.04336"
            return Peer(name, scale, "rgb", paper, quicksrnet(32, 2, scale))
        case _:
            raise ValueError(f"no peer {name!r}; there are {', '.join(PEERS)}")


def fsrcnn(scale: int, width: int = 56, shrunk: int = 12, depth: int = 4) -> nn.Sequential:
    """FSRCNN(56, 12, 4): 5x5, shrink, four 3x3, expand, each with PReLU; a transposed 9x9 convolution enlarges.

    As in the paper: He's initialisation, and a Gaussian of 0.001 for the last layer; that this layer learns at a tenth
    of the rate is not done. Published: 12,464 weights; 6.0G MACs at x2 and 1280x720, which counts the last layer for
    each SR pixel.
    """
    layers: list[nn.Module] = []
    bounds = (1, width, *[shrunk] * (depth + 1), width)
    sizes = (5, 1, *[3] * depth, 1)
    for inputs, outputs, size in zip(bounds, bounds[1:], sizes, strict=False):
        conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        layers += [conv, nn.PReLU(outputs)]
    enlarge = nn.ConvTranspose2d(width, 1, 9, stride=scale, padding=4, output_padding=scale - 1)
    nn.init.normal_(enlarge.weight, std=1e-3)
    nn.init.zeros_(enlarge.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers, enlarge)


def espcn(scale: int) -> nn.Sequential:
    """ESPCN: 5x5 to 64 channels and 3x3 to 32, each with tanh, and 3x3 to the subpixels; PyTorch's initialisation.

    The paper states neither initialisation nor optimiser; its rate falls from 0.01 to 0.0001 as the loss settles.
    Published: 21K params, 5G MACs at x2 and 1280x720.
    """
    first, second = nn.Conv2d(1, 64, 5, padding=2), nn.Conv2d(64, 32, 3, padding=1)
    tail = nn.Conv2d(32, scale * scale, 3, padding=1)
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), tail, nn.PixelShuffle(scale))


class LinearBlock(nn.Module):
    """SESR's collapsible linear block: k x k to `expanded` channels, 1x1 back, and a skip where the widths agree.

    Nothing is non-linear between them, so they collapse into one kernel before it is applied: the paper's efficient
    training. Without biases, as the paper counts; Glorot's initialisation, the default of the authors' library.
    """

    def __init__(self, inputs: int, outputs: int, size: int, expanded: int) -> None:
        super().__init__()
        self.expand = nn.Parameter(nn.init.xavier_uniform_(torch.empty(expanded, inputs, size, size)))
        self.project = nn.Parameter(nn.init.xavier_uniform_(torch.empty(outputs, expanded)))
        skip = torch.zeros(outputs, inputs, size, size)
        self.register_buffer("skip", nn.init.dirac_(skip) if inputs == outputs else skip, persistent=False)

    def kernel(self) -> Tensor:
        return torch.einsum("oe,eikl->oikl", self.project, self.expand) + self.get_buffer("skip")

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):  # in bf16 a collapsed kernel would be rounded twice
            kernel = self.kernel()
        return F.conv2d(features, kernel, padding="same")

    def folded(self) -> nn.Conv2d:
        return _plain_conv(self.kernel(), None)


class Sesr(nn.Module):
    """SESR: 5x5, `depth` 3x3 blocks with PReLU inside a skip, 5x5 to the subpixels; the LR pixel is added to each.

    As in the authors' code (github.com/ARM-software/sesr): the image is centred, nothing follows the first block,
    slopes start at zero, and M11 expands to 64 channels, M5 to 256. The paper trains at 5e-4, the code at 2e-4.
    Published at x2 and 1280x720: M5 13.52K params and 3.11G MACs, M11 27.34K and 6.30G; slopes are not in them.
    """

    def __init__(self, depth: int, expanded: int, scale: int, width: int = 16) -> None:
        super().__init__()
        self.head = LinearBlock(1, width, 5, expanded)
        blocks: list[nn.Module] = []
        for _ in range(depth):
            blocks += [LinearBlock(width, width, 3, expanded), nn.PReLU(width, 0.0)]
        self.blocks = nn.Sequential(*blocks)
        self.tail = LinearBlock(width, scale * scale, 5, expanded)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, lr: Tensor) -> Tensor:
        head = self.head(lr - 0.5)
        sr: Tensor = self.shuffle(self.tail(self.blocks(head) + head) + lr)
        return sr


class EdgeBlock(nn.Module):
    """ECBSR's edge-oriented convolution block: five branches that add up to one 3x3 convolution.

    A 3x3; a 1x1 to twice the outputs and a 3x3 back; three times a 1x1, then Sobel's x, Sobel's y and the Laplacian on
    each channel, scaled. A 1x1 pads with its bias, which makes the sum exact at borders. The biases of the 1x1s before
    the edge filters are left out: such a filter sums to zero. Branches collapse before they are applied: the function
    and gradients of the authors' training at the step time of one convolution. Initialised as in the authors' code.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.conv_bias = _started(inputs, outputs, 3)
        self.expand, self.expand_bias = _started(inputs, 2 * outputs, 1)
        self.squeeze, self.squeeze_bias = _started(2 * outputs, outputs, 3)
        self.mix = nn.ParameterList(_started(inputs, outputs, 1)[0] for _ in range(3))
        self.scales = nn.Parameter(1e-3 * torch.randn(3, outputs))
        self.biases = nn.Parameter(1e-3 * torch.randn(3, outputs))
        sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
        laplacian = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
        self.register_buffer("filters", torch.stack([sobel, sobel.T, laplacian]), persistent=False)

    def kernel(self) -> Tensor:
        squeezed = torch.einsum("oekl,eihw->oikl", self.squeeze, self.expand)
        edges = torch.einsum("fo,foihw,fkl->oikl", self.scales, torch.stack([*self.mix]), self.get_buffer("filters"))
        return self.conv + squeezed + edges

    def bias(self) -> Tensor:
        squeezed = torch.einsum("oekl,e->o", self.squeeze, self.expand_bias)
        return self.conv_bias + self.squeeze_bias + squeezed + self.biases.sum(0)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):  # in bf16 a collapsed kernel would be rounded twice
            kernel, bias = self.kernel(), self.bias()
        return F.conv2d(features, kernel, bias, padding=1)

    def folded(self) -> nn.Conv2d:
        return _plain_conv(self.kernel(), self.bias())


class Ecbsr(nn.Module):
    """ECBSR: 1 + `depth` blocks with PReLU and one to the subpixels; the LR pixel is added to each.

    As in the authors' code (github.com/xindongzhang/ECBSR), whose default has no identity branch. Published at x2 and
    1280x720: M4C16 10.2K params and 2.34G MACs, M10C16 24.3K and 5.60G, which is what counting each slope twice, and
    all params once for each LR pixel, gives.
    """

    def __init__(self, depth: int, width: int, scale: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (1, *[width] * depth):
            layers += [EdgeBlock(inputs, width), nn.PReLU(width)]
        self.blocks = nn.Sequential(*layers, EdgeBlock(width, scale * scale))
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, lr: Tensor) -> Tensor:
        sr: Tensor = self.shuffle(self.blocks(lr) + lr)
        return sr


def quicksrnet(width: int, depth: int, scale: int) -> nn.Sequential:
    """QuickSRNet: 1 + `depth` 3x3 with a ReLU that clips at 1, 3x3 to the subpixels, clipped too.

    Small and Medium have no skip: each convolution starts as the identity plus PyTorch's initialisation, the last one
    as the nearest enlargement, so that the network starts as one with skips. Training and plain form are the same.
    From the authors' code (github.com/quic/aimet-model-zoo). Published: 33.3K params at x4, Medium 50,604 at x2.
    """
    layers: list[nn.Module] = []
    for inputs in (3, *[width] * depth):
        conv = nn.Conv2d(inputs, width, 3, padding=1)
        conv.weight.data += nn.init.dirac_(torch.empty(width, inputs, 3, 3))
        layers += [conv, nn.Hardtanh(0.0, 1.0)]
    # PixelShuffle takes the subpixels of a colour from scale**2 channels in a row
    tail = nn.Conv2d(width, 3 * scale * scale, 3, padding=1)
    tail.weight.data += nn.init.dirac_(torch.empty(3, width, 3, 3)).repeat_interleave(scale * scale, 0)
    return nn.Sequential(*layers, tail, nn.Hardtanh(0.0, 1.0), nn.PixelShuffle(scale))


def _started(inputs: int, outputs: int, size: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight and bias of a convolution as PyTorch starts them."""
    conv = nn.Conv2d(inputs, outputs, size)
    assert conv.bias is not None
    return nn.Parameter(conv.weight.detach()), nn.Parameter(conv.bias.detach())


def _plain_conv(kernel: Tensor, bias: Tensor | None) -> nn.Conv2d:
    outputs, inputs, size = kernel.shape[:3]
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias is not None, device="meta")
    conv.weight = nn.Parameter(kernel.detach().clone())
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone())
    return conv
