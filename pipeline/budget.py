"""What a network costs and what it may cost.

Convention: a MAC is one multiply-add of a convolution, which is what fvcore counts as one flop. Activations, additions,
resizing and pixel shuffles count nothing. MACs are stated for one LR size; params are those of the plain form. Latency
is the median time of one LR frame on the device of a profile.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.architecture import Architecture, Cell, summary
from pipeline.errors import InfeasibleBudget


@dataclass(frozen=True, slots=True)
class Cost:
    """macs: multiply-adds for one LR frame; params: weights and biases of the plain form; latency_ms: None: unknown."""

    macs: int
    params: int
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper bounds; None leaves a quantity free.

    lr_size: (height, width) that `macs` and `latency_ms` are stated for. profile: name or file of the device profile
    that `latency_ms` is meant on.
    """

    lr_size: tuple[int, int]
    macs: int | None = None
    params: int | None = None
    latency_ms: float | None = None
    profile: str | None = None

    def share(self, cost: Cost) -> float:
        """The largest used share of any bound; 1.0 is exactly at the budget. 0.0 without bounds.

        Raises ValueError where latency is bounded and the cost does not know it.
        """
        shares = [used / bound for used, bound in ((cost.macs, self.macs), (cost.params, self.params)) if bound]
        if self.latency_ms is not None:
            if cost.latency_ms is None:
                raise ValueError("the budget bounds latency, and this cost has none")
            shares.append(cost.latency_ms / self.latency_ms)
        return max(shares, default=0.0)

    def allows(self, cost: Cost) -> bool:
        return self.share(cost) <= 1.0


@dataclass(frozen=True, slots=True)
class Device:
    """What a latency budget is held to: the model of a profile, and the device itself where this machine is it.

    predict_ms: milliseconds for one frame of the profile's LR size; parts of a network add up. It raises UnpricedOp.
    measure_ms: the same, measured here and scaled to the profile by its calibration; None on another machine.
    """

    predict_ms: Callable[[Architecture], float]
    measure_ms: Callable[[Architecture], float] | None = None


def ensure_feasible(budget: Budget, cheapest: Architecture, cost: Cost) -> None:
    """Raises InfeasibleBudget if `cost`, that of the cheapest architecture of a space, exceeds the budget."""
    if budget.allows(cost):
        return
    height, width = budget.lr_size
    needed = [f"{cost.macs:,} MACs at {height}x{width}", f"{cost.params:,} params"]
    bounds = [name for name in ("macs", "params", "latency_ms") if getattr(budget, name) is not None]
    if cost.latency_ms is not None:
        needed.append(f"{cost.latency_ms:.2f} ms on {budget.profile}")
    raise InfeasibleBudget(
        f"no architecture meets the budget: the cheapest needs {' and '.join(needed)} ({summary(cheapest)})",
        f"raise {' or '.join(f'budget.{name}' for name in bounds)}, or state a smaller budget.lr_size",
    )


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
