"""Predicts what a network of the `edge` space takes on a device: a sum over its parts, priced from a device profile.

The prices are those under which the measured networks of the profile come out best, in relative error. Runtimes compute
convolutions in blocks of channels, and in another way where an image or a few channels come in; so a convolution is
described by its multiply-adds and its channels, both as they are and rounded up to whole blocks, and its prices are its
kernel's own. A matrix unit sums over more channels at once, and what is left over of them is a product of its own: with
a price for it the error on an Intel AMX is a third less. `tests/bench/latency_model.py` compares this form with others.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.architecture import Architecture
from pipeline.errors import UnpricedOp
from pipeline.profile import DeviceProfile, Size
from pipeline.space import EXPANSIONS, WIDTHS

Floats = NDArray[np.float64]
Measures = Mapping[str, float]

BLOCK = 16  # channels: floats of a vector register of 512 bits
DEEP = 32  # channels: bfloat16 numbers of a row of an AMX tile
STEP = 4  # channels: all widths of the space are multiples of it
WIDEST = int(WIDTHS[-1] * EXPANSIONS[-1])


@dataclass(frozen=True, slots=True)
class Part:
    """What costs time. kind: "stem", "conv" (of a cell), "add" (of a residual), "tail" or "skip".

    kernel: 0 where there is none. inputs, outputs: channels.
    """

    kind: str
    kernel: int
    inputs: int
    outputs: int

    def __str__(self) -> str:
        kernel = f"{self.kernel}x{self.kernel} " if self.kernel else ""
        return f"{kernel}{self.kind} from {self.inputs} to {self.outputs} channels"


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Prices of a device. profile: its name. task: scale, colour, activation and unshuffle of all its networks.

    prices: milliseconds for one unit of each measure that a network of the profile has; none is negative.
    """

    profile: str
    lr_size: Size
    task: tuple[int, str, str, int]
    prices: Measures

    def predict_ms(self, architecture: Architecture, lr_size: Size | None = None) -> float:
        """Milliseconds for one LR frame. lr_size: (height, width), where it is not taken for granted.

        Networks of the same stem, tail, skip and trunk width differ by what their cells add, each by itself, whatever
        comes before or after it. Raises UnpricedOp for what the profile does not cover.
        """
        self._check(architecture, lr_size)
        return sum(self._price(part) for part in parts_from_architecture(architecture))

    def _price(self, part: Part) -> float:
        measures = measures_from_part(part)
        if measures.keys() - self.prices.keys():
            raise self._unpriced(f"no {part}")
        return sum(self.prices[name] * amount for name, amount in measures.items())

    def _check(self, architecture: Architecture, lr_size: Size | None) -> None:
        asked = _task(architecture)
        names = ("scale", "colour", "activation", "unshuffle")
        differ = [
            f"{name} {has}, not {wanted}"
            for name, has, wanted in zip(names, self.task, asked, strict=True)
            if has != wanted
        ]
        if lr_size not in (None, self.lr_size):
            differ.append(f"LR size {self.lr_size[0]}x{self.lr_size[1]}, not {lr_size[0]}x{lr_size[1]}")
        if architecture.space != "edge":
            differ.append(f"the edge space, not {architecture.space}")
        if architecture.tail_width:
            raise UnpricedOp(
                f"no profile has tails of {architecture.tail_width} channels and a second convolution",
                "search under budget.latency_ms, which leaves such tails out; latencies of this one are in its report",
            )
        if differ:
            raise self._unpriced("; ".join(differ))
        widths = {architecture.width, *(width for cell in architecture.cells for width in cell.widths)}
        if outside := sorted(width for width in widths if width % STEP or not STEP <= width <= WIDEST):
            raise self._unpriced(f"multiples of {STEP} up to {WIDEST} channels, not {', '.join(map(str, outside))}")

    def _unpriced(self, covered: str) -> UnpricedOp:
        return UnpricedOp(
            f"profile {self.profile} has {covered}",
            "name a profile measured for it, or measure one with `sr-pipeline profile`",
        )


def latency_model_from_profile(profile: DeviceProfile) -> LatencyModel:
    """The model of a profile's measured medians."""
    architectures = [row.architecture for row in profile.rows]
    prices = prices_from_networks(architectures, [row.timing.median_ms for row in profile.rows])
    return LatencyModel(profile.name, profile.lr_size, _task(profile.calibration.architecture), prices)


