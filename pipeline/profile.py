"""Measured latencies of one device, runtime and precision, and the TOML file that holds them."""

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.timing import Timing
from pipeline.architecture import Activation, Architecture, Cell, Color
from pipeline.errors import ConfigError, StaleArtifact
from pipeline.manifest import atomic_path

SCHEMA = 1
FOLDER = Path("profiles")
HEADER = "# Measured latencies of one device; profiles/README.md explains every field. An edited file is refused."
TIMING = ("median_ms", "p10_ms", "p90_ms", "p99_ms", "runs")
FIELDS: dict[str, type] = {  # in the order of the file
    "name": str,
    "created": str,
    "runtime": str,
    "precision": str,
    "threads": int,
    "lr_size": list,
    "scale": int,
    "color": str,
    "activation": str,
    "unshuffle": int,
    "device": dict,
    "versions": dict,
    "calibration": dict,
    "rows": list,
}
DECIMALS = 4  # of milliseconds
DRIFT = 0.15  # change of the calibration beyond which a machine is not what it was
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """A network of the `edge` space and the time that one frame takes.

    Raises ValueError for times that are not finite, positive and in order.
    """

    architecture: Architecture
    timing: Timing

    def __post_init__(self) -> None:
        timing = self.timing
        quantiles = (timing.p10_ms, timing.median_ms, timing.p90_ms, timing.p99_ms)
        if not 0 < quantiles[0] <= quantiles[1] <= quantiles[2] <= quantiles[3] < math.inf:
            raise ValueError(f"p10, median, p90 and p99 are positive and rise, unlike {quantiles}")
        if timing.runs < 1:
            raise ValueError(f"runs is at least 1, not {timing.runs}")
        if self.architecture.space != "edge":
            raise ValueError("a profile holds networks of the edge space")


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """What was measured, on what, and how. All its networks are of one task.

    runtime, precision: as in the name of a candidate, "openvino" and "bf16".
    lr_size: (height, width) of the frame that is timed.
    scale, color, activation, unshuffle: of every network.
    device: what it was measured on, "cpu" or "gpu" by name first. versions: of the runtime and what is around it.
    created: UTC, ISO 8601.
    calibration: the workload that is measured again when the profile is used, so that times compare as ratios.
    """

    name: str
    runtime: str
    precision: str
    lr_size: Size
    threads: int
    scale: int
    color: Color
    device: dict[str, str]
    versions: dict[str, str]
    created: str
    calibration: Row
    rows: tuple[Row, ...]
    activation: Activation = "relu"
    unshuffle: int = 1

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("a profile has rows")
        if min(*self.lr_size, self.threads) < 1:
            raise ValueError(f"lr_size and threads are positive, unlike {self.lr_size} and {self.threads}")
        task = (self.scale, self.color, self.activation, self.unshuffle)
        for row in (self.calibration, *self.rows):
            of = row.architecture
            if (of.scale, of.color, of.activation, of.unshuffle) != task:
                raise ValueError("a network has another scale, color, activation or unshuffle than the profile")

    @property
    def candidate(self) -> str:
        return f"{self.runtime} {self.precision}"


def scaled(timing: Timing, factor: float) -> Timing:
    """The timing of a machine that is so many times as slow."""
    quantiles = (timing.median_ms, timing.p10_ms, timing.p90_ms, timing.p99_ms)
    median_ms, p10_ms, p90_ms, p99_ms = (round(value * factor, DECIMALS) for value in quantiles)
    return Timing(median_ms, p10_ms, p90_ms, p99_ms, timing.runs)


def profile_path(name: str) -> Path:
    """profiles/<name>.toml under the working directory; what ends in .toml or names a folder is a path already."""
    return Path(name) if name.endswith(".toml") or Path(name).name != name else FOLDER / f"{name}.toml"


