"""What a network costs and what it may cost.

Convention: a MAC is one multiply-add of a convolution, which is what fvcore counts as one flop. Activations, additions,
resizing and pixel shuffles count nothing. MACs are stated for one LR size; params are those of the plain form.
"""

from dataclasses import dataclass

from pipeline.architecture import Architecture, Cell


@dataclass(frozen=True, slots=True)
class Cost:
    """macs: multiply-adds for one LR frame; params: weights and biases of the plain form."""

    macs: int
    params: int


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper bounds; None leaves a quantity free. lr_size: (height, width) that `macs` is stated for."""

    lr_size: tuple[int, int]
    macs: int | None = None
    params: int | None = None

    def share(self, cost: Cost) -> float:
        """The largest used share of any bound; 1.0 is exactly at the budget. 0.0 without bounds."""
        bounds = ((cost.macs, self.macs), (cost.params, self.params))
        return max((used / bound for used, bound in bounds if bound is not None), default=0.0)

    def allows(self, cost: Cost) -> bool:
        return self.share(cost) <= 1.0


def cost_from_architecture(architecture: Architecture, lr_size: tuple[int, int]) -> Cost:
    """Closed formula of the plain form's cost; equal to fvcore's count (a test holds the two together)."""
    height, width = lr_size
    step = architecture.unshuffle
    pixels = -(-height // step) * -(-width // step)
    trunk, image = architecture.width, architecture.channels
    macs = params = 0

    def conv(kernel: int, inputs: int, outputs: int, *, bias: bool, groups: int = 1) -> None:
        nonlocal macs, params
        weights = kernel * kernel * (inputs // groups) * outputs
        macs += weights * pixels
        params += weights + (outputs if bias else 0)

    def trilevel_op(op: str, inputs: int, outputs: int) -> None:
        match op:
            case "conv1" | "conv3":
                conv(int(op[-1]), inputs, outputs, bias=False)
                return
            case "residual":
                conv(3, inputs, outputs, bias=False)
                conv(3, outputs, outputs, bias=False)
            case "dws":
                conv(1, inputs, 4 * inputs, bias=False)
                conv(3, 4 * inputs, 4 * inputs, bias=False, groups=4 * inputs)
                conv(1, 4 * inputs, outputs, bias=False)
        if inputs != outputs:
            conv(1, inputs, outputs, bias=False)

    def cell(step: Cell) -> None:
        bounds = (trunk, *step.widths, trunk)
        for op, inputs, outputs in zip(step.ops, bounds, bounds[1:], strict=False):
            if architecture.space == "edge":
                conv(int(op[-1]), inputs, outputs, bias=True)
                params_of_activation(outputs)
            else:
                trilevel_op(op, inputs, outputs)

    def params_of_activation(channels: int) -> None:
        nonlocal params
        params += channels if architecture.activation == "prelu" and architecture.space == "edge" else 0

    # Space-to-depth before a kernel k is a kernel k * step with stride `step`: the same multiply-adds.
    conv(architecture.stem, image * step * step, trunk, bias=True)
    params_of_activation(trunk)
    for part in architecture.path:
        if part != "up":
            cell(part)
            continue
        if architecture.shuffle == 1:
            pixels *= 4
        conv(3, trunk, trunk, bias=True)
    outputs = image * architecture.shuffle**2
    conv(architecture.tail, trunk, outputs, bias=True)
    if architecture.skip.startswith("conv"):
        conv(int(architecture.skip[-1]), image * step * step, outputs, bias=False)
    return Cost(macs, params)