def parts_from_architecture(architecture: Architecture) -> Iterable[Part]:
    width, unshuffle, shuffle = architecture.width, architecture.unshuffle, architecture.shuffle
    inputs, outputs = architecture.channels * unshuffle**2, architecture.channels * shuffle**2
    yield Part("stem", architecture.stem, inputs, width)
    for cell in architecture.cells:
        bounds = (width, *cell.widths, width)
        for op, before, after in zip(cell.ops, bounds, bounds[1:], strict=False):
            yield Part("conv", int(op[-1]), before, after)
        if cell.residual:
            yield Part("add", 0, width, width)
    yield Part("tail", architecture.tail, width, outputs)
    if architecture.skip != "none":
        yield Part("skip", int(architecture.skip[-1]) if architecture.skip.startswith("conv") else 0, inputs, outputs)


def measures_from_part(part: Part) -> Measures:
    """Amounts of what a part is priced by, named with its kind and kernel, so that each has its own prices."""
    inputs, outputs = part.inputs, part.outputs
    whole_in, whole_out = _blocks(inputs), _blocks(outputs)
    name = f"{part.kind}{part.kernel}"
    match part.kind:
        case "stem" | "add":  # an addition has as many inputs as outputs, and an image has always the same
            return {name: 1.0, f"{name} out": outputs / BLOCK, f"{name} blocks out": whole_out}
        case "skip":
            return {name: 1.0}
    if inputs < BLOCK:  # less than a block is not computed in blocks
        name += " narrow"
    measures = {name: 1.0, f"{name} in": inputs / BLOCK, f"{name} blocks in": whole_in}
    if inputs >= BLOCK:
        measures[f"{name} rest"] = float(inputs > DEEP and inputs % DEEP > 0)
    if part.kind == "tail":  # its outputs are always the same
        return measures
    area = part.kernel**2
    return measures | {
        f"{name} out": outputs / BLOCK,
        f"{name} blocks out": whole_out,
        f"{name} macs": area * inputs * outputs / BLOCK**2,
        f"{name} macs, blocks in": area * whole_in * outputs / BLOCK,
        f"{name} macs, blocks out": area * inputs * whole_out / BLOCK,
        f"{name} macs, blocks": area * whole_in * whole_out,
    }


def prices_from_networks(
    architectures: Sequence[Architecture],
    ms: Sequence[float],
    measures_of: Callable[[Part], Measures] = measures_from_part,
) -> dict[str, float]:
    """The prices, none negative, of least squared relative error on networks that take `ms` milliseconds."""
    counts = [Counter(parts_from_architecture(architecture)) for architecture in architectures]
    measures = {part: measures_of(part) for count in counts for part in count}
    names = sorted({name for amounts in measures.values() for name in amounts})
    amounts = np.zeros((len(counts), len(names)))
    at = {name: column for column, name in enumerate(names)}
    for row, count in enumerate(counts):
        for part, times in count.items():
            for name, amount in measures[part].items():
                amounts[row, at[name]] += times * amount
    found = nonnegative_least_squares(amounts / np.asarray(ms)[:, None], np.ones(len(counts)))
    return dict(zip(names, found.tolist(), strict=True))


def nonnegative_least_squares(matrix: Floats, target: Floats) -> Floats:
    """The x >= 0 of least ||matrix x - target||, by the active set method (Lawson and Hanson, 1974, chapter 23).

    matrix: (rows, columns). target: (rows,).
    """
    columns = matrix.shape[1]
    free = np.zeros(columns, bool)
    found = np.zeros(columns)
    scale = np.linalg.norm(matrix, axis=0)
    for _ in range(10 * columns):
        gradient = matrix.T @ (target - matrix @ found) / np.where(scale > 0, scale, 1.0)
        gradient[free] = -np.inf
        if gradient.max(initial=-np.inf) <= 1e-9 * np.linalg.norm(target):
            break
        free[int(np.argmax(gradient))] = True
        while True:
            trial = np.zeros(columns)
            trial[free] = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
            falling = free & (trial <= 0)
            if not falling.any():
                break
            # As far towards the trial as nothing turns negative; what reaches zero stays there for now.
            step = float(np.min(found[falling] / (found[falling] - trial[falling])))
            found = found + step * (trial - found)
            free &= found > 1e-12 * found.max(initial=1.0)
            found[~free] = 0.0
        found = trial
    return found


def _blocks(channels: int) -> int:
    return -(-channels // BLOCK)


def _task(architecture: Architecture) -> tuple[int, str, str, int]:
    return architecture.scale, architecture.color, architecture.activation, architecture.unshuffle
