"""What stands beside a TensorRT engine: what it was built from and where it may run, checked before it is loaded."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from deploy.files import write_at_once
from deploy.runners import ModelMetadata, ModelUnreadable, metadata_from_properties

Flavour = Literal["tensorrt", "tensorrt-rtx"]
Shape = tuple[int, int, int]

SCHEMA = 1


class EngineMismatch(ModelUnreadable):
    """The engine was built by another version, for another GPU, or from another model than it would be used with."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """LR frames that an engine takes, each (batch, height, width); it is fastest at `optimum`.

    Raises ValueError where they are not in order.
    """

    minimum: Shape
    optimum: Shape
    maximum: Shape

    def __post_init__(self) -> None:
        sides = zip(self.minimum, self.optimum, self.maximum, strict=True)
        if not all(0 < low <= best <= high for low, best, high in sides):
            raise ValueError(f"not in order: {self.minimum}, {self.optimum}, {self.maximum}")

    def hold(self, shape: Shape) -> bool:
        return all(low <= side <= high for low, side, high in zip(self.minimum, shape, self.maximum, strict=True))


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What stands beside an engine, in <engine>.json.

    version: of the flavour's package.
    gpu, compute_capability: where it was built and may run. An engine of tensorrt-rtx is compiled to the end when it is
        loaded: its gpu is None, and its compute_capability the least.
    onnx_sha256, engine_sha256: of the bytes of the model it was built from, and of its own.
    properties: the text pairs of that model; they hold the precision.
    """

    flavour: Flavour
    version: str
    gpu: str | None
    compute_capability: str
    shapes: Shapes
    onnx_sha256: str
    engine_sha256: str
    properties: dict[str, str]
    schema: int = SCHEMA


def write_engine(path: Path, engine: bytes, facts: EngineFacts) -> None:
    """Writes the engine and its facts, each at once; one without the other is refused by `read_engine`."""
    write_at_once(path, engine)
    write_at_once(facts_path(path), json_from_facts(facts))


def json_from_facts(facts: EngineFacts) -> bytes:
    return (json.dumps(asdict(facts), indent=2) + "\n").encode()


def facts_path(engine: Path) -> Path:
    return engine.with_name(f"{engine.name}.json")


def read_engine(path: Path) -> tuple[bytes, EngineFacts]:
    """The inverse of `write_engine`. Raises ModelUnreadable, EngineMismatch where the two do not belong together."""
    if not path.is_file():
        raise ModelUnreadable(f"no engine at {path}")
    engine = path.read_bytes()
    beside = facts_path(path)
    try:
        facts = _facts_from_json(json.loads(beside.read_text(encoding="utf-8")), beside)
    except FileNotFoundError as error:
        raise ModelUnreadable(f"{path} has no {beside.name} beside it, which says where it may run") from error
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise ModelUnreadable(f"{beside} is damaged: {error}") from error
    if hashlib.sha256(engine).hexdigest() != facts.engine_sha256:
        raise EngineMismatch(f"{path} is not the engine that {beside.name} describes: its hash differs")
    return engine, facts


def check_version(facts: EngineFacts, path: Path, version: str) -> None:
    """version: of the flavour's package that is installed. Raises EngineMismatch."""
    if facts.version != version:
        raise EngineMismatch(f"{path} was built with {facts.flavour} {facts.version}, installed is {version}")


def check_onnx(facts: EngineFacts, path: Path, onnx_sha256: str) -> None:
    """onnx_sha256: of the model that the engine is to stand for. Raises EngineMismatch."""
    if facts.onnx_sha256 != onnx_sha256:
        raise EngineMismatch(f"{path} was built from another model: the hash of the ONNX file differs")


def check_gpu(facts: EngineFacts, path: Path, name: str, compute_capability: str) -> None:
    """name, compute_capability: of the GPU that is to run it. Raises EngineMismatch."""
    here = f"this is {name} ({compute_capability})"
    if facts.flavour == "tensorrt" and (facts.gpu, facts.compute_capability) != (name, compute_capability):
        raise EngineMismatch(f"{path} was built for {facts.gpu} ({facts.compute_capability}), {here}")
    if _numbers(compute_capability) < _numbers(facts.compute_capability):
        raise EngineMismatch(f"{path} needs compute capability {facts.compute_capability} or more, {here}")


def metadata_from_facts(facts: EngineFacts, path: Path) -> ModelMetadata:
    return metadata_from_properties(facts.properties, path)


def _facts_from_json(fields: Mapping[str, Any], path: Path) -> EngineFacts:
    if fields["schema"] != SCHEMA:
        raise ModelUnreadable(f"{path} has schema {fields['schema']}, this version reads schema {SCHEMA}")
    if fields["flavour"] not in ("tensorrt", "tensorrt-rtx"):
        raise ValueError(f"flavour is {fields['flavour']!r}")
    shapes = Shapes(**{name: (sides[0], sides[1], sides[2]) for name, sides in fields["shapes"].items()})
    return EngineFacts(**{**fields, "shapes": shapes})


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
