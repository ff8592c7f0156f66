"""What a report says of time: latency by runtime and precision, sizes, what could not run, and layer by layer."""

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.charts import Range, ranges
from pipeline.profile import DRIFT
from pipeline.report_document import Block, Cell, Pictures, Rows, Section, Table, Words
from pipeline.report_facts import Facts

AGAIN = "`sr-pipeline verify` measures it"


def fastest(facts: Facts) -> dict[str, Any] | None:
    """The row with the least median of those whose outputs passed, None where there is none."""
    failed = {row["candidate"] for row in facts.verify.get("parity", []) if not row["passed"]}
    rows = [row for row in facts.verify.get("latency") or [] if row["candidate"] not in failed]
    return min(rows, key=lambda row: row["median_ms"], default=None)


def latency_section(facts: Facts) -> Section:
    rows = facts.verify.get("latency") or []
    profile = facts.verify.get("profile") or {}
    blocks: list[Block] = []
    if rows:
        times = [Range(row["candidate"], row["p10_ms"], row["median_ms"], row["p90_ms"], row["p99_ms"]) for row in rows]
        caption = "Dot: median. Bar: p10 to p90. Tick: p99."
        if profile.get("budget_ms"):
            caption += f" The budget is meant on {profile['candidate']}."
        chart = ranges(times, title="time for one frame", unit="ms", bound=profile.get("budget_ms"))
        blocks += [Pictures([chart], caption), _latency_table(rows, fastest(facts))]
    else:
        why = (
            f"verify: {facts.missing['verify']}"
            if "verify" in facts.missing
            else f"this verification has no times; {AGAIN}"
        )
        blocks.append(Words(f"Not measured: {why}.", "faint"))
        if facts.models:
            sizes: Rows = [(name, size(found)) for name, found in facts.models.items()]
            blocks.append(Table(("model", "size"), sizes))
    if profile:
        blocks += _profile_words(profile)
    if missing := facts.verify.get("not_run"):
        lines: Rows = [(row["candidate"], f"not run: {row['reason']}") for row in missing]
        blocks.append(Table(("candidate", "why"), lines, "what could not run here; nothing ran in its place", (0, 1)))
    return Section("Latency", blocks)


def layers_section(facts: Facts) -> Section:
    """Where the time of one frame goes, by the counters of each runtime that has them."""
    blocks: list[Block] = []
    for candidate, layers in (facts.verify.get("layers") or {}).items():
        total = sum(layer["ms"] for layer in layers)
        if not total:
            continue
        by_op = ms_by_operation((layer["op"], layer["ms"]) for layer in layers)
        summed: Rows = [(op, f"{ms:.3f}", Cell(f"{ms / total:.1%}", bar=ms / total)) for op, ms in by_op.items()]
        summed.append(("all", f"{total:.3f}", "100 %"))
        each: Rows = [
            (
                layer["name"],
                layer["op"],
                f"{layer['ms']:.3f}",
                Cell(f"{layer['ms'] / total:.1%}", bar=layer["ms"] / total),
            )
            for layer in layers
        ]
        caption = f"{candidate}, by operation"
        blocks.append(Table(("operation", "ms", "share"), summed, caption, total=True))
        caption = f"{candidate}, layer by layer, in the order of the graph"
        blocks.append(Table(("layer", "operation", "ms", "share"), each, caption, (0, 1), folded=True, long=True))
    if not blocks:
        blocks.append(Words(f"Not measured: the verification has no counters of the runtimes; {AGAIN}.", "faint"))
    return Section("Layer by layer", blocks)


def ms_by_operation(layers: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Operation -> ms of all its layers, the most first. layers: operation and ms of each."""
    found: dict[str, float] = {}
    for op, ms in layers:
        found[op] = found.get(op, 0.0) + ms
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def size(count: int) -> str:
    """Bytes in words: 64.1 kB."""
    for unit, bytes_ in (("MB", 10**6), ("kB", 10**3)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count} B"


def _latency_table(rows: Sequence[dict[str, Any]], best: dict[str, Any] | None) -> Table:
    head = (
        "runtime", "precision", "device", "threads", "p50 ms", "p90 ms", "p99 ms", "frames/s", "first ms", "load ms",
        "peak memory", "model",
    )  # fmt: skip
    body: Rows = [
        (
            row["runtime"],
            row["precision"],
            row["device"],
            str(row["threads"]),
            Cell(f"{row['median_ms']:.2f}", "good" if row is best else ""),
            f"{row['p90_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{1000 / row['median_ms']:.1f}",
            _or_dash(row.get("first_ms"), ".1f"),
            _or_dash(row.get("load_ms"), ".1f"),
            _or_dash(row.get("peak_memory_mib"), ".0f", " MiB"),
            size(row["model_bytes"]) if row.get("model_bytes") is not None else "–",
        )
        for row in rows
    ]
    height, width = rows[0]["lr_size"]
    caption = f"one frame of {height}×{width}; first: the first inference after loading"
    if any(row.get("first_ms") is None for row in rows):
        caption += "; –: measured of ONNX models alone"
    return Table(head, body, caption, (0, 1, 2))


def _profile_words(profile: dict[str, Any]) -> list[Block]:
    """What the verdict goes by: what was measured on the profile's device, elsewhere what its model predicts."""
    used, drift = profile["latency_ms"], profile["drift"]
    share = f"{used / profile['budget_ms']:.1%} of the budget of {profile['budget_ms']:g} ms"
    if profile["measured_ms"] is None:
        told = f"By the model of profile {profile['name']} ({profile['candidate']}): {used:.2f} ms, {share}."
        return [Words(told), Words(f"Not measured: {profile['not_measured']}.", "bad")]
    told = (
        f"Against the profile {profile['name']} ({profile['candidate']}): {used:.2f} ms measured, scaled by its "
        f"calibration; {profile['predicted_ms']:.2f} ms predicted; {share}. "
        f"The calibration took {drift:.2f} times as long as when the profile was made."
    )
    drifted = f"The machine has drifted from its profile by {drift - 1:+.0%}; measure the profile again."
    return [Words(told), *([Words(drifted, "bad")] if abs(drift - 1) > DRIFT else [])]


def _or_dash(value: float | None, spec: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{spec}}{unit}"
