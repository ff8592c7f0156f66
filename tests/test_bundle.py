import zipfile
from pathlib import Path

import pytest

import deploy
from deploy.bundle import open_bundle
from pipeline.architecture import Architecture, Cell
from pipeline.bundle import PARTS, write_bundle
from pipeline.errors import BackendMissing, ConfigError
from pipeline.workload import Task

TASK = Task(2, "rgb", (12, 16))
NETWORK = Architecture("edge", 2, "rgb", 8, (Cell(("conv3", "conv3"), (8,)),))


def test_zip_holds_models_what_times_them_and_how_to(tmp_path: Path) -> None:
    paths = [tmp_path / "new" / name for name in ("one.zip", "two.zip")]
    bundles = [write_bundle(path, TASK, [NETWORK], "openvino", "bf16", 3) for path in paths]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with open_bundle(paths[0]) as (folder, bundle):
        assert bundle == bundles[0]
        files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        for part in PARTS:
            assert (folder / "deploy" / part).read_bytes() == (Path(deploy.__file__).parent / part).read_bytes()
        text = (folder / "README.txt").read_text()
    models = {"models/calibration.onnx", "models/001.onnx"}
    assert files == {"README.txt", "bundle.json", *models, *(f"deploy/{part}" for part in PARTS)}
    for words in ("openvino in bf16", "12x16", "python -m deploy.measure . -o result.json", "about 3 minutes"):
        assert words in text
    with zipfile.ZipFile(paths[0]) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_DEFLATED}


@pytest.mark.parametrize(
    ("runtime", "precision", "package"),
    [("onnxruntime", "fp32", "onnxruntime"), ("onnxruntime cuda", "fp16", "onnxruntime-gpu")],
)
def test_bundle_names_the_package_that_the_device_needs(
    tmp_path: Path, runtime: str, precision: str, package: str
) -> None:
    write_bundle(tmp_path / "out.zip", TASK, [NETWORK], runtime, precision, 3)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert f"numpy and {package}. " in archive.read("README.txt").decode()


def test_nothing_is_left_of_a_bundle_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(BackendMissing, match="onnxruntime does not run bf16 here"):
        write_bundle(tmp_path / "out.zip", TASK, [NETWORK], "onnxruntime", "bf16", 3)
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="cannot write"):
        write_bundle(tmp_path / "taken", TASK, [NETWORK], "onnxruntime", "fp32", 3)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
