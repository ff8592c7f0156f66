"""The discrete network: a frozen value with a JSON form and an id, never weights."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from pipeline.errors import StaleArtifact

SCHEMA = 1

Color = Literal["rgb", "y"]
Space = Literal["edge", "trilevel"]
Up = Literal["up"]
Activation = Literal["relu", "leaky_relu", "prelu", "acon"]
Variant = Literal["a", "b"]  # of the trilevel space: upsampling in the path, or in the tail

EDGE_OPS = ("conv1", "conv3", "conv5")
TRILEVEL_OPS = ("conv1", "conv3", "residual", "dws")
ACTIVATIONS = get_args(Activation)
SKIPS = ("none", "nearest", "conv1", "conv3", "conv5")


@dataclass(frozen=True, slots=True)
class Cell:
    """A chain of operations, optionally with its input added to its output.

    ops: one name per position, first to last.
    widths: channels at the `len(ops) - 1` inner boundaries; both ends carry the trunk width.
    residual: whether the cell adds its input. `trilevel` cells always do, with the chain scaled by 0.2.
    """

    ops: tuple[str, ...]
    widths: tuple[int, ...]
    residual: bool = True

    def __post_init__(self) -> None:
        if not self.ops or len(self.widths) != len(self.ops) - 1:
            raise ValueError(f"a cell of {len(self.ops)} ops needs {len(self.ops) - 1} inner widths: {self.widths}")
        if min(self.widths, default=1) < 1:
            raise ValueError(f"widths must be positive: {self.widths}")


@dataclass(frozen=True, slots=True)
class Architecture:
    """A stem, a path of cells and upsampling steps, and a tail.

    space: the search space it belongs to; it decides how the ops are built.
    scale: 2, 3 or 4.
    color: "rgb" (3 channels in and out) or "y" (luma; chroma is enlarged by bicubic).
    width: channels of the trunk.
    path: cells and "up" steps, first to last. Only `trilevel` has ups.
    stem, tail: kernel sizes of the first and the last convolution.
    tail_width: channels that the tail makes before a 1x1 convolution spreads them over the colours of all subpixels;
        0 where the tail makes those itself. Details are mostly of luma: a channel for each subpixel holds them.
    activation: follows every convolution of the trunk; `trilevel` cells always use ReLU.
    skip: how the LR image joins the output: not at all, repeated into its subpixels, or by a linear
        convolution of kernel 1, 3 or 5.
    unshuffle: factor of the space-to-depth at the input (1: none).
    shuffle: factor of the depth-to-space at the output, 1 when the path's own ups do the upsampling.
    """

    space: Space
    scale: int
    color: Color
    width: int
    path: tuple[Cell | Up, ...]
    stem: int = 3
    tail: int = 3
    tail_width: int = 0
    activation: str = "relu"
    skip: str = "nearest"
    unshuffle: int = 1
    shuffle: int = 2

    def __post_init__(self) -> None:
        known = EDGE_OPS if self.space == "edge" else TRILEVEL_OPS
        unknown = {op for cell in self.cells for op in cell.ops} - set(known)
        ups = self.path.count("up")
        checks = (
            (self.space in ("edge", "trilevel"), f"space is edge or trilevel, not {self.space!r}"),
            (self.scale in (2, 3, 4), f"scale is 2, 3 or 4, not {self.scale}"),
            (self.color in ("rgb", "y"), f"color is rgb or y, not {self.color!r}"),
            (self.width >= 1, f"width is positive, not {self.width}"),
            (not unknown, f"{self.space} has no operation named {', '.join(sorted(unknown))}"),
            ({self.stem, self.tail} <= {1, 3, 5}, f"kernels are 1, 3 or 5, not {self.stem} and {self.tail}"),
            (
                self.tail_width == 0 or (self.space == "edge" and self.tail_width > 0),
                f"tail_width is at least 0, and 0 in the trilevel space, not {self.tail_width}",
            ),
            (self.activation in ACTIVATIONS, f"activation is one of {', '.join(ACTIVATIONS)}, not {self.activation!r}"),
            (self.skip in SKIPS, f"skip is one of {', '.join(SKIPS)}, not {self.skip!r}"),
            (self.unshuffle in (1, 2), f"unshuffle is 1 or 2, not {self.unshuffle}"),
            (self.space == "trilevel" or ups == 0, "edge upsamples in its tail; its path has no ups"),
            (
                self.shuffle == self.scale * self.unshuffle
                or (self.space == "trilevel" and self.shuffle == 1 and 2**ups == self.scale * self.unshuffle),
                f"shuffle {self.shuffle} and {ups} ups do not make scale {self.scale} "
                f"of an input unshuffled by {self.unshuffle}",
            ),
            (
                self.shuffle > 1 or not self.skip.startswith("conv"),
                f"skip {self.skip} ends in a shuffle, and shuffle is 1",
            ),
        )
        wrong = [message for holds, message in checks if not holds]
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(step for step in self.path if step != "up")

    @property
    def channels(self) -> int:
        """Channels of the image the network reads and writes."""
        return 3 if self.color == "rgb" else 1

    @property
    def id(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        fields = {"schema": SCHEMA, **asdict(self)}
        if not self.tail_width:  # it came later: ids without one stay what they were
            del fields["tail_width"]
        return fields

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))


def architecture_from_dict(fields: dict[str, Any]) -> Architecture:
    """The inverse of `Architecture.to_dict`. Raises StaleArtifact where schema or fields do not fit."""
    fields = dict(fields)
    schema = fields.pop("schema", None)
    if schema != SCHEMA:
        raise StaleArtifact(
            f"architecture has schema {schema}, this version reads schema {SCHEMA}",
            "search again, or use the version of sr-pipeline that wrote it",
        )
    try:
        path: tuple[Cell | Up, ...] = tuple(
            "up" if step == "up" else Cell(tuple(step["ops"]), tuple(step["widths"]), step["residual"])
            for step in fields.pop("path")
        )
        return Architecture(path=path, **fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StaleArtifact(f"architecture is damaged: {error}", "restore the file, or search again") from error


def architecture_from_json(text: str) -> Architecture:
    """The inverse of `Architecture.to_json`. Raises StaleArtifact."""
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise StaleArtifact(f"architecture is not JSON: {error}", "restore the file, or search again") from error
    if not isinstance(fields, dict):
        raise StaleArtifact("architecture is not a JSON object", "restore the file, or search again")
    return architecture_from_dict(fields)


def summary(architecture: Architecture) -> str:
    """One line for a terminal: `edge x2 rgb: 16 ch, stem 3, [conv3-16-conv3+] x3, tail 3`."""
    parts: list[str] = []
    for step in architecture.path:
        if step == "up":
            parts.append("up")
            continue
        chain = step.ops[0]
        for width, op in zip(step.widths, step.ops[1:], strict=True):
            chain += f"-{width}-{op}"
        parts.append(f"[{chain}{'+' if step.residual else ''}]")
    runs: list[tuple[str, int]] = []
    for part in parts:
        if runs and runs[-1][0] == part:
            runs[-1] = (part, runs[-1][1] + 1)
        else:
            runs.append((part, 1))
    path = " ".join(part if count == 1 else f"{part} x{count}" for part, count in runs)
    between = f"-{architecture.tail_width}-1" if architecture.tail_width else ""
    extras = f", unshuffle {architecture.unshuffle}" if architecture.unshuffle > 1 else ""
    return (
        f"{architecture.space} x{architecture.scale} {architecture.color}: {architecture.width} ch, "
        f"stem {architecture.stem}, {path or 'no cells'}, tail {architecture.tail}{between}, "
        f"{architecture.activation}, skip {architecture.skip}{extras}"
    )
