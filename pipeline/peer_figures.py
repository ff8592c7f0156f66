"""Networks that ours are shown beside: published ones, or a file of measured ones."""

import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

HINT = (
    'a file of peers is a JSON list of {"name": text, "psnr_y": {benchmark: dB}, "macs": whole number, '
    '"latency_ms": {candidate: ms}, "trained": text}'
)
TRAINED = "published, trained on DIV2K"
SCALE, LR_SIZE = 2, (360, 640)  # that the published figures are for


@dataclass(frozen=True, slots=True)
class Peer:
    """A network beside ours.

    psnr_y: benchmark -> mean PSNR-Y in dB. latency_ms: candidate, as verify's report names it -> median milliseconds.
    macs: for an LR frame of `LR_SIZE`; None where unknown. trained: on what.
    """

    name: str
    psnr_y: dict[str, float]
    macs: int | None = None
    latency_ms: dict[str, float] | None = None
    trained: str = ""

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and isinstance(self.trained, str) and self.name):
            raise ValueError("a name and what it was trained on are texts")
        if not isinstance(self.psnr_y, dict) or not isinstance(self.latency_ms, dict | None):
            raise ValueError(f"psnr_y and latency_ms of {self.name} are objects, with a number for each name in them")
        numbers = [*self.psnr_y.values(), *(self.latency_ms or {}).values(), *([self.macs] if self.macs else [])]
        if not self.psnr_y or not all(type(number) in (int, float) and 0 < number < 1e18 for number in numbers):
            raise ValueError(f"{self.name} needs figures above 0, and PSNR-Y on one benchmark at least")


def _published(name: str, giga_macs: float, **psnr_y: float) -> Peer:
    return Peer(name, psnr_y, round(giga_macs * 10**9), trained=TRAINED)


# x2, PSNR-Y in dB as the papers state it, MACs for an output of 1280x720.
PUBLISHED = (
    _published("FSRCNN", 6.0, Set5=37.00, Set14=32.63, B100=31.53),
    _published("ESPCN", 5.0, Set5=36.83, Set14=32.40, B100=31.29),
    _published("SESR-M5", 3.1, Set14=32.84),
    _published("SESR-M11", 6.3, Set14=33.03),
    _published("QuickSRNet-M", 11.6, Set14=32.78),
    _published("ECBSR-M16C64", 137, Set5=37.90, Set14=33.34, B100=32.10),
    _published("IMDN", 161, Set5=38.00, Set14=33.63, B100=32.19),
    _published("CARN-M", 91, Set5=37.53, Set14=33.26, B100=31.92),
    _published("CARN", 223, Set5=37.76, Set14=33.52, B100=32.09),
    _published("SAFMN", 52, Set5=38.00, Set14=33.54, B100=32.16),
    _published("FALSR-A", 235, Set5=37.82),
    _published("FALSR-B", 75, Set5=37.61),
    _published("FALSR-C", 94, Set5=37.66),
)


def peers_from_file(path: Path) -> tuple[Peer, ...]:
    """The peers of a JSON file as `HINT` describes it. Raises ConfigError for anything else."""
    try:
        rows: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise ValueError("it is no list")
        return tuple(_peer(row, at) for at, row in enumerate(rows, start=1))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", HINT) from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON from line {error.lineno}, column {error.colno}", HINT) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not JSON: it is no text in UTF-8", HINT) from error
    except ValueError as error:
        raise ConfigError(f"{path} holds no peers: {error}", HINT) from error


def _peer(row: Any, at: int) -> Peer:
    """Raises ValueError for what is no peer."""
    if not isinstance(row, dict):
        raise ValueError(f"entry {at} is no object")
    known = {field.name: field.default is MISSING for field in fields(Peer)}
    wrong = [f"no {name}" for name, needed in known.items() if needed and name not in row]
    wrong += [f"the unknown field {name!r}" for name in row if name not in known]
    if wrong:
        raise ValueError(f"entry {at} has {' and '.join(wrong)}")
    return Peer(**row)
