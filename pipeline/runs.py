"""What a run is, read from its files without torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.architecture import architecture_from_json, summary
from pipeline.budget import Budget
from pipeline.command_lines import folders_from_manifest
from pipeline.errors import StaleArtifact
from pipeline.manifest import MODELS, check_outputs, read_manifest
from pipeline.verdict import SCHEMA

STAGES = ("search", "export", "verify")
VERDICT = ("deployed", "quality", "total", "parity", "latency", "not_run", "failures", "passed")


def facts_from_run(run: Path) -> dict[str, Any]:
    """JSON values: the architecture, its cost beside the budget, the seed, the state of every stage, and the verdict.

    latency_measured: whether the latency in the cost was measured on its device; else its profile's model predicts it.
    The entries of `VERDICT` are those of RUN/verify/report.json; without a verification that still counts there is only
    "passed", and it is None.
    Raises ConfigError where there is no run, StaleArtifact where its search is unfinished or was changed since.
    """
    manifest = check_outputs(run / "search")
    architecture = architecture_from_json((run / "search" / "architecture.json").read_text(encoding="utf-8"))
    report = report_of(run, "search")
    stages = {stage: state_of(run, stage) for stage in STAGES}
    verified = stages["verify"]["finished"] and not stages["verify"]["stale"]
    verdict = report_of(run, "verify") if verified else {"passed": None}
    return {
        "run": str(run),
        "architecture_id": architecture.id,
        "summary": summary(architecture),
        "architecture": json.loads(architecture.to_json()),
        "budget": verdict.get("budget", report["budget"]),
        "cost": verdict.get("cost", report["cost"]),
        "share": verdict.get("share", report["share"]),
        "latency_measured": _latency_measured(verdict if "cost" in verdict else report),
        "seed": manifest.seed,
        "stages": stages,
        **{name: verdict[name] for name in VERDICT if name in verdict},
    }


def _latency_measured(report: Mapping[str, Any]) -> bool:
    """By what verify says of the budget's profile, or by the finalists of a search."""
    if (profile := report.get("profile")) is not None:
        return profile["measured_ms"] is not None
    return any(row["architecture_id"] == report["architecture_id"] for row in report.get("finalists") or [])


def budget_of_run(run: Path) -> Budget:
    """The budget that the run was searched for. Raises as facts_from_run."""
    check_outputs(run / "search")
    budget = report_of(run, "search")["budget"]
    return Budget(**budget | {"lr_size": tuple(budget["lr_size"])})


def benchmarks_of_run(run: Path) -> list[str]:
    """The folders that the run was verified on last; empty where it never was."""
    try:
        return folders_from_manifest(read_manifest(run / "verify"))
    except StaleArtifact:
        return []


def report_of(run: Path, stage: str) -> dict[str, Any]:
    """RUN/<stage>/report.json. Raises StaleArtifact where it cannot be read."""
    path = run / stage / "report.json"
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StaleArtifact(f"{path} cannot be read: {error}", f"run `sr-pipeline {stage}` again") from error
    return report


def state_of(run: Path, stage: str) -> dict[str, Any]:
    """finished: when, None if never; stale: why it no longer counts, None if it does; outputs: names of its files."""
    never: dict[str, Any] = {"finished": None, "stale": None, "outputs": []}
    if not (run / stage / "manifest.json").is_file():
        return never
    try:
        manifest = check_outputs(run / stage)
        for name, recorded in manifest.inputs.items():
            source, _, output = name.partition("/")
            is_model = source in STAGES and name.endswith(MODELS)
            if is_model and read_manifest(run / source).outputs.get(output) != recorded:
                raise StaleArtifact(f"{name} was written again since")
        if stage == "verify":
            exported = [f"export/{output}" for output in read_manifest(run / "export").outputs]
            if added := [name for name in exported if name.endswith(MODELS) and name not in manifest.inputs]:
                raise StaleArtifact(f"{', '.join(added)} came to it since; verify again")
            if (schema := report_of(run, stage).get("schema")) != SCHEMA:
                raise StaleArtifact(f"its report has schema {schema}, this version reads schema {SCHEMA}; verify again")
    except StaleArtifact as error:
        return never | {"stale": error.message}
    return {"finished": manifest.created, "stale": None, "outputs": list(manifest.outputs)}
