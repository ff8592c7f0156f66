"""Train-time building blocks; those that are re-parameterised know their plain convolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Factors of the identity, the largest and the smaller branches at initialisation; the best of those tried on x2
# networks of 16K MACs per LR pixel. A tail that starts at zero starts the network as its skip.
START = (1.0, 0.5, 0.2)
RESIDUAL_START = (0.0, 0.3, 0.1)
ZERO_START = (0.0, 0.0, 0.0)
SLOPE = 0.1  # that PReLU and ACON begin with
SHARPNESS = 4.0  # of ACON's bend; 1 is that of a SiLU


def unrounded(module: nn.Module, features: Tensor) -> Tensor:
    """What a module makes outside of autocast: for the image itself, of whose 8 bits bfloat16 rounds some away."""
    with torch.autocast(features.device.type, enabled=False):
        made: Tensor = module(features.to(next(module.parameters()).dtype))
    return made


class CollapsibleConv(nn.Module):
    """A convolution trained as a sum of parallel branches that collapse into one kernel *before* it is applied.

    A k x k convolution has one branch for each odd size up to k and a scaled identity (Ding et al., RepVGG,
    arXiv 2101.03697, without batch norm). All are linear in the same zero-padded input, so their kernels add up
    exactly, borders included, and a training step costs about what the plain convolution's step costs. A smaller
    convolution is a slice of a larger one: its first channels, and its branches up to a smaller size.

    start: factors at initialisation of the identity, relative to 1, and of the largest and the smaller branches,
    relative to He's (arXiv 1502.01852). All zero gives a convolution that starts as the zero function.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, bias: bool = True, start: tuple[float, float, float] = START
    ) -> None:
        super().__init__()
        self.size = kernel
        sizes = [size for size in (1, 3, 5) if size <= kernel]
        self.branches = nn.ParameterDict()
        for size in sizes:
            branch = torch.empty(outputs, inputs, size, size)
            if not branch.is_meta:  # PyTorch takes its time over what has no memory, and supernets build much of it
                nn.init.kaiming_normal_(branch, nonlinearity="relu").mul_(start[1] if size == kernel else start[2])
            self.branches[str(size)] = nn.Parameter(branch)
        self.identity = nn.Parameter(torch.tensor(start[0]))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("eye", torch.zeros(outputs, inputs).fill_diagonal_(1)[:, :, None, None], persistent=False)

    def kernel(self) -> Tensor:
        """The collapsed kernel (outputs, inputs, size, size)."""
        total = self.identity * self.get_buffer("eye")
        for name, branch in self.branches.items():
            margin = (int(name) - total.shape[-1]) // 2
            total = F.pad(total, [margin] * 4) + branch
        return total

    def forward(self, features: Tensor) -> Tensor:
        return F.conv2d(features, self.kernel(), self.bias, padding=self.size // 2)

    def folded(self) -> nn.Conv2d:
        """The plain convolution that computes the same function."""
        kernel = self.kernel().detach()
        outputs, inputs = kernel.shape[:2]
        plain = nn.Conv2d(inputs, outputs, self.size, padding=self.size // 2, bias=self.bias is not None, device="meta")
        plain.weight = nn.Parameter(kernel.clone())
        if self.bias is not None:
            plain.bias = nn.Parameter(self.bias.detach().clone())
        return plain


class Residual(nn.Module):
    """`residual` of the trilevel cell: two 3x3 convolutions and a skip, then ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(features))) + self.skip(features))


class DepthwiseSeparable(nn.Module):
    """`dws` of the trilevel cell: 1x1 to four times the width, depthwise 3x3, 1x1 and a skip, then ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(inputs, 4 * inputs, 1, bias=False)
        self.depthwise = nn.Conv2d(4 * inputs, 4 * inputs, 3, padding=1, groups=4 * inputs, bias=False)
        self.project = nn.Conv2d(4 * inputs, outputs, 1, bias=False)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.project(F.relu(self.depthwise(F.relu(self.expand(features))))) + self.skip(features))


class PlainOp(nn.Module):
    """`conv1` and `conv3` of the trilevel cell: a convolution without bias, then ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.conv(features))


def trilevel_op(op: str, inputs: int, outputs: int) -> nn.Module:
    """One operation of a trilevel cell by its name."""
    match op:
        case "residual":
            return Residual(inputs, outputs)
        case "dws":
            return DepthwiseSeparable(inputs, outputs)
        case _:
            return PlainOp(inputs, outputs, int(op[-1]))


class PReLU(nn.PReLU):
    """A slope for each channel, for (batch, channels, h, w). Trains four times as fast as PyTorch's on a CPU.

    There a 1x1 convolution scales the negative part: PyTorch's own kernel goes channel by channel.
    """

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        positive = F.relu(features)
        return positive + F.conv2d(features - positive, torch.diag(self.weight)[:, :, None, None])

    def folded(self) -> nn.PReLU:
        """The same in PyTorch's class: ours is faster in training alone."""
        plain = nn.PReLU(self.num_parameters, device="meta")
        plain.weight = nn.Parameter(self.weight.detach().clone())
        return plain


class ACON(nn.Module):
    """x * (a + (1 - a) * sigmoid(4 x)) with a slope `a` that is learnt: a leaky ReLU whose bend is round.

    ACON-C of Ma et al. (Activate or Not, arXiv 2009.04759) with a fixed sharpness, and one slope for all channels:
    runtimes take twice as long for a slope of each.
    """

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(slope))

    def forward(self, features: Tensor) -> Tensor:
        positive = F.silu(SHARPNESS * features) / SHARPNESS
        return positive + self.weight * (features - positive)


def activation(name: str, channels: int) -> nn.Module:
    match name:
        case "relu":
            return nn.ReLU()
        case "leaky_relu":
            return nn.LeakyReLU(0.1)
        case "prelu":
            return PReLU(channels, SLOPE)
        case _:
            return ACON(SLOPE)
