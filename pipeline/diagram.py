"""Draws an architecture from input to output as inline SVG, with what each operation costs beside it."""

from dataclasses import dataclass
from xml.etree.ElementTree import Element

from pipeline.architecture import Architecture, Cell
from pipeline.budget import Part, parts_from_architecture, short
from pipeline.svg import add, markup, picture

WIDTH, BOX, GAP, TOP = 440, 24, 10, 22
SKIP, CELL, LEFT, RIGHT, BARS = 10, 28, 46, 248, 262  # x of the line of the skip, of a cell; the boxes; the bars
CENTRE, LONGEST = (LEFT + RIGHT) / 2, 74  # the longest bar
NAMES = {"dws": "dws 3×3", "residual": "residual 3×3"}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the drawing: a box with a text, or where the input of a cell is added, the sign for that.

    opens: whether a cell that adds its input begins with it.
    """

    text: str
    kind: str
    part: Part | None = None
    opens: bool = False


def draw_architecture(architecture: Architecture, lr_size: tuple[int, int]) -> str:
    """lr_size: (height, width) that the MACs are stated for."""
    rows = _rows(architecture, lr_size)
    tops = [TOP]
    for row in rows:
        tops.append(tops[-1] + (14 if row.kind == "sum" else BOX) + GAP)
    svg = picture(WIDTH, tops[-1], "the architecture, from input to output")
    add(svg, "text", "tick", f"MACs at {lr_size[0]}×{lr_size[1]}", x=BARS, y=12)
    add(svg, "line", "flow", x1=CENTRE, x2=CENTRE, y1=TOP, y2=tops[-1] - GAP - 1)
    costs = [row.part.macs for row in rows if row.part]
    opened = 0.0
    for row, top in zip(rows, tops, strict=False):
        opened = top - GAP / 2 if row.opens else opened
        if row.kind == "sum":
            _draw_sum(svg, opened, top + 7)
            continue
        add(svg, "rect", f"box {row.kind}", x=LEFT, y=top, width=RIGHT - LEFT, height=BOX, rx=4)
        add(svg, "text", "inside", row.text, x=CENTRE, y=top + 16.5, text_anchor="middle")
        if row.part is not None:
            length = max(1.5, LONGEST * row.part.macs / max(costs))
            add(svg, "rect", "range", x=BARS, y=top + 6, width=length, height=12)
            text = f"{short(row.part.macs)}, {row.part.macs / sum(costs):.1%}"
            add(svg, "text", "tick", text, x=BARS + length + 6, y=top + 16)
        if row.kind == "skip":
            _draw_skip(svg, TOP + BOX / 2, top + BOX / 2)
    return markup(svg)


def _rows(architecture: Architecture, lr_size: tuple[int, int]) -> list[Row]:
    parts = list(parts_from_architecture(architecture, lr_size))
    skip = parts.pop() if parts[-1].place == "skip" else None
    image = "RGB" if architecture.color == "rgb" else "luma"
    rows = [Row(f"{image}, low resolution", "end")]
    if architecture.unshuffle > 1:
        rows.append(Row(f"space to depth ×{architecture.unshuffle}", "move"))
    active = architecture.activation.replace("_", " ")
    rows.append(Row(_named(parts[0], active), "stem", parts[0]))
    position = 1
    for step in architecture.path:
        if step == "up":
            rows.append(Row(_named(parts[position], ""), "up", parts[position]))
            position += 1
            continue
        inner = parts[position : position + len(step.ops)]
        rows += _cell_rows(step, inner, active if architecture.space == "edge" else "")
        position += len(inner)
    rows += [Row(_named(part, ""), "stem", part) for part in parts[position:]]
    if architecture.skip != "none":
        name = f"skip: {_named(skip, '')}" if skip else "skip: each pixel repeated"
        rows.append(Row(f"+ {name}", "skip", skip))
    if architecture.shuffle > 1:
        rows.append(Row(f"depth to space ×{architecture.shuffle}", "move"))
    rows.append(Row(f"{image}, ×{architecture.scale}", "end"))
    return rows


def _cell_rows(cell: Cell, parts: list[Part], active: str) -> list[Row]:
    rows = [Row(_named(part, active), "cell", part, cell.residual and part is parts[0]) for part in parts]
    return [*rows, Row("", "sum")] if cell.residual else rows


def _named(part: Part, active: str) -> str:
    kernel = part.op[-1]
    name = NAMES.get(part.op, f"conv {kernel}×{kernel}")
    place = "up " if part.place == "up" else ""
    return f"{place}{name}, {part.inputs}→{part.outputs}{f', {active}' if active else ''}"


def _draw_skip(svg: Element, top: float, bottom: float) -> None:
    """The line from the input around the trunk to where the skip is added."""
    add(svg, "path", "around", d=f"M{LEFT} {top} H{SKIP} V{bottom} H{LEFT}")
    add(svg, "path", "head", d=f"M{LEFT - 6} {bottom - 4} L{LEFT} {bottom} L{LEFT - 6} {bottom + 4}")


def _draw_sum(svg: Element, top: float, middle: float) -> None:
    """The line by which a cell's input is added to its output."""
    add(svg, "path", "around", d=f"M{CENTRE} {top} H{CELL} V{middle} H{CENTRE - 7}")
    add(svg, "circle", "plus", cx=CENTRE, cy=middle, r=7)
    add(svg, "path", "head", d=f"M{CENTRE - 3.5} {middle} H{CENTRE + 3.5} M{CENTRE} {middle - 3.5} V{middle + 3.5}")
