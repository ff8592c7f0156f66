"""What a report says of the network and how it was found: its operations, and the search step by step."""

from pipeline.architecture import summary
from pipeline.budget import parts_from_architecture
from pipeline.charts import line
from pipeline.diagram import draw_architecture
from pipeline.report_document import Cell, Pictures, Rows, Section, Table, Words
from pipeline.report_facts import Facts


def architecture_section(facts: Facts) -> Section:
    if facts.architecture is None:
        return Section("Architecture", [])
    height, width = facts.search["budget"]["lr_size"]
    parts = list(parts_from_architecture(facts.architecture, (height, width)))
    total = sum(part.macs for part in parts)
    rows: Rows = [
        (
            part.place,
            part.op,
            f"{part.inputs} → {part.outputs}",
            f"{part.macs:,}",
            Cell(f"{part.macs / total:.1%}", bar=part.macs / total),
            f"{part.params:,}",
        )
        for part in parts
    ]
    rows.append(("all", "", "", f"{total:,}", "100 %", f"{sum(part.params for part in parts):,}"))
    head = ("place", "operation", "channels", f"MACs at {height}×{width}", "share", "params")
    drawn = draw_architecture(facts.architecture, (height, width))
    return Section(
        "Architecture",
        [
            Words(f"{summary(facts.architecture)} ({facts.architecture.id})"),
            Pictures([drawn]),
            Table(head, rows, "cost of the plain form, operation by operation", (0, 1), total=True, folded=True),
        ],
    )


def search_section(facts: Facts) -> Section:
    report, history = facts.search, facts.history
    if "cut_step" not in report:
        return Section("Search", [])
    seconds, step = report["seconds"], report["step_seconds"]
    computed = f" in {report['precision']}" if "precision" in report else ""
    computed += " on an NVIDIA GPU" if report.get("train_device") == "cuda" else ""
    told = (
        f"{report['steps']:,} steps{computed}, relaxation {report['relaxation']}. One network was left after step "
        f"{report['cut_step']:,}, and the PSNR-Y changed by {report['cut_gap_db']:.3f} dB there. Searching took "
        f"{seconds['search']:.0f} s ({1e3 * step['search']:.0f} ms a step), training the network that was found "
        f"{seconds['train']:.0f} s ({1e3 * step['train']:.0f} ms a step)."
    )
    tried: Rows = [
        (row["architecture"], f"{row['predicted_ms']:.2f}", f"{row['measured_ms']:.2f}")
        for row in report.get("finalists") or []
    ]
    caption = "networks measured on the device of the latency budget, scaled by its calibration"
    finalists = [Table(("finalist", "predicted ms", "measured ms"), tried, caption)] if tried else []
    if not history:
        return Section("Search", [Words(told), *finalists, Words("The figures on the way were not kept.", "faint")])
    kinds = (
        ("psnr_y", "PSNR-Y in dB, on images that are watched", None, None),
        ("loss", "running mean of the loss", None, None),
        ("share", "share of the budget", lambda value: f"{value:.0%}", 1.0),
        ("radius", "radius of the relaxation", None, None),
    )
    svgs = [
        line(
            [(row["step"], row[name]) for row in history],
            title=title,
            x_title="step",
            y_text=text,
            cut=report["cut_step"],
            bound=bound,
        )
        for name, title, text, bound in kinds
        if all(row.get(name) is not None for row in history)
    ]
    caption = (
        "PSNR-Y and the share of the budget are of the network that would have been delivered at that step. Dotted: "
        "where one network was left."
    )
    if any(row.get("radius") is None for row in history):
        caption += " The radius was not recorded by the version that searched."
    return Section("Search", [Words(told), *finalists, Pictures(svgs, caption)])
