import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from deploy.engine_facts import Shapes, read_engine
from deploy.openvino_runner import OpenVinoRunner
from deploy.runners import OnnxRuntimeRunner
from pipeline.architecture import architecture_from_json
from pipeline.backends import OPENVINO_INT8, TENSORRT_INT8, Precision
from pipeline.errors import BackendMissing, ConfigError, DataError, PipelineError, StaleArtifact
from pipeline.export import export, export_work
from pipeline.manifest import check_outputs, is_current, read_manifest
from pipeline.network import load_network
from pipeline.quantise import quantisers

Run = Callable[..., Path]

FP32: tuple[Precision, ...] = ("fp32",)
SHAPES = Shapes((1, 1, 1), (1, 24, 20), (1, 64, 64))
INT8: tuple[Precision, ...] = ("int8",)
BOTH: tuple[Precision, ...] = ("fp32", "fp16")


def files(run: Path) -> set[str]:
    return {path.name for path in (run / "export").iterdir()}


@pytest.mark.parametrize(
    ("precisions", "names"),
    [
        (FP32, {"model.onnx"}),
        (("fp16",), {"model.fp16.onnx"}),
        (BOTH, {"model.onnx", "model.fp16.onnx"}),
    ],
)
def test_export_writes_what_is_asked_for(searched_run: Run, precisions: tuple[Precision, ...], names: set[str]) -> None:
    run = searched_run()
    models = export(run, precisions)
    assert {precision: path.name for precision, path in models.items()}.keys() == set(precisions)
    assert {path.name for path in models.values()} == names
    assert files(run) == {"plain.safetensors", "manifest.json", *names}
    assert check_outputs(run / "export").outputs.keys() == {"plain.safetensors", *names}


def test_models_compute_what_was_searched(searched_run: Run) -> None:
    run = searched_run()
    frame = np.random.default_rng(0).random((1, 3, 12, 9), np.float32)
    expected = load_network(run / "search" / "weights.safetensors")(torch.from_numpy(frame)).detach().numpy()
    plain_path = run / "export" / "plain.safetensors"
    for precision, path in export(run, BOTH).items():
        with OnnxRuntimeRunner(path) as runner:
            assert runner.metadata.precision == precision
            error = np.abs(runner.infer(frame) - expected).max()
        assert error < (1e-5 if precision == "fp32" else 1e-2)
    plain = load_network(plain_path)
    assert plain.form == "plain"
    assert np.abs(plain(torch.from_numpy(frame)).numpy() - expected).max() < 1e-5


def test_int8_is_told_and_computes_nearly_the_same(searched_run: Run) -> None:
    run = searched_run()
    frames = [np.random.default_rng(seed).random((1, 3, 24, 20), np.float32) for seed in range(3)]
    models = export(run, ("fp32", "int8"), frames=frames, inputs={"calibration/photographs": "ab"})
    assert [path.name for path in models.values()] == ["model.onnx", "model.int8.onnx"]
    with OnnxRuntimeRunner(models["fp32"]) as exact, OnnxRuntimeRunner(models["int8"]) as rounded:
        assert rounded.metadata == replace(exact.metadata, precision="int8")
        error = np.abs(rounded.infer(frames[0]) - exact.infer(frames[0])).max()
    assert 1e-4 < error < 0.5
    properties = {entry.key for entry in onnx.load(models["int8"]).metadata_props}
    assert properties == {entry.key for entry in onnx.load(models["fp32"]).metadata_props}
    assert read_manifest(run / "export").inputs["calibration/photographs"] == "ab"


