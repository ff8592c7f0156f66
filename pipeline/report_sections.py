"""What a report says of a run: its verdict, key figures and sections, from its facts."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.backends import candidate_model
from pipeline.budget import short
from pipeline.peer_figures import Peer
from pipeline.report_document import (
    Article,
    Block,
    Cell,
    Figure,
    Photographs,
    Rows,
    Section,
    Table,
    Verdict,
    Words,
    word,
)
from pipeline.report_facts import Facts
from pipeline.report_latency import fastest, latency_section, layers_section, size
from pipeline.report_method import method_section
from pipeline.report_network import architecture_section, search_section
from pipeline.report_quality import parity_text, precision_section, quality_section
from pipeline.report_tradeoff import tradeoff_section


def article_from_facts(facts: Facts, peers: Sequence[Peer] | None) -> Article:
    """peers: measured ones; None for those that are published."""
    verdict: Verdict = "no verdict" if facts.passed is None else "passed" if facts.passed else "failed"
    problems = [failure["message"] for failure in facts.verify.get("failures", [])]
    problems += [f"{stage}: {why}" for stage, why in facts.missing.items()]
    seed = facts.manifests["search"].seed if "search" in facts.manifests else None
    told = facts.basis.get("architecture", "")
    sections = [
        latency_section(facts),
        quality_section(facts),
        precision_section(facts),
        tradeoff_section([facts], peers),
        _crops_section(facts),
        architecture_section(facts),
        layers_section(facts),
        search_section(facts),
        method_section(facts),
    ]
    return Article(
        name=facts.run,
        subtitle=", ".join([told, *([f"seed {seed}"] if seed is not None else [])]),
        verdict=verdict,
        figures=key_figures(facts),
        problems=problems,
        sections=[section for section in sections if section.blocks],
    )


def key_figures(facts: Facts) -> list[Figure]:
    """Quality, time, cost, parity and size, as far as they are known."""
    basis, report, figures = facts.basis, facts.verify, list[Figure]()
    if report:
        total = report["total"]
        gain = total["psnr_y"] - total["bicubic_psnr_y"]
        note = f"{gain:+.2f} over bicubic, {report['deployed']}, mean of {total['photographs']} photographs"
        figures.append(Figure("PSNR-Y", f"{total['psnr_y']:.2f} dB", note))
    if row := _of_deployed(report, "latency"):
        note = f"{1000 / row['median_ms']:.0f} frames/s, {row['candidate']}"
        if (first := fastest(facts)) and first is not row:
            note += f"; the fastest that passes: {first['median_ms']:.2f} ms, {first['candidate']}"
        figures.append(Figure("latency", f"{row['median_ms']:.2f} ms", note))
    profile = report.get("profile") or {}
    if profile.get("budget_ms"):
        note = f"{profile['latency_ms'] / profile['budget_ms']:.1%} of the budget of {profile['budget_ms']:g} ms"
        label = "on its profile" if profile["measured_ms"] is not None else "predicted"
        figures.append(Figure(label, f"{profile['latency_ms']:.2f} ms", f"{note}, {profile['name']}"))
    if basis:
        for name, label in (("macs", "MACs"), ("params", "params")):
            used, bound = basis["cost"][name], basis["budget"][name]
            limit = f"{used / bound:.1%} of the budget of {short(bound)}" if bound else "no bound"
            where = f"at {_frame(basis['budget']['lr_size'])}, " if name == "macs" else ""
            figures.append(Figure(label, short(used), where + limit))
    if row := _of_deployed(report, "parity"):
        note = f"{row['candidate']}, worst image; {row['tolerance']:g} dB needed"
        figures.append(Figure("parity", parity_text(row["psnr_between_db"]), note))
    name = _deployed_model(facts)
    if name in facts.models:
        figures.append(Figure("model", size(facts.models[name]), name))
    return figures


def _of_deployed(report: Mapping[str, Any], table: str) -> dict[str, Any] | None:
    """The row of a table that is of the form whose quality is stated."""
    return next((row for row in report.get(table) or [] if row["candidate"] == report["deployed"]), None)


def _deployed_model(facts: Facts) -> str:
    """Name of the file whose quality is stated; before `verify`, that of the first model."""
    if not facts.verify:
        return next(iter(facts.models), "")
    runtime, _, precision = facts.verify["deployed"].rpartition(" ")
    return candidate_model(runtime, precision)


def comparison(runs: Sequence[Facts], peers: Sequence[Peer] | None) -> list[Block]:
    """Several runs side by side."""
    sets = list(dict.fromkeys(name for facts in runs for name in facts.verify.get("quality", {})))
    head = (
        "run",
        "verdict",
        "LR size",
        "MACs",
        "share of budget",
        "params",
        *(f"{name} dB" for name in sets),
        "gain",
        "fastest ms",
    )
    rows: Rows = []
    for facts in runs:
        quality, total, basis = facts.verify.get("quality", {}), facts.verify.get("total"), facts.basis
        row = fastest(facts)
        verdict = Cell("none", "faint") if facts.passed is None else word(facts.passed)
        cost = (
            (
                _frame(basis["budget"]["lr_size"]),
                short(basis["cost"]["macs"]),
                f"{basis['share']:.1%}",
                short(basis["cost"]["params"]),
            )
            if basis
            else ("–",) * 4
        )
        rows.append(
            (
                facts.run,
                verdict,
                *cost,
                *(f"{quality[name]['psnr_y']:.2f}" if name in quality else "–" for name in sets),
                f"{total['psnr_y'] - total['bicubic_psnr_y']:+.2f}" if total else "–",
                f"{row['median_ms']:.2f} ({row['candidate']})" if row else "not measured",
            )
        )
    caption = (
        "PSNR-Y of the deployed form; gain over bicubic in dB, the mean of all photographs of a run; "
        "the fastest of the forms that pass"
    )
    return [Table(head, rows, caption, left=(0, 1)), *tradeoff_section(runs, peers).blocks]


def _crops_section(facts: Facts) -> Section:
    if not (facts.crops or facts.picture):
        return Section("Photographs", [])
    images = [image for means in facts.verify["quality"].values() for image in means["images"]]
    gains = any(image["psnr_y"] > image["bicubic_psnr_y"] for image in images)
    told = (
        "Where the network gains most over bicubic enlargement."
        if gains
        else "The network gains over bicubic enlargement on no photograph. Here it loses least."
    )
    told += " Details are enlarged without smoothing; PSNR-Y is of the whole photograph."
    return Section("Photographs", [Words(told, "faint"), Photographs(facts.crops, facts.picture)])


def _frame(lr_size: Sequence[int]) -> str:
    return f"{lr_size[0]}×{lr_size[1]}"
