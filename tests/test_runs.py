import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.budget import Budget
from pipeline.errors import ConfigError, StaleArtifact
from pipeline.export import export
from pipeline.manifest import read_manifest, write_json, write_manifest
from pipeline.runs import VERDICT, benchmarks_of_run, budget_of_run, facts_from_run, report_of, state_of
from pipeline.stages import export_run
from pipeline.verdict import SCHEMA


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run / "run", tmp_path / "run"))


def test_facts_of_a_verified_run(run: Path) -> None:
    facts = facts_from_run(run)
    architecture = json.loads((run / "search" / "architecture.json").read_text())
    report = json.loads((run / "verify" / "report.json").read_text())
    assert facts["architecture"] == architecture
    assert facts["architecture_id"] == report["architecture_id"]
    assert {name: facts[name] for name in VERDICT} == {name: report[name] for name in VERDICT}
    assert (facts["seed"], facts["passed"]) == (0, True)
    assert facts["cost"]["macs"] <= facts["budget"]["macs"] == 400_000
    assert [bool(state["finished"]) for state in facts["stages"].values()] == [True, True, True]
    assert json.loads(json.dumps(facts)) == facts


def test_facts_before_export_and_verification(run: Path) -> None:
    shutil.rmtree(run / "export")
    shutil.rmtree(run / "verify")
    facts = facts_from_run(run)
    assert facts["passed"] is None
    assert "quality" not in facts
    assert facts["stages"]["export"] == facts["stages"]["verify"] == {"finished": None, "stale": None, "outputs": []}
    assert facts["cost"]["params"] > 0


@pytest.mark.parametrize(("measured_ms", "measured"), [(12.5, True), (None, False)])
def test_latency_of_a_verified_run_is_what_verify_says(
    run: Path, change_report: Callable[..., None], measured_ms: float | None, measured: bool
) -> None:
    change_report(run, profile={"measured_ms": measured_ms})
    assert facts_from_run(run)["latency_measured"] == measured


@pytest.mark.parametrize(("finalists", "measured"), [(["another", "this"], True), (["another"], False), ([], False)])
def test_latency_before_verification_is_that_of_a_finalist(run: Path, finalists: list[str], measured: bool) -> None:
    shutil.rmtree(run / "verify")
    folder, manifest, report = run / "search", read_manifest(run / "search"), report_of(run, "search")
    ids = [report["architecture_id"] if name == "this" else name for name in finalists]
    write_json(folder / "report.json", report | {"finalists": [{"architecture_id": found} for found in ids]})
    write_manifest(folder, inputs=manifest.inputs, settings=manifest.settings, outputs=[*manifest.outputs])
    assert facts_from_run(run)["latency_measured"] == measured


def test_verdict_on_an_older_export_does_not_count(run: Path) -> None:
    export(run, ["fp16"])
    facts = facts_from_run(run)
    assert facts["stages"]["export"]["outputs"] == ["plain.safetensors", "model.fp16.onnx"]
    assert "export/model.onnx was written again since" in facts["stages"]["verify"]["stale"]
    assert facts["passed"] is None


def test_verdict_of_another_version_does_not_count(run: Path) -> None:
    folder, manifest = run / "verify", read_manifest(run / "verify")
    write_json(folder / "report.json", report_of(run, "verify") | {"schema": 1})
    write_manifest(folder, inputs=manifest.inputs, settings=manifest.settings, outputs=[*manifest.outputs])
    facts = facts_from_run(run)
    assert (
        facts["stages"]["verify"]["stale"]
        == f"its report has schema 1, this version reads schema {SCHEMA}; verify again"
    )
    assert facts["passed"] is None


def test_changed_output_makes_a_stage_stale(run: Path) -> None:
    (run / "export" / "model.onnx").write_bytes(b"other")
    state = state_of(run, "export")
    assert "was changed" in state["stale"]
    assert state["finished"] is None


def test_budget_is_the_one_searched_for(run: Path) -> None:
    assert budget_of_run(run) == Budget((10, 10), macs=400_000)


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run at"):
        facts_from_run(tmp_path / "nowhere")
    with pytest.raises(StaleArtifact, match="has no finished search"):
        facts_from_run(tmp_path)


def test_unreadable_report(tmp_path: Path) -> None:
    write_json(tmp_path / "search" / "report.json", {"a": 1})
    assert report_of(tmp_path, "search") == {"a": 1}
    (tmp_path / "search" / "report.json").write_text("{")
    with pytest.raises(StaleArtifact, match=r"report.json cannot be read"):
        report_of(tmp_path, "search")


def test_verdict_of_an_earlier_version_does_not_count(run: Path, change_report: Callable[..., None]) -> None:
    change_report(run, schema=1)
    assert "has schema 1" in state_of(run, "verify")["stale"]
    assert facts_from_run(run)["passed"] is None


def test_a_model_that_came_later_is_not_verified(run: Path) -> None:
    export_run(run, {"int8"})
    facts = facts_from_run(run)
    assert "export/model.int8.onnx" in facts["stages"]["verify"]["stale"]
    assert "verify again" in facts["stages"]["verify"]["stale"]
    assert facts["passed"] is None


def test_photographs_may_lie_in_a_folder_that_is_called_as_a_stage(run: Path) -> None:
    folder, manifest = run / "verify", read_manifest(run / "verify")
    inputs = manifest.inputs | {"export/photographs": "ab"}
    write_manifest(folder, inputs=inputs, settings=manifest.settings, outputs=[*manifest.outputs])
    assert facts_from_run(run)["passed"]
    assert "export/photographs" in benchmarks_of_run(run)