def profile_from_toml(path: Path) -> DeviceProfile:
    """The inverse of `save_profile`.

    Raises ConfigError where there is no such file, StaleArtifact where it is damaged, changed, or of another schema.
    """
    again = f"restore {path}, or measure the device again with `sr-pipeline profile`"
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        there = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml"))) or "none"
        message = f"no device profile at {path}; profiles in {FOLDER}/: {there}"
        raise ConfigError(message, "name one of them, or measure this device with `sr-pipeline profile`") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise StaleArtifact(f"{path} is not TOML: {error}", again) from error
    if (schema := fields.pop("schema", None)) != SCHEMA:
        raise StaleArtifact(f"{path} has schema {schema}, this version reads schema {SCHEMA}", again)
    stated, found = fields.pop("sha256", None), _sha256(fields)
    if stated != found:
        raise StaleArtifact(
            f"{path} was changed since it was measured: sha256 is {stated}, of this content {found}", again
        )
    try:
        return _profile_from_fields(fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StaleArtifact(f"{path} is no device profile: {error}", again) from error


def save_profile(path: Path, profile: DeviceProfile) -> None:
    """Writes the profile atomically. Raises ConfigError where nothing can be written."""
    with atomic_path(path) as temporary:
        temporary.write_text(toml_from_profile(profile), encoding="utf-8")


def toml_from_profile(profile: DeviceProfile) -> str:
    """The text of the file: one row a line, and a SHA-256 of all of it."""
    fields = _fields_from_profile(profile)
    rows = fields.pop("rows")
    values = {"schema": SCHEMA, **fields, "sha256": _sha256({**fields, "rows": rows})}
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    return "\n".join([HEADER, *lines, "rows = [", *(f"  {_toml(row)}," for row in rows), "]", ""])


def check_task(
    profile: DeviceProfile,
    *,
    lr_size: Size,
    scale: int,
    color: str,
    activation: str = "relu",
    unshuffle: int = 1,
) -> None:
    """Raises ConfigError that names what the profile has other than asked for."""
    asked = {
        "LR size": (f"{profile.lr_size[0]}x{profile.lr_size[1]}", f"{lr_size[0]}x{lr_size[1]}"),
        "scale": (profile.scale, scale),
        "colour": (profile.color, color),
        "activation": (profile.activation, activation),
        "unshuffle": (profile.unshuffle, unshuffle),
    }
    differ = [f"its {name} is {has}, asked for is {wanted}" for name, (has, wanted) in asked.items() if has != wanted]
    if differ:
        raise ConfigError(
            f"profile {profile.name} is for something else: {'; '.join(differ)}",
            "name a profile measured for it, or measure one with `sr-pipeline profile`",
        )


def _fields_from_profile(profile: DeviceProfile) -> dict[str, Any]:
    values = {name: getattr(profile, name) for name in FIELDS}
    return {
        **values,
        "lr_size": [*profile.lr_size],
        "calibration": _fields_from_row(profile.calibration),
        "rows": [_fields_from_row(row) for row in profile.rows],
    }


def _fields_from_row(row: Row) -> dict[str, Any]:
    of = row.architecture
    cells = " ".join(_text_from_cell(cell) for cell in of.cells)
    shape = {"width": of.width, "stem": of.stem, "cells": cells, "tail": of.tail, "skip": of.skip}
    return {**shape, **asdict(row.timing)}


def _text_from_cell(cell: Cell) -> str:
    """ "3-16-5+": a 3x3 convolution to 16 channels and a 5x5 one back to the trunk; + for the residual."""
    kernels = [op.removeprefix("conv") for op in cell.ops]
    chain = "-".join(f"{kernel}-{width}" for kernel, width in zip(kernels, cell.widths, strict=False))
    return f"{chain}{'-' if chain else ''}{kernels[-1]}{'+' if cell.residual else ''}"


def _cell_from_text(text: str) -> Cell:
    parts = text.removesuffix("+").split("-")
    return Cell(tuple(f"conv{kernel}" for kernel in parts[::2]), tuple(map(int, parts[1::2])), text.endswith("+"))


def _profile_from_fields(fields: Mapping[str, Any]) -> DeviceProfile:
    """Raises KeyError, TypeError or ValueError for what is missing, too much, or of a wrong kind."""
    if unlike := FIELDS.keys() ^ fields.keys():
        raise ValueError(f"missing or unknown: {', '.join(sorted(unlike))}")
    for name, kind in FIELDS.items():
        if not isinstance(fields[name], kind):
            raise TypeError(f"{name} is {fields[name]!r}")
    height, width = fields["lr_size"]
    task = {name: fields[name] for name in ("scale", "color", "activation", "unshuffle")}
    rows = [_row_from_fields(row, task) for row in (fields["calibration"], *fields["rows"])]
    return DeviceProfile(**{**fields, "lr_size": (height, width), "calibration": rows[0], "rows": tuple(rows[1:])})


def _row_from_fields(fields: Mapping[str, Any], task: Mapping[str, Any]) -> Row:
    shape = {name: fields[name] for name in ("width", "stem", "tail", "skip")}
    path = tuple(_cell_from_text(text) for text in fields["cells"].split())
    architecture = Architecture(space="edge", path=path, shuffle=task["scale"] * task["unshuffle"], **task, **shape)
    return Row(architecture, Timing(**{name: fields[name] for name in TIMING}))


def _sha256(fields: Mapping[str, Any]) -> str:
    """Of the content, whatever its layout in the file."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()


def _toml(value: Any) -> str:
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case dict():
            return "{ " + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items()) + " }"
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case _:
            return repr(value)


def _key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else _toml(key)
