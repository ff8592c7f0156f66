"""The export stage: folds the searched network and writes it as models that explain themselves."""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from onnx import ModelProto

from deploy.engine_facts import Flavour, Shapes
from deploy.runners import Frame
from pipeline.backends import (
    OPENVINO_INT8,
    TENSORRT_INT8,
    Precision,
    engine_files,
    engine_model_name,
    engine_name,
    model_name,
)
from pipeline.fold import plain_from_network
from pipeline.manifest import atomic_path, check_outputs, claim, versions, write_manifest
from pipeline.model_facts import metadata_from_architecture
from pipeline.network import Network, load_network, save_network
from pipeline.onnx_graph import GRAPH, onnx_from_network
from pipeline.quantise import (
    INT8_MODELS,
    int8_from_onnx,
    openvino_int8_from_onnx,
    quantisers,
    tensorrt_int8_from_onnx,
)

WEIGHTS = "weights.safetensors"
PLAIN = "plain.safetensors"
ORDER = get_args(Precision)  # the most precise first
FP32: tuple[Precision, ...] = ("fp32",)


def export(
    run: Path,
    precisions: Collection[Precision] = FP32,
    *,
    engines: Mapping[Flavour, Shapes] | None = None,
    timing_cache: Path | None = None,
    frames: Sequence[Frame] = (),
    inputs: Mapping[str, str] | None = None,
) -> dict[Precision, Path]:
    """Writes RUN/export from RUN/search: the plain form, one ONNX model for each precision, and engines of each.

    int8 has a second model, which TensorRT's engines are built from, and where nncf is installed a third, for OpenVINO:
    each runtime takes over other roundings. Models of an earlier export are removed: what the folder holds is of one
    search. Where something cannot be made, the folder stays as it was.
    engines: flavours of TensorRT to build for, and the frames that their engines take. timing_cache: what TensorRT
    measured for earlier engines, read and written; RUN/export/timing.cache if None.
    frames: calibration images for int8, as `quantise.int8_from_onnx` takes them. inputs: name -> SHA-256 of what they
    were read from.
    Raises ConfigError where there is no run or nothing can be written, StaleArtifact where the search is unfinished or
    was changed since, DataError for int8 without frames, BackendMissing where an engine cannot be built here.
    """
    search, folder = run / "search", run / "export"
    work = export_work(run, precisions, engines=engines, inputs=inputs)
    claim(folder)
    plain = plain_from_network(load_network(search / WEIGHTS))
    contents: dict[str, bytes] = {}
    paths: dict[Precision, Path] = {}
    for precision in sorted(precisions, key=ORDER.index):
        told = {**properties(plain, precision), **_measured(search)}
        float_model = onnx_from_network(plain, "fp16" if precision == "fp16" else "fp32", told)
        model = _bytes(int8_from_onnx(float_model, frames) if precision == "int8" else float_model)
        paths[precision] = folder / model_name(precision)
        contents[paths[precision].name] = model
        if precision == "int8":
            contents[TENSORRT_INT8] = _bytes(tensorrt_int8_from_onnx(float_model, frames))
            if "nncf" in quantisers():
                contents[OPENVINO_INT8] = _bytes(openvino_int8_from_onnx(float_model, frames))
        for flavour, shapes in (engines or {}).items():
            contents |= engine_files(
                contents[engine_model_name(precision)],
                engine_name(precision, flavour),
                shapes,
                flavour,
                timing_cache or folder / "timing.cache",
            )
    (folder / "manifest.json").unlink(missing_ok=True)
    for earlier in folder.glob("model.*"):
        earlier.unlink()
    save_network(folder / PLAIN, plain)
    for name, content in contents.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
    write_manifest(folder, **work, outputs=[PLAIN, *contents])
    return paths


def export_work(
    run: Path,
    precisions: Collection[Precision],
    *,
    engines: Mapping[Flavour, Shapes] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What this export reads and how it is set, as `manifest.is_current` takes them. Raises as `export` does."""
    searched = check_outputs(run / "search")
    built = {flavour: asdict(shapes) for flavour, shapes in sorted((engines or {}).items())}
    return {
        "inputs": {f"search/{WEIGHTS}": searched.outputs[WEIGHTS], **(inputs or {})},
        "settings": {
            "precisions": sorted(precisions),
            "quantisers": quantisers() if "int8" in precisions else [],
            "int8": INT8_MODELS if "int8" in precisions else 0,
            "engines": built,
            "graph": GRAPH,
        },
    }


def properties(network: Network, precision: Precision) -> dict[str, str]:
    """What a model tells of itself: how to feed it and how it was made."""
    metadata = metadata_from_architecture(network.architecture, precision)
    made_with = {name: text for name, text in versions().items() if name in ("sr-pipeline", "torch", "onnx")}
    return {
        **metadata.to_properties(),
        "architecture": network.architecture.to_json(),
        "versions": json.dumps(made_with, sort_keys=True),
    }


def _bytes(model: ModelProto) -> bytes:
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised


def _measured(search: Path) -> dict[str, str]:
    """The PSNR-Y that the search reports, in dB on the images it watched; nothing where it reports none."""
    with suppress(OSError, ValueError, KeyError):
        report = json.loads((search / "report.json").read_text(encoding="utf-8"))
        return {"search_psnr_y_db": f"{report['psnr_y']:.3f}"}
    return {}
