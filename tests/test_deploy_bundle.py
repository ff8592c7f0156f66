import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from deploy.bundle import INDEX, Bundle, BundleDamaged, BundleUnsafe, Model, bundle_from_dict, check_names, open_bundle
from deploy.runners import DeployError

CONTENT = {"models/calibration.onnx": b"calibration", "models/001.onnx": b"one"}


def model(file: str) -> Model:
    return Model(file, sha256(CONTENT.get(file, b"")).hexdigest(), 1000, {"width": 16})


BUNDLE = Bundle("onnxruntime", "fp32", (36, 64), model("models/calibration.onnx"), (model("models/001.onnx"),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / INDEX).write_text(json.dumps(BUNDLE.to_dict()))
    return folder


def zipped(folder: Path, **more: str) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
        for name, text in more.items():
            archive.writestr(name, text)
    return path


def test_folder_and_zip_hold_the_same(folder: Path) -> None:
    for path in (folder, zipped(folder)):
        with open_bundle(path) as (where, bundle):
            assert bundle == BUNDLE
            assert (where / "models" / "001.onnx").read_bytes() == b"one"
    assert folder.is_dir()
    assert not where.exists()  # what the zip was unpacked into


@pytest.mark.parametrize(
    "name", ["../evil.py", "/etc/evil", "models/../../evil", "..\\evil.py", "C:\\evil.py", "\\evil", "C:evil"]
)
def test_name_that_leaves_the_folder_is_refused_and_nothing_written(folder: Path, name: str) -> None:
    before = sorted(folder.parent.rglob("*"))
    path = zipped(folder, **{name: "evil"})
    with pytest.raises(BundleUnsafe, match="which leaves its folder"), open_bundle(path):
        pytest.fail("it was opened")
    assert sorted(folder.parent.rglob("*")) == sorted([*before, path])
    listed = replace(BUNDLE, models=(replace(BUNDLE.models[0], file=name),))
    (folder / INDEX).write_text(json.dumps(listed.to_dict()))
    with pytest.raises(BundleUnsafe, match=re.escape(repr(name))), open_bundle(folder):
        pytest.fail("it was opened")


def test_link_that_leaves_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.onnx").write_bytes(b"one")
    (folder / "models" / "001.onnx").unlink()
    (folder / "models" / "001.onnx").symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(BundleUnsafe, match="a link that leaves its folder"), open_bundle(folder):
        pytest.fail("it was opened")


@pytest.mark.parametrize("name", ["models/001.onnx", "a..b/c", "README.txt"])
def test_name_that_stays_is_taken(name: str) -> None:
    check_names([name])


def changed(folder: Path) -> None:
    (folder / "models" / "001.onnx").write_bytes(b"two")


def missing(folder: Path) -> None:
    (folder / "models" / "calibration.onnx").unlink()


def no_index(folder: Path) -> None:
    (folder / INDEX).unlink()


def index(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / INDEX).write_text((folder / INDEX).read_text().replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (changed, "001.onnx is missing, or not the file that bundle.json lists"),
        (missing, "calibration.onnx is missing, or not the file"),
        (no_index, "is no bundle: it has no bundle.json"),
        (index("{", "["), "is not JSON"),
        (index('"schema": 1', '"schema": 7'), "has schema 7, this version reads schema 1"),
        (index('"macs"', '"mucs"'), "bundle.json is damaged"),
        (index("36", '"tall"'), "bundle.json is damaged"),
        (index('"architecture": {', '"architecture": 5, "more": {'), "bundle.json is damaged"),
    ],
)
def test_damaged_bundle_is_refused(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    for path in (folder, zipped(folder)):
        with pytest.raises(BundleDamaged, match=re.escape(message)), open_bundle(path):
            pytest.fail("it was opened")


def test_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.zip").write_text("no zip")
    for name in ("out.zip", "nowhere.zip"):
        with pytest.raises(BundleDamaged, match="is neither a folder nor a whole zip"), open_bundle(tmp_path / name):
            pytest.fail("it was opened")


def test_zip_with_a_flipped_byte_is_refused(folder: Path) -> None:
    (folder / "text").write_text("the same again " * 100)
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "text", "text")
    whole = path.read_bytes()
    for at in range(34, whole.index(b"PK\1\2")):  # what follows the member's header
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with pytest.raises(BundleDamaged), open_bundle(path):
            pytest.fail("it was opened")


def test_bundle_is_known_by_its_content() -> None:
    assert bundle_from_dict(json.loads(json.dumps(BUNDLE.to_dict()))).sha256 == BUNDLE.sha256
    assert replace(BUNDLE, lr_size=(36, 65)).sha256 != BUNDLE.sha256
    assert issubclass(BundleUnsafe, DeployError)