def test_openvino_has_an_int8_model_of_its_own_where_nncf_is_installed(
    searched_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    if "nncf" not in quantisers():
        pytest.skip("nncf is not installed")
    run = searched_run()
    frames = [np.random.default_rng(seed).random((1, 3, 24, 20), np.float32) for seed in range(3)]

    def current() -> bool:
        return is_current(run / "export", **export_work(run, INT8))

    models = export(run, INT8, frames=frames)
    both = {"plain.safetensors", "manifest.json", "model.int8.onnx", TENSORRT_INT8, OPENVINO_INT8}
    assert files(run) == both
    with OnnxRuntimeRunner(models["int8"]) as one, OpenVinoRunner(run / "export" / OPENVINO_INT8) as other:
        assert one.metadata == other.metadata
        assert np.abs(one.infer(frames[0]) - other.infer(frames[0])).max() < 0.5
    assert current()
    monkeypatch.setattr("pipeline.quantise.find_spec", lambda _: None)
    assert not current()
    export(run, INT8, frames=frames)
    assert files(run) == both - {OPENVINO_INT8}
    assert current()


def test_what_cannot_be_made_leaves_the_folder_as_it_was(searched_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run = searched_run()
    export(run)
    before = files(run), (run / "export" / "manifest.json").read_bytes()
    with pytest.raises(DataError, match="INT8 needs calibration images"):
        export(run, ("fp16", "int8"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendMissing, match="tensorrt-rtx is not installed"):
        export(run, BOTH, engines={"tensorrt-rtx": SHAPES})
    assert (files(run), (run / "export" / "manifest.json").read_bytes()) == before


def test_engines_stand_beside_their_models(searched_run: Run) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    run = searched_run()
    export(run, BOTH, engines={"tensorrt-rtx": SHAPES})
    names = {f"model.{precision}.tensorrt-rtx.engine{end}" for precision in BOTH for end in ("", ".json")}
    assert files(run) == {"plain.safetensors", "manifest.json", "model.onnx", "model.fp16.onnx", *names}
    outputs = check_outputs(run / "export").outputs
    for precision, model in (("fp32", "model.onnx"), ("fp16", "model.fp16.onnx")):
        engine, facts = read_engine(run / "export" / f"model.{precision}.tensorrt-rtx.engine")
        assert (facts.onnx_sha256, facts.properties["precision"]) == (outputs[model], precision)
        assert facts.shapes == SHAPES
        assert engine
    export(run)  # without them
    assert files(run) == {"plain.safetensors", "manifest.json", "model.onnx"}


@pytest.mark.usefixtures("cuda_driver")
@pytest.mark.filterwarnings("ignore:.*Timing cache operations:DeprecationWarning")
def test_timing_cache_is_kept_for_the_next_engine(
    searched_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT for RTX stands in for TensorRT: the two have one API."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    monkeypatch.setitem(sys.modules, "tensorrt", rtx)
    run, elsewhere = searched_run(), tmp_path / "caches" / "timing.cache"
    export(run, engines={"tensorrt": SHAPES})
    kept = run / "export" / "timing.cache"
    assert kept.stat().st_size > 0
    export(run, BOTH, engines={"tensorrt": SHAPES}, timing_cache=elsewhere)
    assert elsewhere.stat().st_size > 0
    assert kept.exists()
    assert "timing.cache" not in check_outputs(run / "export").outputs


def test_model_explains_itself(searched_run: Run) -> None:
    run = searched_run()
    model = onnx.load(export(run)["fp32"])
    properties = {entry.key: entry.value for entry in model.metadata_props}
    architecture = architecture_from_json(properties["architecture"])
    assert architecture == load_network(run / "search" / "weights.safetensors").architecture
    assert (
        properties
        | {
            "schema": "1",
            "value_range": "0..1",
            "scale": "2",
            "color": "rgb",
            "multiple": "1",
            "margin": "5",
            "precision": "fp32",
            "architecture_id": architecture.id,
            "search_psnr_y_db": "31.250",
        }
        == properties
    )
    assert json.loads(properties["versions"]).keys() == {"sr-pipeline", "torch", "onnx"}
    onnx.checker.check_model(model, full_check=True)


def test_model_says_nothing_of_a_psnr_that_was_not_measured(searched_run: Run) -> None:
    run = searched_run()
    (run / "search" / "report.json").write_text("{}")
    with pytest.raises(StaleArtifact):
        export(run)
    manifest = json.loads((run / "search" / "manifest.json").read_text())
    del manifest["outputs"]["report.json"]
    (run / "search" / "manifest.json").write_text(json.dumps(manifest))
    model = onnx.load(export(run)["fp32"])
    assert "search_psnr_y_db" not in {entry.key for entry in model.metadata_props}


def test_same_search_makes_the_same_bytes(searched_run: Run) -> None:
    run = searched_run()

    def exported() -> dict[str, bytes]:
        export(run, BOTH)
        return {name: (run / "export" / name).read_bytes() for name in files(run) - {"manifest.json"}}

    assert exported() == exported()


def test_models_of_an_earlier_export_do_not_stay(searched_run: Run) -> None:
    run = searched_run()
    export(run, BOTH)
    searched_run(seed=1)
    export(run, FP32)
    assert "model.fp16.onnx" not in files(run)


def test_export_is_current_until_something_changes(searched_run: Run) -> None:
    run = searched_run()
    assert not is_current(run / "export", **export_work(run, FP32))
    export(run)
    assert is_current(run / "export", **export_work(run, FP32))
    assert not is_current(run / "export", **export_work(run, BOTH))
    searched_run(seed=1)
    assert not is_current(run / "export", **export_work(run, FP32))


def spoil(run: Path, how: str) -> Path:
    weights = run / "search" / "weights.safetensors"
    match how:
        case "no run":
            return run / "nowhere"
        case "no search":
            (run / "search" / "manifest.json").unlink()
        case "weights changed":
            weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
        case "weights missing":
            weights.unlink()
    return run


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("no run", ConfigError, "no run at"),
        ("no search", StaleArtifact, "has no finished search"),
        ("weights changed", StaleArtifact, "weights.safetensors was changed since search wrote it"),
        ("weights missing", StaleArtifact, "weights.safetensors is missing"),
    ],
)
def test_spoiled_run_is_refused(searched_run: Run, how: str, error: type[PipelineError], message: str) -> None:
    run = spoil(searched_run(), how)
    with pytest.raises(error, match=message) as caught:
        export(run)
    assert "sr-pipeline search" in caught.value.hint
    assert not (run / "export").exists()


def test_unwritable_output_is_the_users_to_mend(searched_run: Run) -> None:
    run = searched_run()
    (run / "export").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot write"):
        export(run)
