import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deploy.engine_facts import Flavour, Shapes, metadata_from_facts, read_engine
from deploy.engines import begin_with_timing_cache, engine_from_onnx, main
from deploy.runners import DeployError, ModelUnreadable, RuntimeMissing
from pipeline.architecture import Architecture, Cell
from pipeline.export import properties
from pipeline.fold import plain_from_network
from pipeline.network import Network
from pipeline.onnx_graph import onnx_from_network
from pipeline.quantise import tensorrt_int8_from_onnx

ARCHITECTURE = Architecture("edge", 2, "rgb", 8, (Cell(("conv3", "conv1"), (6,)),))
STATIC = Shapes((1, 36, 64), (1, 36, 64), (1, 36, 64))
DYNAMIC = Shapes((1, 1, 1), (1, 36, 64), (2, 128, 128))


@pytest.fixture
def model(random_network: Callable[..., Network], tmp_path: Path) -> Callable[[str], Path]:
    def write(precision: str) -> Path:
        plain = plain_from_network(random_network(ARCHITECTURE))
        if precision == "int8":
            frames = [np.random.default_rng(0).random((1, 3, 16, 12), np.float32)]
            proto = tensorrt_int8_from_onnx(onnx_from_network(plain, "fp32", properties(plain, "int8")), frames)
        else:
            stored = "fp16" if precision == "fp16" else "fp32"
            proto = onnx_from_network(plain, stored, properties(plain, stored))  # type: ignore[arg-type]
        path = tmp_path / f"model.{precision}.onnx"
        path.write_bytes(proto.SerializeToString())
        return path

    return write


@pytest.fixture
def rtx() -> object:
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("shapes", [STATIC, DYNAMIC], ids=["static", "dynamic"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engine_is_built_without_a_gpu(
    model: Callable[[str], Path], precision: str, shapes: Shapes, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx = model(precision)
    engine, facts = engine_from_onnx(onnx, shapes, "tensorrt-rtx", timing_cache=onnx.with_suffix(".cache"))
    assert len(engine) > 10_000
    assert (facts.flavour, facts.gpu, facts.compute_capability, facts.shapes) == ("tensorrt-rtx", None, "8.0", shapes)
    assert facts.onnx_sha256 == hashlib.sha256(onnx.read_bytes()).hexdigest()
    assert facts.engine_sha256 == hashlib.sha256(engine).hexdigest()
    metadata = metadata_from_facts(facts, onnx)
    assert (metadata.precision, metadata.architecture_id) == (precision, ARCHITECTURE.id)
    assert not onnx.with_suffix(".cache").exists()  # this flavour has none
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:.*Timing cache operations:DeprecationWarning")
def test_tensorrt_builds_with_the_same_code_for_the_gpu_of_the_machine(
    rtx: object,
    cuda_driver: SimpleNamespace,
    model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The other flavour stands in for it: the two have one API."""
    monkeypatch.setitem(sys.modules, "tensorrt", rtx)
    onnx = model("fp32")
    cache = onnx.parent / "caches" / "timing.cache"
    for _ in range(2):  # the second build begins with the cache of the first
        _, facts = engine_from_onnx(onnx, STATIC, "tensorrt", timing_cache=cache)
        assert cache.stat().st_size > 0
    assert (facts.flavour, facts.gpu, facts.compute_capability) == ("tensorrt", "NVIDIA Test", "8.9")
    assert cuda_driver.memory == {}
    assert caplog.messages == []


class Refusing:
    """A builder's configuration on another GPU than that of the cache; TensorRT for RTX takes every cache."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def create_timing_cache(self, known: bytes) -> bytes | None:
        return None if known == b"of another version" else known

    def set_timing_cache(self, cache: bytes, *, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache:
            return False
        self.taken.append(cache)
        return True


@pytest.mark.parametrize("content", ["of another version", "of another GPU"])
def test_foreign_timing_cache_is_begun_anew_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    cache, config = tmp_path / "timing.cache", Refusing()
    cache.write_text(content)
    begin_with_timing_cache(cache, config)
    assert config.taken == [b""]
    assert caplog.messages == [f"{cache} is of another version of TensorRT or of another GPU; it is begun anew"]
    assert cache.read_text() == content  # until there is something better


def test_timing_cache_that_cannot_be_kept_is_named_before_the_build(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "timing.cache", tmp_path):
        with pytest.raises(DeployError, match=f"cannot use {path}"):
            begin_with_timing_cache(path, Refusing())


@pytest.mark.usefixtures("rtx")
def test_model_that_tensorrt_refuses_is_named(model: Callable[[str], Path], capfd: pytest.CaptureFixture[str]) -> None:
    onnx = model("fp32")
    onnx.write_bytes(onnx.read_bytes().replace(b"Relu", b"Rulu"))
    with pytest.raises(ModelUnreadable, match=r"tensorrt-rtx cannot read .*model\.fp32\.onnx: Rulu stem") as caught:
        engine_from_onnx(onnx, STATIC, "tensorrt-rtx")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("flavour", "module"), [("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")])
def test_missing_flavour_is_not_replaced(
    model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, flavour: Flavour, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RuntimeMissing, match=f"{flavour} is not installed"):
        engine_from_onnx(model("fp32"), STATIC, flavour)


@pytest.mark.usefixtures("rtx")
def test_device_builds_its_engine_by_command(model: Callable[[str], Path], tmp_path: Path) -> None:
    engine = tmp_path / "built.engine"
    command = [str(model("fp16")), str(engine), "--flavour", "tensorrt-rtx", "--optimum", "1x36x64"]
    main([*command, "--maximum", "2x40x64"])
    assert read_engine(engine)[1].shapes == Shapes((1, 36, 64), (1, 36, 64), (2, 40, 64))
    before = engine.read_bytes()
    with pytest.raises(SystemExit, match="error: not in order"):
        main([*command, "--maximum", "1x8x8"])
    with pytest.raises(SystemExit, match="error: no model at nowhere"):
        main(["nowhere.onnx", *command[1:]])
    with pytest.raises(SystemExit, match=r"error: cannot write .*nowhere/built\.engine"):
        main([command[0], str(tmp_path / "nowhere" / "built.engine"), *command[2:]])
    assert engine.read_bytes() == before


def test_shape_is_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["model.onnx", "model.engine", "--optimum", "360x640"])
    assert "--optimum: invalid shape_from_text value: '360x640'" in capsys.readouterr().err
