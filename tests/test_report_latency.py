from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.report_document import Table, Words
from pipeline.report_facts import Facts, facts_from_files
from pipeline.report_latency import fastest, latency_section, layers_section, size


@pytest.fixture
def facts(measured_run: Path) -> Facts:
    return facts_from_files(measured_run)


def words(blocks: Any) -> list[tuple[str, str]]:
    return [(block.text, block.tone) for block in blocks if isinstance(block, Words)]


@pytest.mark.parametrize(("count", "text"), [(812, "812 B"), (64_068, "64.1 kB"), (2_500_000, "2.5 MB")])
def test_size(count: int, text: str) -> None:
    assert size(count) == text


def test_fastest_has_passed(facts: Facts) -> None:
    assert (fastest(facts) or {})["candidate"] == "onnxruntime fp32"
    parity = [row | {"passed": row["candidate"] != "onnxruntime fp32"} for row in facts.verify["parity"]]
    failed = replace(facts, verify=facts.verify | {"parity": parity})
    assert (fastest(failed) or {})["candidate"] == "onnxruntime fp16"
    assert fastest(replace(facts, verify={})) is None


@pytest.mark.parametrize(("drift", "warned"), [(0.8, True), (0.9, False), (1.14, False), (1.2, True)])
def test_machine_that_has_drifted_is_told(
    facts: Facts, measured_run: Path, change_report: Callable[..., None], drift: float, warned: bool
) -> None:
    change_report(measured_run, profile=facts.verify["profile"] | {"drift": drift})
    found = words(latency_section(facts_from_files(measured_run)).blocks)
    assert any("has drifted" in text and tone == "bad" for text, tone in found) == warned


def test_figures_that_were_not_taken_are_dashes(facts: Facts) -> None:
    rows = [row | {"first_ms": None, "peak_memory_mib": None, "model_bytes": None} for row in facts.verify["latency"]]
    blocks = latency_section(replace(facts, verify=facts.verify | {"latency": rows})).blocks
    (table,) = (block for block in blocks if isinstance(block, Table) and block.head[0] == "runtime")
    assert [str(cell) for cell in table.rows[0][-4:]] == ["–", "40.0", "–", "–"]
    assert table.caption.endswith("–: measured of ONNX models alone")


def test_layers_are_summed_by_operation(facts: Facts) -> None:
    by_op, each = (block for block in layers_section(facts).blocks if isinstance(block, Table))
    assert [[getattr(cell, "text", cell) for cell in row] for row in by_op.rows] == [
        ["Conv", "4.000", "80.0%"],
        ["DepthToSpace", "1.000", "20.0%"],
        ["all", "5.000", "100 %"],
    ]
    assert [row[0] for row in each.rows] == ["stem", "tail", "shuffle"]


def test_without_a_verification_the_reason_is_given(facts: Facts) -> None:
    missing = replace(facts, verify={}, missing={"verify": "not finished; run `sr-pipeline verify x`"})
    assert words(latency_section(missing).blocks) == [
        ("Not measured: verify: not finished; run `sr-pipeline verify x`.", "faint")
    ]


def test_what_was_predicted_alone_says_why(
    facts: Facts, measured_run: Path, change_report: Callable[..., None]
) -> None:
    elsewhere = {"measured_ms": None, "drift": None, "latency_ms": 11.0, "not_measured": "cpu is A, was B"}
    change_report(measured_run, profile=facts.verify["profile"] | elsewhere)
    found = words(latency_section(facts_from_files(measured_run)).blocks)
    assert any(
        "By the model of profile desk (openvino bf16): 11.00 ms, 73.3% of the budget" in text for text, _ in found
    )
    assert ("Not measured: cpu is A, was B.", "bad") in found
