import shutil
from pathlib import Path

import pytest

from deploy.engine_facts import read_engine
from deploy.upscale import TILE
from pipeline.backends import engine_fits
from pipeline.config import load_settings
from pipeline.errors import DataError
from pipeline.manifest import read_manifest
from pipeline.runs import report_of
from pipeline.stages import export_run, search_run, verify_run


def test_teacher_is_an_input_of_the_search(small_run: Path, tmp_path: Path) -> None:
    teacher = small_run / "run" / "export" / "model.onnx"
    settings = load_settings(small_run / "small.toml", [f"train.teacher={teacher}", "search.steps=6"])
    search_run(tmp_path / "taught", settings)
    manifest = read_manifest(tmp_path / "taught" / "search")
    assert manifest.inputs["train.teacher"] == read_manifest(teacher.parent).outputs["model.onnx"]
    assert manifest.settings["recipe"]["steps"] == 6


@pytest.mark.parametrize("supported", [True, False])
def test_bf16_that_is_emulated_is_warned_of(
    small_run: Path,
    tmp_path: Path,
    supported: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("pipeline.stages.bf16_supported", lambda _device: supported)
    settings = load_settings(small_run / "small.toml", ["train.precision=bf16", "search.steps=2"])
    search_run(tmp_path / "run", settings)
    assert report_of(tmp_path / "run", "search")["precision"] == "bf16"
    assert ("warning: train.precision is bf16" in capsys.readouterr().err) is not supported


def test_export_keeps_earlier_precisions(small_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run / "run", tmp_path / "run"))
    before = (run / "export" / "manifest.json").read_text()
    export_run(run, {"fp16"})
    assert (run / "export" / "manifest.json").read_text() == before


def test_int8_is_calibrated_on_what_was_trained_on(small_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run / "run", tmp_path / "run"))
    trained, held_out = (f"calibration/{small_run / 'photographs' / name}" for name in ("train", "held-out"))

    def calibrated() -> set[str]:
        manifest = read_manifest(run / "export")
        assert manifest.settings["precisions"] == ["fp16", "fp32", "int8"]
        return {name for name in manifest.inputs if name.startswith("calibration/")}

    export_run(run, {"int8"})
    assert calibrated() == {trained}
    export_run(run, {"int8"}, calibration=[str(small_run / "photographs" / "held-out")])
    assert calibrated() == {held_out}
    before = (run / "export" / "manifest.json").read_text()
    export_run(run, {"fp32"})  # what was asked for before is kept
    assert (run / "export" / "manifest.json").read_text() == before


def test_int8_without_calibration_images_is_refused(small_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run / "run", tmp_path / "run"))
    before = (run / "export" / "manifest.json").read_text()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        export_run(run, {"int8"}, calibration=[str(tmp_path / "empty")])
    with pytest.raises(DataError, match="no folder"):
        export_run(run, {"int8"}, calibration=[str(tmp_path / "nowhere")])
    assert (run / "export" / "manifest.json").read_text() == before


def test_engines_take_every_frame_of_an_image(small_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    run = Path(shutil.copytree(small_run / "run", tmp_path / "run"))
    export_run(run, {"fp32"}, ["tensorrt-rtx"])
    facts = read_engine(run / "export" / "model.fp16.tensorrt-rtx.engine")[1]
    margin = int(facts.properties["margin"])
    assert facts.shapes.optimum == (1, 10, 10)
    assert facts.shapes.hold((1, 1, 1))
    assert facts.shapes.hold((1, TILE + 2 * margin, TILE + 2 * margin))


def test_odd_size_goes_through_all_stages_on_blocks_of_pixels(small_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    run = tmp_path / "run"
    odd = ["search.unshuffle=2", "budget.lr_size=[11, 10]", "search.steps=2"]
    settings = load_settings(small_run / "small.toml", odd)
    search_run(run, settings)
    export_run(run, {"fp32"}, ["tensorrt-rtx"])
    assert read_engine(run / "export" / "model.fp32.tensorrt-rtx.engine")[1].shapes.optimum == (1, 12, 10)
    verify_run(run, settings)
    assert {(*row["lr_size"],) for row in report_of(run, "verify")["latency"]} == {(12, 10)}


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["held-out"], ["held-out"]),
        (["held-out", "train"], ["held-out", "train"]),
        (["Set/HR", "train"], ["Set", "train"]),
    ],
)
def test_benchmarks_have_short_names(small_run: Path, tmp_path: Path, folders: list[str], names: list[str]) -> None:
    run = Path(shutil.copytree(small_run / "run", tmp_path / "run"))
    photographs = tmp_path / "photographs"
    shutil.copytree(small_run / "photographs", photographs)
    shutil.copytree(photographs / "held-out", photographs / "Set" / "HR")
    listed = ", ".join(f'"{photographs / folder}"' for folder in folders)
    verify_run(run, load_settings(small_run / "small.toml", [f"data.benchmarks=[{listed}]"]))
    assert list(report_of(run, "verify")["quality"]) == names


def test_benchmarks_of_one_name_keep_their_folders(small_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run / "run", tmp_path / "run"))
    folders = [str(shutil.copytree(small_run / "photographs" / "held-out", tmp_path / at / "x")) for at in ("a", "b")]
    verify_run(run, load_settings(small_run / "small.toml", [f"data.benchmarks={folders!r}"]))
    assert list(report_of(run, "verify")["quality"]) == folders


def test_fp32_is_exported_with_every_precision(small_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run / "run", tmp_path / "run"))
    shutil.rmtree(run / "export")
    export_run(run, {"fp16"})
    assert read_manifest(run / "export").settings["precisions"] == ["fp16", "fp32"]


def test_an_engine_of_another_version_is_built_again(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    run = Path(shutil.copytree(small_run / "run", tmp_path / "run"))
    export_run(run, {"fp32"}, ["tensorrt-rtx"])
    engine = run / "export" / "model.fp32.tensorrt-rtx.engine"
    before = engine.stat().st_mtime_ns
    export_run(run, {"fp32"})
    assert engine.stat().st_mtime_ns == before
    monkeypatch.setattr(trt, "__version__", "9.9")
    assert not engine_fits(engine)
    export_run(run, {"fp32"})
    assert read_engine(engine)[1].version == "9.9"
    assert engine_fits(engine)
