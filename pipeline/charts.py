"""Charts as inline SVG: points over a cost, a figure over the steps of a search, and ranges of measured times."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree.ElementTree import Element

from pipeline.svg import add, markup, picture

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 26, 46
AWAY = [14 * rows * side for rows in range(2, 12) for side in (-1, 1)]  # from a point to a label with a line to it
LETTER = 7.2  # width of a letter of a label, at most about
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """kind: a class of the style sheet; points of "ours" are drawn last and labelled first."""

    x: float
    y: float
    label: str
    kind: Literal["ours", "peer"] = "ours"


@dataclass(frozen=True, slots=True)
class Range:
    """Quantiles of one time."""

    label: str
    p10: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values onto pixels, linearly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._along(self.low), self._along(self.high)
        return self.start + (self._along(value) - low) / (high - low) * (self.end - self.start)

    def _along(self, value: float) -> float:
        return math.log(value) if self.log else value

    @property
    def ticks(self) -> list[float]:
        if not self.log:
            return linear_ticks(self.low, self.high)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if self.high / self.low < 1000 else (1,)
        marks = [step * 10.0**decade for decade in decades for step in steps]
        return [mark for mark in marks if self.low <= mark <= self.high]


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`, at most `most`."""
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def scatter(
    points: Sequence[Point],
    *,
    title: str,
    x_title: str,
    y_title: str,
    x_text: Callable[[float], str],
    bound: float | None = None,
    least: float,
) -> str:
    """Points with labels beside them. bound: the budget, on the x axis; least: what the y axis spans at least.

    The x axis is logarithmic where the points span more than a factor of 8.
    """
    xs = [point.x for point in points] + ([bound] if bound else [])
    log = max(xs) > 8 * min(xs)
    low, high = (min(xs) / 1.5, max(xs) * 1.5) if log else (0.0, max(xs) * 1.15)
    x = Scale(low, high, LEFT, WIDTH - RIGHT, log)
    y = _padded([point.y for point in points], 0.12, least)
    svg = _frame(title, x, y, x_title, y_title, x_text)
    taken: list[Box] = []
    if bound:
        add(svg, "line", "bound", x1=x(bound), x2=x(bound), y1=TOP, y2=HEIGHT - BOTTOM)
        anchor = "end" if x(bound) > WIDTH - RIGHT - 60 else "start"
        place = x(bound) + (-5 if anchor == "end" else 5)
        _label(svg, place, TOP + 12, "budget", "bound-text", anchor)
        taken.append(_box(place, TOP + 12, "budget", anchor))
        taken.append((x(bound) - 1, TOP, x(bound) + 1, HEIGHT - BOTTOM))
    taken += [(x(point.x) - 6, y(point.y) - 6, x(point.x) + 6, y(point.y) + 6) for point in points]
    for point in sorted(points, key=lambda point: point.kind == "peer"):
        _place_label(svg, x(point.x), y(point.y), point, taken)
    for point in sorted(points, key=lambda point: point.kind == "ours"):
        add(svg, "circle", point.kind, cx=x(point.x), cy=y(point.y), r=5 if point.kind == "ours" else 4)
    return markup(svg)


def line(
    values: Sequence[tuple[float, float]],
    *,
    title: str,
    x_title: str,
    y_text: Callable[[float], str] | None = None,
    cut: float | None = None,
    bound: float | None = None,
) -> str:
    """A figure over the steps. cut: the step at which one network was left; bound: the budget, on the y axis."""
    x = Scale(min(0.0, *(step for step, _ in values)), max(step for step, _ in values), LEFT, WIDTH - RIGHT)
    y = _padded([value for _, value in values] + ([bound] if bound is not None else []), 0.08)
    svg = _frame(title, x, y, x_title, "", lambda step: f"{step:,.0f}", y_text)
    if cut is not None:
        add(svg, "line", "cut", x1=x(cut), x2=x(cut), y1=TOP, y2=HEIGHT - BOTTOM)
    if bound is not None:
        add(svg, "line", "bound", x1=LEFT, x2=WIDTH - RIGHT, y1=y(bound), y2=y(bound))
        _label(svg, WIDTH - RIGHT - 4, y(bound) - 5, "budget", "bound-text", "end")
    drawn = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in values)
    add(svg, "polyline", "curve", points=drawn)
    add(svg, "circle", "ours", cx=x(values[-1][0]), cy=y(values[-1][1]), r=4)
    return markup(svg)


