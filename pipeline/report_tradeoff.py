"""What a report says of quality against cost: runs beside peers, over MACs and over measured latency."""

from collections.abc import Sequence
from itertools import product
from typing import Literal

from pipeline.budget import short
from pipeline.charts import Point, scatter
from pipeline.peer_figures import LR_SIZE, PUBLISHED, SCALE, TRAINED, Peer
from pipeline.report_document import Block, Pictures, Rows, Section, Table, Words
from pipeline.report_facts import Facts
from pipeline.report_quality import mean_psnr

TITLE = "Quality against cost"
NEAR = 10  # times our MACs, up to which a peer is one to choose instead
MOST = 4  # charts of latency
LEAST = 0.5  # dB that an axis spans, so that differences that nobody sees look like none


def tradeoff_section(runs: Sequence[Facts], peers: Sequence[Peer] | None) -> Section:
    """peers: measured ones; None for the published, which are of x2. MACs are for the LR size of the first run."""
    shown = [facts for facts in runs if facts.verify]
    if not shown:
        return Section(TITLE, [])
    published = peers is None
    known = PUBLISHED if peers is None else tuple(peers)
    scale = shown[0].architecture.scale if shown[0].architecture else None
    if published and scale != SCALE:
        known = ()
    if not _common(shown):
        sets = "; ".join(f"{facts.run}: {', '.join(facts.verify['quality'])}" for facts in shown)
        told = f"Not drawn together: no benchmark is common to these runs, photograph by photograph ({sets})."
        return Section(TITLE, [Words(told, "bad")])
    benchmark, beside = _benchmark(shown, known)
    blocks: list[Block] = []
    latency = _latency_charts(shown, beside, benchmark)
    macs = _macs_chart(shown, beside, benchmark)
    blocks.append(Pictures([*latency, macs], _caption(shown, benchmark, beside, published)))
    if not latency:
        blocks.append(Words("Latency was not measured, so MACs stand for it; they do not rank latency.", "faint"))
    if beside:
        blocks.append(_peer_table(beside, benchmark))
    return Section(TITLE, blocks)


def _benchmark(runs: Sequence[Facts], peers: Sequence[Peer]) -> tuple[str, list[Peer]]:
    """The benchmark of all runs that most peers near in cost state, and the peers that state it.

    Where none states one, it is "" for all images if these are the same in all runs.
    """
    common = _common(runs)
    stated = {name: [peer for peer in peers if name in peer.psnr_y] for name in common}
    macs = runs[0].verify["cost"]["macs"]
    near = {name: [peer for peer in stated[name] if peer.macs and peer.macs < NEAR * macs] for name in common}
    best = max(common, key=lambda name: (len(near[name]), len(stated[name])))
    same = all(facts.verify["quality"].keys() == {*common} for facts in runs)
    return ("" if same and not stated[best] else best), stated[best]


def _common(runs: Sequence[Facts]) -> list[str]:
    """Benchmarks of the same photographs at the same scale in all runs."""

    def photographs(facts: Facts, name: str) -> list[tuple[str, list[int]]] | None:
        means = facts.verify["quality"].get(name)
        return means and [(image["name"], image["lr_size"]) for image in means["images"]]

    return [
        name
        for name in runs[0].verify["quality"]
        if all(photographs(facts, name) == photographs(runs[0], name) for facts in runs)
    ]


def _macs_chart(runs: Sequence[Facts], peers: Sequence[Peer], benchmark: str) -> str:
    height, width = runs[0].verify["budget"]["lr_size"]
    ratio = height * width / (LR_SIZE[0] * LR_SIZE[1])
    points = [
        Point(
            _at(facts, "cost", height * width),
            mean_psnr(facts.verify, facts.verify["deployed"], benchmark),
            _short_name(facts, runs),
        )
        for facts in runs
    ]
    points += [Point(peer.macs * ratio, peer.psnr_y[benchmark], peer.name, "peer") for peer in peers if peer.macs]
    return scatter(
        points,
        title="quality against MACs",
        x_title=f"MACs at LR {height}×{width}",
        y_title="PSNR-Y in dB",
        x_text=short,
        bound=_only({facts.verify["budget"].get("macs") and _at(facts, "budget", height * width) for facts in runs}),
        least=LEAST,
    )


