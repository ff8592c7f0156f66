"""What a report says of quality: against the photographs, and of each form against the training form."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from pipeline.report_document import Block, Rows, Section, Table, word
from pipeline.report_facts import Facts

MOST_IMAGES = 12  # sets with more are too long for a comment
SAME_DB = 200.0  # a PSNR that stands for equal images


def quality_section(facts: Facts) -> Section:
    report = facts.verify
    if not report:
        return Section("Quality", [])
    head = ("", "photographs", "bicubic dB", "ours dB", "gain", "bicubic SSIM", "ours SSIM")
    rows = [(name, str(means["photographs"]), *_quality_cells(means)) for name, means in report["quality"].items()]
    several = len(rows) > 1
    if several:
        rows.append(("all", str(report["total"]["photographs"]), *_quality_cells(report["total"])))
    caption = f"luma PSNR and SSIM of {report['deployed']} against the photographs"
    blocks: list[Block] = [Table(head, rows, caption, total=several)]
    for name, means in report["quality"].items():
        images = sorted(means["images"], key=lambda image: image["psnr_y"] - image["bicubic_psnr_y"])
        each: Rows = [(image["name"], *_quality_cells(image)) for image in images]
        caption = f"{name}, image by image, the least gain first"
        blocks.append(Table(("", *head[2:]), each, caption, folded=True, long=len(each) > MOST_IMAGES))
    return Section("Quality", blocks)


def precision_section(facts: Facts) -> Section:
    """Every form beside the training form: what it loses, and how far its outputs are."""
    report = facts.verify
    if not report:
        return Section("Quality and parity by precision", [])
    losses: Rows = []
    parities: Rows = []
    for row in report["parity"]:
        name = row["candidate"]
        kept = row["mean_drop_db"] <= row["mean_quality_drop_db"] and row["worst_drop_db"] <= row["max_quality_drop_db"]
        close = row["psnr_between_db"] >= row["tolerance"]
        losses.append(
            (
                name,
                f"{mean_psnr(report, name):.3f}",
                f"{row['mean_drop_db']:z.4f}",
                f"{row['mean_quality_drop_db']:g}",
                f"{row['worst_drop_db']:z.4f}",
                f"{row['max_quality_drop_db']:g}",
                row["worst_drop_image"],
                word(kept),
            )
        )
        parities.append(
            (
                name,
                parity_text(row["mean_psnr_between_db"]),
                parity_text(row["psnr_between_db"]),
                row["worst_image"],
                f"{row['tolerance']:g} dB",
                "not finite" if row["max_abs"] is None else f"{row['max_abs']:.1e}",
                word(close),
            )
        )
    reference = report["parity"][0]["reference"]
    lost_head = ("form", "PSNR-Y dB", "drop, mean", "allowed", "drop, worst", "allowed", "on", "")
    close_head = ("form", "mean", "worst", "on", "needed", "largest gap", "")
    return Section(
        "Quality and parity by precision",
        [
            Table(lost_head, losses, f"quality beside the {reference}, in dB of PSNR-Y", (0, 6, 7)),
            Table(close_head, parities, f"parity: PSNR between its outputs and those of the {reference}", (0, 3, 6)),
        ],
    )


def mean_psnr(report: Mapping[str, Any], form: str, benchmark: str = "") -> float:
    """PSNR-Y in dB of a form, the mean over the images of a benchmark, or of all."""
    return fmean(
        image["forms"][form]["psnr_y"]
        for name, means in report["quality"].items()
        if benchmark in ("", name)
        for image in means["images"]
    )


def parity_text(decibels: float) -> str:
    return "equal" if decibels >= SAME_DB else f"{decibels:.1f} dB"


def _quality_cells(figures: Mapping[str, float]) -> Sequence[str]:
    return (
        f"{figures['bicubic_psnr_y']:.2f}",
        f"{figures['psnr_y']:.2f}",
        f"{figures['psnr_y'] - figures['bicubic_psnr_y']:+.2f}",
        f"{figures['bicubic_ssim_y']:.4f}",
        f"{figures['ssim_y']:.4f}",
    )