def ranges(rows: Sequence[Range], *, title: str, unit: str, bound: float | None = None) -> str:
    """A row for each time: a bar from p10 to p90, a dot at the median, a tick at p99. bound: the budget."""
    row, left, top = 42, 10, 44
    bottom = top + row * len(rows)
    x = Scale(0.0, max([entry.p99 for entry in rows] + ([bound] if bound else [])) * 1.08, left, WIDTH - RIGHT)
    svg = picture(WIDTH, bottom + 24, title)
    add(svg, "text", "title", title, x=left, y=14)
    for mark in x.ticks:
        add(svg, "line", "grid", x1=x(mark), x2=x(mark), y1=top, y2=bottom)
        _label(svg, x(mark), bottom + 16, f"{mark:g} {unit}" if mark else "0", "tick", "middle")
    if bound:
        add(svg, "line", "bound", x1=x(bound), x2=x(bound), y1=top - 6, y2=bottom)
        anchor = "end" if x(bound) > WIDTH - 60 else "start" if x(bound) < 60 else "middle"
        _label(svg, x(bound), top - 11, f"budget {bound:g} {unit}", "bound-text", anchor)
    for index, entry in enumerate(rows):
        middle = top + row * index + 29
        add(svg, "line", "whisker", x1=x(entry.p90), x2=x(entry.p99), y1=middle, y2=middle)
        add(svg, "line", "whisker", x1=x(entry.p99), x2=x(entry.p99), y1=middle - 4, y2=middle + 4)
        add(svg, "rect", "range", x=x(entry.p10), y=middle - 4, width=max(2, x(entry.p90) - x(entry.p10)), height=8)
        add(svg, "circle", "ours", cx=x(entry.p50), cy=middle, r=5)
        _label(svg, left + 4, middle - 12, f"{entry.label}, {entry.p50:.2f} {unit}", "label", "start")
    return markup(svg)


def _frame(
    title: str,
    x: Scale,
    y: Scale,
    x_title: str,
    y_title: str,
    x_text: Callable[[float], str],
    y_text: Callable[[float], str] | None = None,
) -> Element:
    """The axes. Without y_text the y axis has as many decimals as its steps need."""
    svg = picture(WIDTH, HEIGHT, title)
    add(svg, "text", "title", title, x=LEFT, y=14)
    decimals = max(len(f"{mark:.6g}".partition(".")[2]) for mark in y.ticks)
    for mark in y.ticks:
        add(svg, "line", "grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y(mark), y2=y(mark))
        _label(svg, LEFT - 8, y(mark) + 4, y_text(mark) if y_text else f"{mark:.{decimals}f}", "tick", "end")
    right = -math.inf
    for mark in x.ticks:
        text = x_text(round(mark, 9))
        half = len(text) * 3.3
        add(svg, "line", "tick-mark", x1=x(mark), x2=x(mark), y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM + 4)
        if x(mark) - half > right + 4 and x(mark) + half < WIDTH:
            _label(svg, x(mark), HEIGHT - BOTTOM + 18, text, "tick", "middle")
            right = x(mark) + half
    add(svg, "line", "axis", x1=LEFT, x2=WIDTH - RIGHT, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM)
    _label(svg, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_title, "tick", "middle")
    if y_title:
        turn = f"rotate(-90 14 {(TOP + HEIGHT - BOTTOM) / 2})"
        add(svg, "text", "tick", y_title, x=14, y=(TOP + HEIGHT - BOTTOM) / 2, text_anchor="middle", transform=turn)
    return svg


def _padded(values: Sequence[float], share: float, least: float = 1e-3) -> Scale:
    """A vertical axis that leaves a share of its height free above and below, and spans `least` or more."""
    low, high = min(values), max(values)
    space = max((high - low) * share, (least - (high - low)) / 2)
    return Scale(low - space, high + space, HEIGHT - BOTTOM, TOP)


def _place_label(svg: Element, x: float, y: float, point: Point, taken: list[Box]) -> None:
    """Writes the label of a point where it covers the least, beside it or, with a line to it, above or below."""
    beside = ((9, 4, "start"), (-9, 4, "end"), (0, -10, "middle"), (0, 18, "middle"))
    corners = ((9, -9, "start"), (-9, -9, "end"), (9, 16, "start"), (-9, 16, "end"))
    away = [(9 * side, 4 + down, "start" if side > 0 else "end") for down in AWAY for side in (1, -1)]
    places = [(x + across, y + down, anchor) for across, down, anchor in (*beside, *corners, *away)]
    boxes = {(left, base, anchor): _box(left, base, point.label, anchor) for left, base, anchor in places}
    inside = [place for place in places if _inside(boxes[place])] or places[:1]
    left, base, anchor = place = min(inside, key=lambda at: sum(_shared(boxes[at], box) for box in taken))
    if abs(base - 4 - y) >= min(map(abs, AWAY)):
        add(svg, "line", "leader", x1=x, y1=y, x2=left, y2=base - 4)
    taken.append(boxes[place])
    _label(svg, left, base, point.label, f"{point.kind}-text", anchor)


def _label(svg: Element, x: float, y: float, text: str, kind: str, anchor: str) -> None:
    add(svg, "text", kind, text, x=x, y=y, text_anchor=anchor)


def _box(x: float, y: float, text: str, anchor: str) -> Box:
    width = len(text) * LETTER
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return left, y - 10, left + width, y + 3


def _inside(box: Box) -> bool:
    return box[0] >= LEFT and box[2] <= WIDTH - 2 and box[1] >= TOP - 6 and box[3] <= HEIGHT - BOTTOM


def _shared(first: Box, second: Box) -> float:
    """Area that two boxes share."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)
