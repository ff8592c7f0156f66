import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.runners import OnnxRuntimeRunner
from deploy.upscale import upscale
from pipeline.enlarge import enlarge, model_from_path
from pipeline.errors import BackendMissing, ConfigError, DataError, StaleArtifact
from pipeline.manifest import read_manifest, write_manifest

MODES = {"L": (9, 7), "LA": (9, 7, 2), "RGB": (9, 7, 3), "RGBA": (9, 7, 4)}


@pytest.fixture
def model(small_run: Path) -> Path:
    return model_from_path(small_run / "run")


def save(path: Path, mode: str = "RGB") -> np.ndarray[Any, np.dtype[np.uint8]]:
    pixels = np.random.default_rng(3).integers(0, 256, MODES[mode], dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize("mode", MODES)
def test_image_keeps_its_kind_and_doubles_its_size(model: Path, tmp_path: Path, mode: str) -> None:
    pixels = save(tmp_path / "photo.png", mode)
    written = enlarge(model, tmp_path / "photo.png", None)
    assert written == [tmp_path / "photo_x2.png"]
    with Image.open(written[0]) as image:
        assert (image.mode, image.size) == (mode, (14, 18))
        with OnnxRuntimeRunner(model) as runner:
            assert np.array_equal(np.asarray(image), upscale(runner, pixels))


def test_folder_beside_its_source_in_order(model: Path, tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "a.png"):
        save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "._b.png").write_text("what a Mac leaves")
    (tmp_path / "photos" / "folder.png").mkdir()
    told: list[Path] = []
    written = enlarge(model, tmp_path / "photos", None, told.append)
    assert [path.name for path in written] == ["a.jpg.png", "a.png.png", "b.png"]
    assert {path.parent for path in written} == {tmp_path / "photos_x2"}
    assert told == written


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("out.jpg", "out.jpg"),
        ("new/out.png", "new/out.png"),
        ("folder", "folder/photo_x2.png"),
        ("new", "new/photo_x2.png"),
    ],
)
def test_single_target(model: Path, tmp_path: Path, target: str, expected: str) -> None:
    save(tmp_path / "photo.png")
    (tmp_path / "folder").mkdir()
    assert enlarge(model, tmp_path / "photo.png", tmp_path / target) == [tmp_path / expected]
    assert (tmp_path / expected).stat().st_size > 0


def test_broken_images_are_named_together_after_the_others_were_written(model: Path, tmp_path: Path) -> None:
    save(tmp_path / "photos" / "good.png")
    for name in ("broken.png", "empty.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"\x89PNG" if "broken" in name else b"")
    with pytest.raises(DataError, match=r"broken.png.*empty.jpg") as caught:
        enlarge(model, tmp_path / "photos", tmp_path / "out")
    assert caught.value.hint
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


@pytest.mark.parametrize(("source", "message"), [("nowhere", "no image or folder at"), ("empty", "no images in")])
def test_nothing_to_enlarge(model: Path, tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        enlarge(model, tmp_path / source, None)


@pytest.mark.parametrize("target", ["photo.png/out.png", "out.unknown", "out.jpg"])
def test_target_that_cannot_be_written(model: Path, tmp_path: Path, target: str) -> None:
    save(tmp_path / "photo.png", "RGBA")
    with pytest.raises(ConfigError, match="cannot write") as caught:
        enlarge(model, tmp_path / "photo.png", tmp_path / target)
    assert "-o" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_model_of_a_run_is_the_most_precise_one(small_run: Path, tmp_path: Path) -> None:
    assert model_from_path(small_run / "run") == small_run / "run" / "export" / "model.onnx"
    half = small_run / "run" / "export" / "model.fp16.onnx"
    assert model_from_path(half) == half
    run = Path(shutil.copytree(small_run / "run", tmp_path / "run"))
    (run / "export" / "model.onnx").write_bytes(b"other")
    with pytest.raises(StaleArtifact, match=r"model.onnx was changed"):
        model_from_path(run)
    with pytest.raises(ConfigError, match="no run or model at"):
        model_from_path(tmp_path / "nowhere")


def test_model_of_a_run_is_that_of_the_precision_asked_for(small_run: Path) -> None:
    run = small_run / "run"
    assert model_from_path(run, "openvino", "bf16") == run / "export" / "model.onnx"
    assert model_from_path(run, "onnxruntime", "fp16") == run / "export" / "model.fp16.onnx"
    with pytest.raises(StaleArtifact, match=r"has no model\.int8\.onnx, which onnxruntime int8 needs") as caught:
        model_from_path(run, "onnxruntime", "int8")
    assert f"run `sr-pipeline export {run} --precision int8`" in caught.value.hint
    with pytest.raises(BackendMissing, match="onnxruntime does not run bf16 here"):
        model_from_path(run, "onnxruntime", "bf16")


def test_engine_of_a_run(small_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run / "run", tmp_path / "run"))
    with pytest.raises(StaleArtifact, match=r"has neither model\.fp16\.tensorrt\.engine nor") as caught:
        model_from_path(run, "tensorrt", "fp16")
    assert f"run `sr-pipeline export {run} --precision fp16 --engine tensorrt`" in caught.value.hint
    (run / "export" / "model.fp32.tensorrt-rtx.engine").write_bytes(b"engine")
    manifest = read_manifest(run / "export")
    outputs = [*manifest.outputs, "model.fp32.tensorrt-rtx.engine"]
    write_manifest(run / "export", inputs=manifest.inputs, settings=manifest.settings, outputs=outputs)
    assert model_from_path(run, "tensorrt") == run / "export" / "model.fp32.tensorrt-rtx.engine"


def test_export_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    write_manifest(tmp_path / "export", inputs={}, settings={}, outputs=[])
    with pytest.raises(StaleArtifact, match="holds no model") as caught:
        model_from_path(tmp_path)
    assert f"run `sr-pipeline export {tmp_path}`" in caught.value.hint


@pytest.mark.parametrize("target", [".", "photo.png"])
def test_what_is_read_is_not_overwritten(model: Path, tmp_path: Path, target: str) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 6), (9, 8, 7)).save(photo)
    before = photo.read_bytes()
    source = photo if target == "photo.png" else tmp_path
    with pytest.raises(ConfigError, match=r"to read from|to enlarge"):
        enlarge(model, source, tmp_path / target)
    assert photo.read_bytes() == before


def test_an_export_of_an_earlier_search_is_stale(small_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(small_run / "run", tmp_path / "run")
    manifest = run / "search" / "manifest.json"
    fields = json.loads(manifest.read_text())
    fields["outputs"]["weights.safetensors"] = "0" * 64
    manifest.write_text(json.dumps(fields))
    with pytest.raises(StaleArtifact, match="searched again"):
        model_from_path(run)


def test_the_folder_one_is_in(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path / "photos")
    assert [path.resolve() for path in enlarge(model, Path(), None)] == [tmp_path / "photos_x2" / "a.png"]
