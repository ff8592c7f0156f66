import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.engine_facts import (
    EngineFacts,
    EngineMismatch,
    Shapes,
    check_gpu,
    check_onnx,
    check_version,
    facts_path,
    read_engine,
    write_engine,
)
from deploy.runners import DeployError, ModelUnreadable

DYNAMIC = Shapes((1, 1, 1), (1, 36, 64), (2, 128, 128))
FACTS = EngineFacts(
    flavour="tensorrt",
    version="10.9.0",
    gpu="NVIDIA L4",
    compute_capability="8.9",
    shapes=DYNAMIC,
    onnx_sha256="ab",
    engine_sha256=hashlib.sha256(b"engine").hexdigest(),
    properties={"precision": "fp16"},
)


def test_shapes_are_in_order() -> None:
    with pytest.raises(ValueError, match="not in order"):
        Shapes((1, 64, 64), (1, 36, 64), (1, 128, 128))
    assert DYNAMIC.hold((2, 128, 1))
    assert not DYNAMIC.hold((1, 129, 64))


def test_engine_and_facts_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    write_engine(path, b"engine", FACTS)
    assert read_engine(path) == (b"engine", FACTS)
    assert {file.name for file in tmp_path.iterdir()} == {"model.engine", "model.engine.json"}


def spoil(path: Path, how: str) -> None:
    beside = facts_path(path)
    fields = json.loads(beside.read_text())
    match how:
        case "no engine":
            path.unlink()
        case "no facts":
            beside.unlink()
        case "other engine":
            path.write_bytes(b"another")
        case "text":
            beside.write_text("{")
        case "schema":
            beside.write_text(json.dumps(fields | {"schema": 2}))
        case "flavour":
            beside.write_text(json.dumps(fields | {"flavour": "openvino"}))
        case "shapes":
            beside.write_text(json.dumps(fields | {"shapes": {"minimum": [1, 2]}}))
        case "field":
            beside.write_text(json.dumps(fields | {"color": "red"}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no engine", "no engine at"),
        ("no facts", r"has no model\.engine\.json beside it"),
        ("other engine", r"is not the engine that model\.engine\.json describes: its hash differs"),
        ("text", r"model\.engine\.json is damaged"),
        ("schema", r"model\.engine\.json has schema 2, this version reads schema 1"),
        ("flavour", r"is damaged: flavour is 'openvino'"),
        ("shapes", "is damaged"),
        ("field", "is damaged"),
    ],
)
def test_spoiled_engine_is_refused(tmp_path: Path, how: str, message: str) -> None:
    path = tmp_path / "model.engine"
    write_engine(path, b"engine", FACTS)
    spoil(path, how)
    with pytest.raises(ModelUnreadable, match=message):
        read_engine(path)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda path: check_version(FACTS, path, "10.12.0"),
            r"was built with tensorrt 10\.9\.0, installed is 10\.12\.0",
        ),
        (lambda path: check_onnx(FACTS, path, "cd"), "was built from another model: the hash of the ONNX file differs"),
        (
            lambda path: check_gpu(FACTS, path, "NVIDIA T4", "7.5"),
            r"was built for NVIDIA L4 \(8\.9\), this is NVIDIA T4 \(7\.5\)",
        ),
        (
            lambda path: check_gpu(
                replace(FACTS, flavour="tensorrt-rtx", gpu=None, compute_capability="8.0"), path, "T4", "7.5"
            ),
            r"needs compute capability 8\.0 or more, this is T4 \(7\.5\)",
        ),
    ],
    ids=["version", "model", "GPU", "capability"],
)
def test_mismatch_is_named(check: Callable[[Path], None], message: str) -> None:
    with pytest.raises(EngineMismatch, match=rf"model\.engine {message}"):
        check(Path("model.engine"))


def test_engine_for_this_machine_passes_the_checks() -> None:
    path = Path("model.engine")
    check_version(FACTS, path, "10.9.0")
    check_onnx(FACTS, path, "ab")
    check_gpu(FACTS, path, "NVIDIA L4", "8.9")
    check_gpu(replace(FACTS, flavour="tensorrt-rtx", gpu=None, compute_capability="8.0"), path, "RTX 5090", "12.0")


def test_engine_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="cannot write"):
        write_engine(tmp_path / "nowhere" / "model.engine", b"engine", FACTS)
