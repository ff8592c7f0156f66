"""What a network costs and what it may cost.

Convention: a MAC is one multiply-add of a convolution, which is what fvcore counts as one flop. Activations, additions,
resizing and pixel shuffles count nothing. MACs are stated for one LR size; params are those of the plain form. Latency
is the median time of one LR frame on the device of a profile.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.architecture import Architecture, summary
from pipeline.errors import InfeasibleBudget

UNITS = ((10**9, "G"), (10**6, "M"), (10**3, "K"))


@dataclass(frozen=True, slots=True)
class Cost:
    """macs: multiply-adds for one LR frame; params: weights and biases of the plain form; latency_ms: None: unknown."""

    macs: int
    params: int
    latency_ms: float | None = None


class Part(NamedTuple):
    """One operation of the plain form, as `pipeline.architecture` names it, and what it costs.

    place: "stem", "cell 1" and so on, "up", "tail" or "skip". inputs, outputs: channels.
    """

    place: str
    op: str
    inputs: int
    outputs: int
    macs: int
    params: int


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
    exceeded, hints = [], []
    if budget.macs is not None and cost.macs > budget.macs:
        exceeded.append(f"{cost.macs:,} MACs at {height}x{width}, more than {budget.macs:,}")
        hints.append("raise budget.macs or state a smaller budget.lr_size")
    if budget.params is not None and cost.params > budget.params:
        exceeded.append(f"{cost.params:,} params, more than {budget.params:,}")
        hints.append("raise budget.params")
    if budget.latency_ms is not None and cost.latency_ms is not None and cost.latency_ms > budget.latency_ms:
        predicted = f"{cost.latency_ms:.2f} ms by the model of profile {budget.profile}"
        exceeded.append(f"{predicted}, more than {budget.latency_ms:g}")
        hints.append("raise budget.latency_ms or state a smaller budget.lr_size and a profile of it")
    raise InfeasibleBudget(
        f"no architecture meets the budget: the cheapest needs {' and '.join(exceeded)} ({summary(cheapest)})",
        "; ".join(hints),
    )


def cost_from_architecture(architecture: Architecture, lr_size: tuple[int, int]) -> Cost:
    """Closed formula of the plain form's cost; equal to fvcore's count (a test holds the two together)."""
    macs = params = 0
    for part in parts_from_architecture(architecture, lr_size):
        macs += part.macs
        params += part.params
    return Cost(macs, params)


def parts_from_architecture(architecture: Architecture, lr_size: tuple[int, int]) -> Iterator[Part]:
    """The operations from input to output, the skip last, with what each costs for one frame of `lr_size`."""
    height, width = lr_size
    step = architecture.unshuffle
    pixels = -(-height // step) * -(-width // step)
    trunk, image = architecture.width, architecture.channels
    edge = architecture.space == "edge"
    activation = architecture.activation if edge else ""

    def conv(place: str, op: str, inputs: int, outputs: int, *, bias: bool = True, active: bool = False) -> Part:
        weights = int(op[-1]) ** 2 * inputs * outputs
        slopes = {"prelu": outputs, "acon": 1}.get(activation, 0) if active else 0
        extra = outputs * bias + slopes
        return Part(place, op, inputs, outputs, weights * pixels, weights + extra)

    # Space-to-depth before a kernel k is a kernel k * step with stride `step`: the same multiply-adds.
    yield conv("stem", f"conv{architecture.stem}", image * step * step, trunk, active=True)
    cells = 0
    for part in architecture.path:
        if part == "up":
            if architecture.shuffle == 1:
                pixels *= 4
            yield conv("up", "conv3", trunk, trunk)
            continue
        cells += 1
        bounds = (trunk, *part.widths, trunk)
        for op, inputs, outputs in zip(part.ops, bounds, bounds[1:], strict=False):
            if edge:
                yield conv(f"cell {cells}", op, inputs, outputs, active=True)
            else:
                weights = op_weights(op, inputs, outputs)
                yield Part(f"cell {cells}", op, inputs, outputs, weights * pixels, weights)
    outputs = image * architecture.shuffle**2
    yield conv("tail", f"conv{architecture.tail}", trunk, architecture.tail_width or outputs)
    if architecture.tail_width:
        yield conv("tail", "conv1", architecture.tail_width, outputs, bias=False)
    if architecture.skip.startswith("conv"):
        yield conv("skip", architecture.skip, image * step * step, outputs, bias=False)


def short(count: float) -> str:
    """A count with four digits at most and a suffix: 3.62G, 15.7K, 812."""
    for size, suffix in UNITS:
        if count >= size:
            return f"{count / size:.4g}{suffix}"
    return f"{count:g}"


def op_weights(op: str, inputs: int, outputs: int) -> int:
    """Weights of an operation of the trilevel space between two widths, its MACs per pixel; none has a bias."""
    match op:
        case "residual":
            weights = 9 * inputs * outputs + 9 * outputs * outputs
        case "dws":  # to 4 times the channels, depthwise, and back
            weights = 4 * inputs * inputs + 9 * 4 * inputs + 4 * inputs * outputs
        case _:
            return int(op[-1]) ** 2 * inputs * outputs
    return weights + (inputs * outputs if inputs != outputs else 0)
