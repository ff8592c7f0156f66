"""A bundle: models to be timed, each listed with its hash, in a folder or a zip."""

import hashlib
import json
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from deploy.runners import DeployError

SCHEMA = 1
INDEX = "bundle.json"


class BundleDamaged(DeployError):
    """The bundle is not whole, or not of this schema."""


class BundleUnsafe(DeployError):
    """A name in the bundle leads out of its folder. Nothing of it is written."""


@dataclass(frozen=True, slots=True)
class Model:
    """file: relative to the bundle's folder, with forward slashes. macs: multiply-adds for one frame.

    architecture: what the pipeline knows the network by; a device passes it on.
    """

    file: str
    sha256: str
    macs: int
    architecture: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bundle:
    """What stands in bundle.json.

    runtime, precision: what the models were made for. lr_size: (height, width) of the frame that is timed.
    calibration: the model that every group of others is timed beside.
    models: in the order in which they are timed.
    """

    runtime: str
    precision: str
    lr_size: tuple[int, int]
    calibration: Model
    models: tuple[Model, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}


def bundle_from_dict(fields: dict[str, Any]) -> Bundle:
    """The inverse of `Bundle.to_dict`. Raises BundleDamaged."""
    try:
        if (schema := fields["schema"]) != SCHEMA:
            raise BundleDamaged(f"the bundle has schema {schema}, this version reads schema {SCHEMA}")
        height, width = map(int, fields["lr_size"])
        models = tuple(_model(**model) for model in fields["models"])
        calibration = _model(**fields["calibration"])
        return Bundle(str(fields["runtime"]), str(fields["precision"]), (height, width), calibration, models)
    except KeyError as error:
        raise BundleDamaged(f"{INDEX} is damaged: it has no {error}") from error
    except (TypeError, ValueError) as error:
        raise BundleDamaged(f"{INDEX} is damaged: {error}") from error


def _model(file: str, sha256: str, macs: int, architecture: dict[str, Any]) -> Model:
    return Model(str(file), str(sha256), int(macs), dict(architecture))


@contextmanager
def open_bundle(path: Path) -> Iterator[tuple[Path, Bundle]]:
    """The folder of a bundle, a folder or a zip, and what it lists, after every file was found to be what is listed.

    A zip is unpacked into a folder that is removed afterwards. Raises BundleDamaged, BundleUnsafe.
    """
    if path.is_dir():
        yield path, _checked(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                check_names(archive.namelist())
                archive.extractall(folder)
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # RuntimeError: encrypted
            raise BundleDamaged(f"{path} is neither a folder nor a whole zip: {error}") from error
        yield Path(folder), _checked(Path(folder))


def check_names(names: Iterable[str]) -> None:
    """Raises BundleUnsafe where one is absolute or climbs, read as a name of POSIX or of Windows."""
    for name in names:
        path = PureWindowsPath(name)
        if PurePosixPath(name).is_absolute() or path.drive or path.root or ".." in path.parts:
            raise BundleUnsafe(f"the bundle names {name!r}, which leaves its folder")


def _checked(folder: Path) -> Bundle:
    try:
        bundle = bundle_from_dict(json.loads((folder / INDEX).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise BundleDamaged(f"{folder} is no bundle: it has no {INDEX}") from error
    except ValueError as error:
        raise BundleDamaged(f"{folder / INDEX} is not JSON: {error}") from error
    listed = (bundle.calibration, *bundle.models)
    check_names(model.file for model in listed)
    for model in listed:
        file = folder / model.file
        if not file.resolve().is_relative_to(folder.resolve()):
            raise BundleUnsafe(f"the bundle names {model.file!r}, a link that leaves its folder")
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != model.sha256:
            raise BundleDamaged(f"{file} is missing, or not the file that {INDEX} lists")
    return bundle
