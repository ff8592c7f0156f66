"""What a report says of its figures: how they were measured, on what, and how to have them again."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.command_lines import command_lines
from pipeline.report_document import Lines, Rows, Section, Table, Words
from pipeline.report_facts import Facts

PROTOCOL = (
    "PSNR-Y and SSIM are of the luma of BT.601 as MATLAB has it, of 8-bit images, with as many pixels cropped at each "
    "border as the scale; low-resolution images are made by MATLAB's bicubic where none are given. Parity is the PSNR "
    "between the float outputs of two forms, with a peak of 1. One MAC is one multiply-add of a convolution. Exported "
    "models were run by the code that ships with them, in deploy/."
)


def method_section(facts: Facts) -> Section:
    manifests = facts.manifests
    heads = [*manifests]
    machines = {
        key: [manifests[stage].machine.get(key, "–") for stage in heads] for key in ("processor", "cores", "platform")
    }
    packages = list(dict.fromkeys(name for manifest in manifests.values() for name in manifest.versions))
    rows: Rows = [("finished", *(manifests[stage].created for stage in heads))]
    rows += [(key, *values) for key, values in machines.items()]
    versions = [(name, *(manifests[stage].versions.get(name, "–") for stage in heads)) for name in packages]
    read = [(stage, name, found[:12]) for stage in heads for name, found in manifests[stage].inputs.items()]
    wrote = [(stage, name, found[:12]) for stage in heads for name, found in manifests[stage].outputs.items()]
    left = tuple(range(len(heads) + 1))
    return Section(
        "How it was measured",
        [
            Words(PROTOCOL),
            *([Words(timing)] if (timing := _timing_words(facts)) else []),
            Table(("", *heads), rows, "when and where", left),
            Table(("package", *heads), versions, "versions", left, folded=True),
            Words("The same run again, in these lines; settings that are not named have their defaults:"),
            Lines(command_lines(facts.run, manifests)),
            Table(("stage", "read", "SHA-256"), read, "what each stage read", (0, 1, 2), folded=True, long=True),
            Table(("stage", "wrote", "SHA-256"), wrote, "what each stage wrote", (0, 1, 2), folded=True, long=True),
        ],
    )


def _timing_words(facts: Facts) -> str:
    rows: Sequence[Mapping[str, Any]] = facts.verify.get("latency") or []
    if not rows:
        return ""
    runs, threads, frames, devices = (
        " or ".join(sorted({str(text(row)) for row in rows}))
        for text in (
            lambda row: row["runs"],
            lambda row: row["threads"],
            lambda row: f"{row['lr_size'][0]}×{row['lr_size'][1]}",
            lambda row: row["device"],
        )
    )
    return (
        f"Latency is wall time of one frame of {frames} on {devices}, {threads} threads, {runs} runs of each "
        "candidate. All were timed in one process and in turns, one call of each in a round and in another order every "
        "round, so a busy machine slows all of them alike. Neither the first rounds count nor calls that lost the "
        "processor to something else; p50, p90 and p99 are over the rest."
    )
