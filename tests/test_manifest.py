import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, PipelineError, StaleArtifact
from pipeline.manifest import (
    SCHEMA,
    atomic_path,
    check_outputs,
    claim,
    hash_file,
    is_current,
    machine,
    read_manifest,
    versions,
    write_json,
    write_manifest,
)

WORK: dict[str, Any] = {"inputs": {"weights": "ab" * 32}, "settings": {"lr_size": (4, 6), "rate": 0.5}, "seed": 7}


def finished_stage(run: Path) -> Path:
    folder = run / "search"
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"weights")
    (folder / "history.txt").write_text("one\n")
    write_manifest(folder, outputs=["weights.bin", "history.txt"], **WORK)
    return folder


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_atomic_path_creates_parents_and_leaves_only_the_target(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "image.png"
    with atomic_path(target) as temporary:
        assert (temporary.parent, temporary.suffix) == (target.parent, ".png")
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert names_in(target.parent) == {"image.png"}


def test_atomic_path_keeps_the_old_file_after_an_error(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail_half_way() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        fail_half_way()
    assert target.read_text() == "old"
    assert names_in(tmp_path) == {"file"}


def test_atomic_file_has_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    write_json(tmp_path / "atomic", {})
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes == {(tmp_path / "ordinary").stat().st_mode}


@pytest.mark.parametrize("place", ["file/below", "folder", "/proc/nothing"])
def test_unwritable_place_is_refused_before_the_work(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="cannot write") as caught, atomic_path(tmp_path / place):
        pytest.fail("the block must not run")
    assert "-o" in caught.value.hint


def test_full_disk_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No space left"), atomic_path(tmp_path / "file"):
        Path("/dev/full").write_text("x")
    assert names_in(tmp_path) == set()


def test_other_failures_of_the_work_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):
        (tmp_path / "nothing").read_text()
    assert names_in(tmp_path) == set()


def test_claim_leaves_an_empty_folder(tmp_path: Path) -> None:
    claim(tmp_path / "new" / "search")
    assert names_in(tmp_path / "new" / "search") == set()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write"):
        claim(tmp_path / "file")


def test_write_json_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"psnr": 36.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"psnr": 36.5}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"psnr": float("inf")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"psnr": 36.5}


def test_hash_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert hash_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_manifest_reads_back_as_written(tmp_path: Path) -> None:
    folder = finished_stage(tmp_path)
    manifest = check_outputs(folder)
    assert manifest == read_manifest(folder)
    assert (manifest.stage, manifest.inputs, manifest.seed) == ("search", WORK["inputs"], 7)
    assert manifest.settings == {"lr_size": [4, 6], "rate": 0.5}
    assert manifest.outputs == {name: hash_file(folder / name) for name in ("weights.bin", "history.txt")}
    assert {"python", "torch", "numpy"} <= manifest.versions.keys()
    assert manifest.created.endswith("+00:00")


def damage(folder: Path, how: str) -> None:
    lock = folder / "manifest.json"
    match how:
        case "changed":
            (folder / "weights.bin").write_bytes(b"weightz")
        case "missing output":
            (folder / "history.txt").unlink()
        case "no lock":
            lock.unlink()
        case "half a lock":
            lock.write_text(lock.read_text()[:40])
        case "not an object":
            lock.write_text("[1]")
        case "fields missing":
            lock.write_text(json.dumps({"schema": SCHEMA, "stage": "search"}))
        case "other schema":
            lock.write_text(json.dumps({"schema": SCHEMA + 1}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("changed", "weights.bin was changed since search wrote it"),
        ("missing output", "history.txt is missing"),
        ("no lock", "has no finished search"),
        ("half a lock", "manifest.json is damaged"),
        ("not an object", "manifest.json is damaged"),
        ("fields missing", "manifest.json is damaged"),
        ("other schema", f"has schema {SCHEMA + 1}, this version reads schema {SCHEMA}"),
    ],
)
def test_check_outputs_names_what_is_wrong_and_the_way_out(tmp_path: Path, how: str, message: str) -> None:
    folder = finished_stage(tmp_path)
    damage(folder, how)
    with pytest.raises(StaleArtifact, match=message) as caught:
        check_outputs(folder)
    assert f"run `sr-pipeline search -o {tmp_path}`" in caught.value.hint


@pytest.mark.parametrize(
    ("place", "error", "hint"),
    [("nowhere/export", ConfigError, "sr-pipeline search -o RUN"), ("export", StaleArtifact, "sr-pipeline export ")],
)
def test_stage_that_never_ran(tmp_path: Path, place: str, error: type[PipelineError], hint: str) -> None:
    with pytest.raises(error) as caught:
        check_outputs(tmp_path / place)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [{"inputs": {"weights": "cd" * 32}}, {"settings": {"lr_size": (4, 8), "rate": 0.5}}, {"seed": 8}],
)
def test_stage_is_current_for_the_same_work_only(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = finished_stage(tmp_path)
    assert is_current(folder, **WORK)
    assert not is_current(folder, **WORK | change)


def test_stage_that_read_in_another_order_is_not_current(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    folder.mkdir()
    write_manifest(folder, inputs={"one": "ab", "two": "cd"}, settings={}, outputs=[])
    assert is_current(folder, inputs={"one": "ab", "two": "cd"}, settings={})
    assert not is_current(folder, inputs={"two": "cd", "one": "ab"}, settings={})


@pytest.mark.parametrize("how", ["missing output", "no lock", "half a lock", "other schema"])
def test_stage_is_not_current_when_something_is_gone(tmp_path: Path, how: str) -> None:
    folder = finished_stage(tmp_path)
    damage(folder, how)
    assert not is_current(folder, **WORK)


def test_changed_output_is_not_silently_replaced(tmp_path: Path) -> None:
    folder = finished_stage(tmp_path)
    damage(folder, "changed")
    for work in (WORK, WORK | {"seed": 8}):
        with pytest.raises(StaleArtifact, match="was changed"):
            is_current(folder, **work)


def test_machine_names_a_processor() -> None:
    assert machine()["processor"]
    assert machine()["platform"].startswith(("Linux", "macOS", "Windows"))


def test_versions_import_nothing() -> None:
    program = (
        "import sys; from pipeline.manifest import versions; versions(); print({'torch', 'numpy'} & {*sys.modules})"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"
    assert versions()["torch"].startswith("2.")
