"""Reads all that a report tells of a run from its files, and leaves out what is unfinished or no longer counts."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.architecture import Architecture, architecture_from_json
from pipeline.errors import StaleArtifact
from pipeline.manifest import Manifest, read_manifest
from pipeline.runs import STAGES, report_of, state_of

MODELS = (".onnx", ".engine")


@dataclass(frozen=True, slots=True)
class Crops:
    """PNG files of a photograph and of its detail by bicubic, by the network, and as it is; PSNR-Y in dB."""

    name: str
    bicubic_psnr_y: float
    psnr_y: float
    photograph: bytes
    bicubic: bytes
    ours: bytes
    truth: bytes


@dataclass(frozen=True, slots=True)
class Facts:
    """A run as its files tell it.

    passed: its verdict, None where there is none that counts. missing: stage -> why it is not shown.
    manifests: of the stages that are shown. search, verify: their reports, {} where they are not shown.
    models: name of an exported file -> its bytes. picture: comparison.png, where verify left no crops.
    """

    run: str
    passed: bool | None
    missing: dict[str, str]
    manifests: dict[str, Manifest]
    architecture: Architecture | None
    search: dict[str, Any]
    history: list[dict[str, Any]]
    models: dict[str, int]
    verify: dict[str, Any]
    crops: list[Crops]
    picture: bytes | None

    @property
    def basis(self) -> dict[str, Any]:
        """Budget, cost and share: verify's where there are both."""
        return self.verify or self.search


def facts_from_files(run: Path) -> Facts:
    """Raises ConfigError where there is no run, StaleArtifact where no stage is finished, or a file is damaged."""
    states = {stage: state_of(run, stage) for stage in STAGES}
    shown = [stage for stage, state in states.items() if state["finished"] and not state["stale"]]
    if not shown:
        read_manifest(run / "search")  # says which of the two it is, with a hint
        raise StaleArtifact(f"{run}: {states['search']['stale']}", f"run `sr-pipeline search -o {run}`")
    manifests = {stage: read_manifest(run / stage) for stage in shown}
    missing = {
        stage: states[stage]["stale"] or f"not finished; run `{_command(stage, run)}`"
        for stage in STAGES
        if stage not in shown
    }
    search = report_of(run, "search") if "search" in shown else {}
    verify = report_of(run, "verify") if "verify" in shown else {}
    crops = _crops(run / "verify", verify.get("examples", []))
    picture = run / "verify" / "comparison.png"
    return Facts(
        run=str(run),
        passed=None if missing else verify["passed"],
        missing=missing,
        manifests=manifests,
        architecture=_architecture(run) if "search" in shown else None,
        search=search,
        history=_history(run) if "search" in shown else [],
        models={name: (run / "export" / name).stat().st_size for name in _models(manifests.get("export"))},
        verify=verify,
        crops=crops,
        picture=picture.read_bytes() if verify and not crops and picture.is_file() else None,
    )


def _command(stage: str, run: Path) -> str:
    return f"sr-pipeline {stage} {'-o ' if stage == 'search' else ''}{run}"


def _architecture(run: Path) -> Architecture:
    return architecture_from_json((run / "search" / "architecture.json").read_text(encoding="utf-8"))


def _history(run: Path) -> list[dict[str, Any]]:
    """One row for each look at the network that would have been delivered; none where they were not kept."""
    path = run / "search" / "history.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.strip()]


def _models(manifest: Manifest | None) -> list[str]:
    return [name for name in manifest.outputs if name.endswith(MODELS)] if manifest else []


def _crops(folder: Path, examples: list[dict[str, Any]]) -> list[Crops]:
    return [
        Crops(
            name=example["name"],
            bicubic_psnr_y=example["bicubic_psnr_y"],
            psnr_y=example["psnr_y"],
            **{kind: (folder / "crops" / name).read_bytes() for kind, name in example["files"].items()},
        )
        for example in examples
    ]
