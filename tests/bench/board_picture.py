"""The scoreboard as an SVG picture: PSNR against MACs and latency, of ours, hand-designed networks and peers."""

from collections.abc import Mapping
from statistics import fmean
from typing import Literal
from xml.etree.ElementTree import Element, fromstring

from pipeline.budget import short
from pipeline.charts import HEIGHT, WIDTH, Point, scatter
from pipeline.svg import add, markup, picture
from tests.bench.board import GRID, RUNTIMES
from tests.bench.board_file import elsewhere
from tests.bench.board_tables import hand_bar, means, seeds
from tests.bench.figures import Results
from tests.bench.peers import PEERS, peer_from_name

LEAST = 0.5  # dB that an axis spans, so that differences that nobody sees look like none
FASTEST = "what is fastest for each"
Y_TITLE = "PSNR-Y in dB, Set14 and B100"
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1b1e23; stroke: #fff; stroke-width: 4px; paint-order: stroke; }
.title, .ours-text { font-weight: 600; } .ours-text { fill: #1d5fbf; } .tick, .peer-text { fill: #5d6470; }
.grid { stroke: #dedbd3; } .axis, .tick-mark { stroke: #767d89; } .ours { fill: #1d5fbf; }
.peer { fill: none; stroke: #767d89; stroke-width: 1.5; } .leader { stroke: #767d89; stroke-width: 0.7; }
"""


def picture_of_board(known: Results) -> str:
    """A standalone SVG: a chart over MACs, then one over the latency of each runtime in which something was timed."""
    charts = [_over_macs(known)] if any("/ours/" in name or "/hand/" in name for name in known) else []
    charts += [chart for runtime in RUNTIMES if (chart := _over_latency(runtime, known))]
    svg = picture(WIDTH, max(1, len(charts)) * (HEIGHT + 16), "the search beside hand-designed networks and peers")
    svg.set("xmlns", "http://www.w3.org/2000/svg")
    add(svg, "style", text=STYLE)
    add(svg, "rect", width="100%", height="100%", fill="#fff")
    for at, chart in enumerate(charts):
        svg.append(_placed(chart, at * (HEIGHT + 16)))
    return markup(svg) + "\n"


def _placed(chart: str, y: int) -> Element:
    inner = fromstring(chart)
    for name, value in (("y", y), ("width", WIDTH), ("height", HEIGHT)):
        inner.set(name, str(value))
    return inner


def _over_macs(known: Results) -> str:
    points = []
    for macs, shapes in GRID.items():
        section = f"macs-{macs // 1000}K"
        bar = hand_bar(macs, known)
        for width, depth in shapes:
            shape = f"{width}x{depth}"
            label = shape if bar and bar[0] == (width, depth) else ""  # labels of all would cover one another
            points += _point(f"{section}/hand/{shape}", label, "macs", known, "peer")
        points += _point(f"{section}/ours", "ours", "macs", known, "ours")
    for peer in PEERS:
        points += _point(f"latency/{peer}/peer", _label(peer), "macs", known, "peer")
    return scatter(
        points, title="against MACs", x_title="MACs per LR pixel", y_title=Y_TITLE, x_text=short, least=LEAST
    )


def _over_latency(runtime: str, known: Results) -> str:
    """runtime: of `RUNTIMES`. Empty where nothing that was timed in it is trained yet.

    Without what ran on another device than its peer, which says nothing beside it.
    """
    moved = elsewhere(known)
    known = {name: row for name, row in known.items() if name not in moved}
    points = []
    for peer in PEERS:
        points += _at(f"latency/{peer}/time", runtime, _label(peer), means(f"latency/{peer}/peer", known), known)
        points += _point(f"latency/{peer}/ours {runtime}", "ours", "latency_ms", known, "ours")
    for macs in GRID:
        bar = hand_bar(macs, known)
        label, values = (f"{bar[0][0]}x{bar[0][1]}", [bar[1]]) if bar else ("", [])
        points += _at(f"latency/hand {macs // 1000}K/time", runtime, label, values, known)
    if not points:
        return ""
    title = f"against latency in {FASTEST if runtime == 'best' else runtime}"
    x_title = "median ms for one frame of 360x640"
    return scatter(
        points, title=title, x_title=x_title, y_title=Y_TITLE, x_text=lambda value: f"{value:g}", least=LEAST
    )


def _label(peer: str) -> str:
    """Luma networks leave the chroma to bicubic."""
    return f"{peer} (luma)" if peer_from_name(peer, 2).color == "y" else peer


def _at(name: str, runtime: str, label: str, values: list[float], known: Results) -> list[Point]:
    latency_ms: Mapping[str, float] = known.get(name, {}).get("latency_ms", {})
    ms = min(latency_ms.values(), default=None) if runtime == "best" else latency_ms.get(runtime)
    return [Point(ms, fmean(values), label, "peer")] if ms and values else []


def _point(prefix: str, label: str, figure: str, known: Results, kind: Literal["ours", "peer"]) -> list[Point]:
    """The mean of a row's seeds, where some have run."""
    if not (rows := seeds(prefix, known)):
        return []
    return [Point(fmean(row[figure] for row in rows), fmean(row["psnr_y"]["mean"] for row in rows), label, kind)]
