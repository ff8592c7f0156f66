"""What a stage read, did and wrote: hashes, atomic files, and the lock that tells whether a stage is current."""

import errno
import hashlib
import json
import os
import platform
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, StaleArtifact

SCHEMA = 1
MODELS = (".safetensors", ".onnx", ".engine")  # outputs that later stages read; folders of images may be called alike
PACKAGES = (
    "sr-pipeline",
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "nncf",
    "tensorrt",
    "tensorrt-rtx",
    "fvcore",
    "pillow",
    "safetensors",
    "scikit-image",
)
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The lock of one stage, beside its outputs in RUN/<stage>/manifest.json.

    inputs: name -> SHA-256 of what the stage read.
    settings: JSON values that shaped the result.
    seed: None for a stage without chance.
    outputs: path relative to the stage's directory -> SHA-256.
    versions, machine: for the reader; a stage stays current when they change.
    created: UTC, ISO 8601.
    """

    stage: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    seed: int | None
    outputs: dict[str, str]
    versions: dict[str, str]
    machine: dict[str, str]
    created: str
    schema: int = SCHEMA


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yields a fresh path beside `target`, with its suffix, and renames it to `target` when the block succeeds.

    Missing parents are created. After an error the target is what it was. Raises ConfigError where nothing can be
    written, before the block runs where that can be known.
    """
    target = Path(target)
    temporary = _fresh_beside(target)
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise _unwritable(target, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def claim(folder: Path) -> None:
    """Makes `folder` and proves that files can be written there, before work is done for it. Raises ConfigError."""
    _fresh_beside(folder / "claim").unlink()


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. Raises ValueError for numbers that JSON cannot hold (nan, inf)."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def hash_file(path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(
    folder: Path,
    *,
    inputs: Mapping[str, str],
    settings: Mapping[str, Any],
    outputs: Iterable[str],
    seed: int | None = None,
) -> Manifest:
    """Hashes `outputs` (paths relative to `folder`) and writes the lock of the stage that `folder` is named after."""
    manifest = Manifest(
        stage=folder.name,
        inputs=dict(inputs),
        settings=_as_json(settings),
        seed=seed,
        outputs={name: hash_file(folder / name) for name in outputs},
        versions=versions(),
        machine=machine(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_json(folder / "manifest.json", asdict(manifest))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The lock in `folder` (RUN/<stage>).

    Raises ConfigError where RUN does not exist, StaleArtifact where the lock is absent, damaged or of another schema.
    """
    path = folder / "manifest.json"
    if not folder.parent.is_dir():
        raise ConfigError(f"no run at {folder.parent}", "name a run directory; `sr-pipeline search -o RUN` makes one")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        schema = fields["schema"]
        if schema == SCHEMA:
            return Manifest(**fields)
    except FileNotFoundError as error:
        raise StaleArtifact(f"{folder.parent} has no finished {folder.name}", _again(folder)) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StaleArtifact(f"{path} is damaged: {error}", _again(folder)) from error
    raise StaleArtifact(f"{path} has schema {schema}, this version reads schema {SCHEMA}", _again(folder))


def check_outputs(folder: Path) -> Manifest:
    """The lock in `folder`, after every output was found as it was recorded. Raises as read_manifest does."""
    manifest = read_manifest(folder)
    for name, recorded in manifest.outputs.items():
        if not (folder / name).is_file():
            raise StaleArtifact(f"{folder / name} is missing", _again(folder))
        _check_output(folder, name, recorded)
    return manifest


def _check_output(folder: Path, name: str, recorded: str) -> None:
    if hash_file(folder / name) != recorded:
        hint = f"restore the file, or delete {folder} and {_again(folder)}"
        raise StaleArtifact(f"{folder / name} was changed since {folder.name} wrote it", hint)


def is_current(
    folder: Path, *, inputs: Mapping[str, str], settings: Mapping[str, Any], seed: int | None = None
) -> bool:
    """Whether the stage of `folder` has done this work already and all of its outputs are there.

    inputs: in the order in which they are read, which training follows.

    Raises StaleArtifact where an output was changed since, whether the work is the same or not: what someone else put
    there must not be overwritten in passing.
    """
    if not (folder / "manifest.json").is_file():
        return False
    try:
        manifest = read_manifest(folder)
    except StaleArtifact:
        return False
    there = {name for name in manifest.outputs if (folder / name).is_file()}
    for name in sorted(there):
        _check_output(folder, name, manifest.outputs[name])
    same_inputs = [*manifest.inputs.items()] == [*inputs.items()]
    done = same_inputs and (manifest.settings, manifest.seed) == (_as_json(settings), seed)
    return done and there == set(manifest.outputs)


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that shape a result; imports none of them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def machine() -> dict[str, str]:
    """The platform, and the processor by its name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "platform": platform.platform(),
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
    }


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as they read back from a file: tuples are lists."""
    value: dict[str, Any] = json.loads(json.dumps(settings, allow_nan=False))
    return value


def _again(folder: Path) -> str:
    run = f"-o {folder.parent}" if folder.name == "search" else str(folder.parent)
    return f"run `sr-pipeline {folder.name} {run}`"


def _unwritable(target: Path, error: OSError) -> ConfigError:
    reason = error.strerror or str(error)
    return ConfigError(f"cannot write {target}: {reason}", "free it, or name another place with -o")


def _fresh_beside(target: Path) -> Path:
    """A new, empty file in the folder of `target`, with its suffix."""
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise _unwritable(target, error) from error
    return temporary