def _latency_charts(runs: Sequence[Facts], peers: Sequence[Peer], benchmark: str) -> list[str]:
    """Of one run without timed peers one chart with all its candidates; else a chart for each, the fastest first.

    Frames of several LR sizes are in charts of their own, and peers, whose times are for one of them, in none.
    """
    rows = [(facts, row) for facts in runs for row in facts.verify.get("latency") or []]
    rows.sort(key=lambda entry: entry[1]["median_ms"])
    candidates = list(dict.fromkeys(row["candidate"] for _, row in rows))
    sizes = _sizes(runs)
    peers = peers if len(sizes) == 1 else ()
    timed = [name for name in candidates if any(name in (peer.latency_ms or {}) for peer in peers)]
    charts = []
    names = timed or (candidates if len(runs) > 1 else [""] if rows else [])
    for chosen, size in product(names, sizes):
        points = [
            Point(
                row["median_ms"],
                mean_psnr(facts.verify, row["candidate"], benchmark),
                _short_name(facts, runs) if chosen else row["candidate"],
            )
            for facts, row in rows
            if (*row["lr_size"],) == size and chosen in ("", row["candidate"]) and _measured(facts, row["candidate"])
        ]
        points += [
            Point(peer.latency_ms[chosen], peer.psnr_y[benchmark], peer.name, "peer")
            for peer in peers
            if chosen and peer.latency_ms and chosen in peer.latency_ms
        ]
        if not points:
            continue
        charts.append(
            scatter(
                points,
                title=f"quality against latency{f', {chosen}' if chosen else ''}",
                x_title=f"median ms for one frame of {size[0]}×{size[1]}",
                y_title="PSNR-Y in dB",
                x_text=lambda value: f"{value:g}",
                bound=_bound_ms(runs, chosen, size),
                least=LEAST,
            )
        )
    return charts[:MOST]


def _sizes(runs: Sequence[Facts]) -> list[tuple[int, int]]:
    """(height, width) of the LR frames that were timed."""
    return list(dict.fromkeys((*row["lr_size"],) for facts in runs for row in facts.verify.get("latency") or []))


def _bound_ms(runs: Sequence[Facts], chosen: str, size: tuple[int, int]) -> float | None:
    """The latency budget of runs that were timed at a size, meant on a candidate, "" for all; None: not just one."""
    profiles = [facts.verify.get("profile") or {} for facts in runs if size in _sizes([facts])]
    return _only({profile.get("budget_ms") for profile in profiles if chosen in ("", profile.get("candidate"))})


def _only(bounds: set[float | None]) -> float | None:
    """The bound, if there is but one."""
    return bounds.pop() if len(bounds) == 1 else None


def _measured(facts: Facts, candidate: str) -> bool:
    """Whether the quality of what was timed is known."""
    return any(row["candidate"] == candidate for row in facts.verify["parity"])


def _at(facts: Facts, of: Literal["cost", "budget"], pixels: int) -> float:
    """MACs, scaled to a frame of other pixels."""
    height, width = facts.verify["budget"]["lr_size"]
    return float(facts.verify[of]["macs"] * pixels / (height * width))


def _short_name(facts: Facts, runs: Sequence[Facts]) -> str:
    return "ours" if len(runs) == 1 else facts.run.rstrip("/").rpartition("/")[2]


def _caption(runs: Sequence[Facts], benchmark: str, peers: Sequence[Peer], published: bool) -> str:
    means = runs[0].verify["quality"][benchmark] if benchmark else runs[0].verify["total"]
    where = f"Mean over {benchmark or 'all photographs'}, where bicubic has {means['bicubic_psnr_y']:.2f} dB"
    if len(_sizes(runs)) > 1:
        where += ". The runs have frames of several LR sizes: each has charts of latency of its own, MACs are scaled"
    if peers:
        trained = f": {TRAINED}, on other images than ours" if published else ""
        return f"{where}. Grey: peers{trained}."
    names = ", ".join(dict.fromkeys(name for peer in PUBLISHED for name in peer.psnr_y))
    reason = f"published figures are for x{SCALE} on {names}" if published else "none states a benchmark of this run"
    return f"{where}. No peers are drawn: {reason}."


def _peer_table(peers: Sequence[Peer], benchmark: str) -> Table:
    candidates = list(dict.fromkeys(name for peer in peers for name in peer.latency_ms or {}))
    head = (
        "peer",
        f"{benchmark} dB",
        f"MACs at {LR_SIZE[0]}×{LR_SIZE[1]}",
        *(f"{name} ms" for name in candidates),
        "trained",
    )
    rows: Rows = [
        (
            peer.name,
            f"{peer.psnr_y[benchmark]:.2f}",
            short(peer.macs) if peer.macs else "–",
            *(
                f"{peer.latency_ms[name]:.2f}" if peer.latency_ms and name in peer.latency_ms else "–"
                for name in candidates
            ),
            peer.trained,
        )
        for peer in sorted(peers, key=lambda peer: peer.macs or 0)
    ]
    return Table(head, rows, "peers", (0, len(head) - 1), folded=True)
