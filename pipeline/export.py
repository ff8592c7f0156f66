"""The export stage: folds the searched network and writes it as ONNX models that explain themselves."""

import json
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from pipeline.fold import plain_from_network
from pipeline.manifest import atomic_path, check_outputs, claim, versions, write_manifest
from pipeline.model_facts import metadata_from_architecture
from pipeline.network import Network, load_network, save_network
from pipeline.onnx_graph import OPSET, Precision, onnx_from_network

WEIGHTS = "weights.safetensors"
PLAIN = "plain.safetensors"
FP32: tuple[Precision, ...] = ("fp32",)


def export(run: Path, precisions: Collection[Precision] = FP32) -> dict[Precision, Path]:
    """Writes RUN/export from RUN/search: the plain form, and one ONNX model for each precision.

    Models of other precisions, left by an earlier export, are removed: what the folder holds is of one search.
    Raises ConfigError where there is no run or nothing can be written, StaleArtifact where the search is unfinished or
    was changed since.
    """
    search, folder = run / "search", run / "export"
    work = export_work(run, precisions)
    claim(folder)
    plain = plain_from_network(load_network(search / WEIGHTS))
    models = {precision: folder / model_name(precision) for precision in sorted(precisions, reverse=True)}
    (folder / "manifest.json").unlink(missing_ok=True)
    for precision in get_args(Precision):
        (folder / model_name(precision)).unlink(missing_ok=True)
    save_network(folder / PLAIN, plain)
    for precision, path in models.items():
        model = onnx_from_network(plain, precision, {**properties(plain, precision), **_measured(search)})
        with atomic_path(path) as temporary:
            temporary.write_bytes(model.SerializeToString(deterministic=True))
    write_manifest(folder, **work, outputs=[PLAIN, *(path.name for path in models.values())])
    return models


def export_work(run: Path, precisions: Collection[Precision]) -> dict[str, Any]:
    """What this export reads and how it is set, as `manifest.is_current` takes them. Raises as `export` does."""
    searched = check_outputs(run / "search")
    return {
        "inputs": {f"search/{WEIGHTS}": searched.outputs[WEIGHTS]},
        "settings": {"precisions": sorted(precisions), "opset": OPSET},
    }


def model_name(precision: Precision) -> str:
    return "model.onnx" if precision == "fp32" else f"model.{precision}.onnx"


def properties(network: Network, precision: Precision) -> dict[str, str]:
    """What a model tells of itself: how to feed it and how it was made."""
    metadata = metadata_from_architecture(network.architecture, precision)
    made_with = {name: text for name, text in versions().items() if name in ("sr-pipeline", "torch", "onnx")}
    return {
        **metadata.to_properties(),
        "architecture": network.architecture.to_json(),
        "versions": json.dumps(made_with, sort_keys=True),
    }


def _measured(search: Path) -> dict[str, str]:
    """The PSNR-Y that the search reports, in dB on the images it watched; nothing where it reports none."""
    with suppress(OSError, ValueError, KeyError):
        report = json.loads((search / "report.json").read_text(encoding="utf-8"))
        return {"search_psnr_y_db": f"{report['psnr_y']:.3f}"}
    return {}
