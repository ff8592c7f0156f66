from itertools import combinations
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest

from pipeline import charts
from pipeline.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Point,
    Range,
    Scale,
    line,
    linear_ticks,
    ranges,
    scatter,
)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (36.4, 37.1, [36.4, 36.6, 36.8, 37.0]), (0, 6000, [0, 2000, 4000, 6000])],
)
def test_ticks_are_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert linear_ticks(low, high) == pytest.approx(ticks)


def test_logarithmic_axis() -> None:
    scale = Scale(3e9, 3e11, 0, 100, log=True)
    assert scale(3e10) == pytest.approx(50)
    assert scale.ticks == pytest.approx([5e9, 1e10, 2e10, 5e10, 1e11, 2e11])


def drawn(points: list[Point], **others: Any) -> Element:
    fields: dict[str, Any] = {"title": "t", "x_title": "x", "y_title": "y", "x_text": str, "least": 0.5} | others
    return fromstring(scatter(points, **fields))


def circles(svg: Element) -> list[tuple[float, float]]:
    return [(float(circle.get("cx", "")), float(circle.get("cy", ""))) for circle in svg.iter("circle")]


@pytest.mark.parametrize(
    "points",
    [
        [Point(10, 30, "a"), Point(20, 31, "b", "peer"), Point(12, 33, "c", "peer")],
        [Point(3, 30, "a"), Point(300, 31, "b", "peer")],
        [Point(5, 30, "alone")],
        [Point(5, 30, "same"), Point(5, 30, "same too")],
    ],
    ids=["linear", "logarithmic", "one", "equal"],
)
def test_points_stand_inside_and_in_order(points: list[Point]) -> None:
    svg = drawn(points, bound=8)
    found = circles(svg)
    assert len(found) == len(points)
    for x, y in found:
        assert LEFT <= x <= WIDTH - RIGHT
        assert TOP <= y <= HEIGHT - BOTTOM
    by_kind = [
        *[point for point in points if point.kind == "peer"],
        *[point for point in points if point.kind == "ours"],
    ]
    across = sorted(zip([point.x for point in by_kind], [x for x, _ in found], strict=True))
    assert [x for _, x in across] == sorted(x for _, x in across)
    assert {point.label for point in points} <= {text.text for text in svg.iter("text")}
    assert [element.get("class") for element in svg.iter("line")].count("bound") == 1


@pytest.mark.parametrize("count", [4, 10])
def test_labels_do_not_cover_one_another(count: int) -> None:
    """Ten forms of one network are as good as each other, and half of them take as long."""
    svg = drawn(
        [Point(10 + index / 100, 30 + index / 1000, f"runtime and precision {index}") for index in range(count)]
    )
    labels = [text for text in svg.iter("text") if (text.text or "").startswith("runtime")]
    boxes = [
        charts._box(float(text.get("x", "")), float(text.get("y", "")), text.text or "", text.get("text-anchor", ""))
        for text in labels
    ]
    assert len(boxes) == count
    assert not any(charts._shared(first, second) for first, second in combinations(boxes, 2))
    assert all(charts._inside(box) for box in boxes)
    assert count < 10 or "leader" in {element.get("class") for element in svg.iter("line")}


def test_small_differences_look_small() -> None:
    first, second = circles(drawn([Point(1, 30, "a"), Point(2, 30.01, "b")], least=0.5))
    assert 0 < first[1] - second[1] < 0.05 * HEIGHT


def test_line_follows_the_values() -> None:
    values = [(1.0, 28.0), (100.0, 30.0), (200.0, 29.0)]
    svg = fromstring(line(values, title="t", x_title="step", cut=80, bound=31))
    points = [tuple(map(float, pair.split(","))) for pair in svg.find("polyline").get("points").split()]  # type: ignore[union-attr]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert points[1][1] < points[2][1] < points[0][1]
    assert {"cut", "bound", "grid"} <= {element.get("class") for element in svg.iter("line")}


def test_line_of_equal_values_is_drawn() -> None:
    assert "polyline" in line([(1, 0.0), (2, 0.0)], title="t", x_title="step")


def test_ranges_reach_from_p10_to_p90() -> None:
    svg = fromstring(ranges([Range("a", 9, 10, 11, 20), Range("b", 30, 40, 50, 60)], title="t", unit="ms", bound=15))
    first, second = (element for element in svg.iter("rect"))
    assert float(second.get("width", "")) == pytest.approx(10 * float(first.get("width", "")), rel=0.01)
    texts = {text.text for text in svg.iter("text")}
    assert {"a, 10.00 ms", "b, 40.00 ms", "budget 15 ms"} <= texts
