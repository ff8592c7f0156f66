import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deploy.color import rgb_from_ycbcr, to_uint8, ycbcr_from_rgb
from deploy.resample import resize
from deploy.resample import upscale as bicubic
from deploy.runners import Color, Frame
from deploy.upscale import infer_frame, main, upscale, upscale_image
from pipeline.architecture import Architecture, Cell
from pipeline.fold import plain_from_network
from pipeline.model_facts import metadata_from_architecture
from pipeline.network import Network
from pipeline.onnx_graph import onnx_from_network
from pipeline.torch_runner import TorchRunner

CELL = Cell(("conv3", "conv5"), (6,))
RGB = Architecture("edge", 2, "rgb", 8, (CELL,))
UNSHUFFLED = Architecture("edge", 3, "rgb", 8, (CELL,), unshuffle=2, shuffle=6)

Build = Callable[..., Network]


def image(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def nearest(scale: int, seen: list[tuple[int, ...]] | None = None) -> Callable[[Frame], Frame]:
    """A network that repeats pixels, and notes the shapes it is given."""

    def infer(frame: Frame) -> Frame:
        assert frame.dtype == np.float32
        assert frame.flags.c_contiguous
        if seen is not None:
            seen.append(frame.shape)
        return frame.repeat(scale, axis=2).repeat(scale, axis=3)

    return infer


def repeated(values: NDArray[Any], scale: int) -> NDArray[Any]:
    return values.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize("color", ["rgb", "y"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4), (1, 1, 3)])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_image_keeps_its_channels(color: Color, shape: tuple[int, ...], scale: int) -> None:
    small = image(*shape)
    seen: list[tuple[int, ...]] = []
    large = upscale_image(nearest(scale, seen), small, scale=scale, color=color)
    assert large.shape == (shape[0] * scale, shape[1] * scale, *shape[2:])
    assert large.dtype == np.uint8
    assert seen == [(1, 3 if color == "rgb" else 1, *shape[:2])]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_values_pass_through_an_rgb_network(shape: tuple[int, ...]) -> None:
    small = image(*shape)
    large = upscale_image(nearest(2), small, scale=2, color="rgb")
    np.testing.assert_array_equal(large, repeated(small, 2))


def test_grey_passes_through_a_luma_network_as_it_is() -> None:
    small = image(5, 7)
    np.testing.assert_array_equal(upscale_image(nearest(2), small, scale=2, color="y"), repeated(small, 2))


def test_luma_network_enlarges_luma_and_bicubic_the_chroma() -> None:
    small = image(9, 6, 3)
    ycbcr = ycbcr_from_rgb(small)
    expected = np.concatenate([repeated(ycbcr[:, :, :1], 2), resize(ycbcr[:, :, 1:], 2)], axis=2)
    large = upscale_image(nearest(2), small, scale=2, color="y")
    difference = large.astype(int) - to_uint8(rgb_from_ycbcr(expected))
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("color", ["rgb", "y"])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_enlarged_by_bicubic(color: Color, channels: int) -> None:
    small = image(6, 5, channels)
    large = upscale_image(nearest(3), small, scale=3, color=color)
    np.testing.assert_array_equal(large[:, :, -1], bicubic(small[:, :, -1], 3))
    opaque = upscale_image(nearest(3), small[:, :, :-1].copy(), scale=3, color=color)
    np.testing.assert_array_equal(large[:, :, :-1], opaque)


def test_output_beyond_the_range_is_clipped() -> None:
    small = image(4, 4, 3)
    assert upscale_image(lambda frame: nearest(2)(frame) + 2, small, scale=2, color="rgb").min() == 255
    assert upscale_image(lambda frame: nearest(2)(frame) - 2, small, scale=2, color="rgb").max() == 0


@pytest.mark.parametrize("wrong", [image(4, 4, 5), image(4, 4, 3).astype(np.float32), image(4, 4, 3, 1), image(4)])
def test_what_is_no_image_is_refused(wrong: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="an image is uint8 with 1 to 4 channels"):
        upscale_image(nearest(2), wrong, scale=2, color="rgb")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (8, 5), (8, 6)])
def test_frame_is_extended_to_multiples_by_its_border(height: int, width: int) -> None:
    frame = np.random.default_rng(0).random((2, 3, height, width), np.float32)
    seen: list[Frame] = []

    def infer(given: Frame) -> Frame:
        seen.append(given)
        return nearest(2)(given)

    output = infer_frame(infer, frame, scale=2, multiple=2)
    np.testing.assert_array_equal(output, nearest(2)(frame))
    (given,) = seen
    assert given.shape == (2, 3, height + height % 2, width + width % 2)
    np.testing.assert_array_equal(given[:, :, -1, :width], frame[:, :, -1])


@pytest.mark.parametrize("architecture", [RGB, UNSHUFFLED], ids=["rgb", "unshuffled"])
@pytest.mark.parametrize("tile", [1, 7, 16, 40])
def test_tiles_give_the_whole_frame(architecture: Architecture, tile: int, random_network: Build) -> None:
    frame = np.random.default_rng(0).random((1, 3, 33, 26), np.float32)
    metadata = metadata_from_architecture(architecture, "fp32")
    sizes: list[int] = []
    with TorchRunner(random_network(architecture)) as runner:

        def infer(given: Frame) -> Frame:
            sizes.append(max(given.shape[2:]))
            return runner.infer(given)

        fields = {"scale": metadata.scale, "multiple": metadata.multiple}
        whole = infer_frame(runner.infer, frame, **fields)
        tiled = infer_frame(infer, frame, **fields, margin=metadata.margin, tile=tile)
        seams = infer_frame(runner.infer, frame, **fields, margin=0, tile=tile)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    assert max(sizes) <= tile + metadata.multiple - 1 + 2 * metadata.margin
    assert tile == 40 or np.abs(seams - whole).max() > 1e-3


def test_runner_brings_its_own_settings(random_network: Build) -> None:
    small = image(33, 26, 4)
    with TorchRunner(random_network(UNSHUFFLED)) as runner:
        whole, tiled = upscale(runner, small), upscale(runner, small, tile=8)
    assert whole.shape == (99, 78, 4)
    assert np.abs(whole.astype(int) - tiled).max() <= 1


@pytest.fixture
def model(random_network: Build, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    properties = metadata_from_architecture(RGB, "fp32").to_properties()
    path.write_bytes(onnx_from_network(plain_from_network(random_network(RGB)), "fp32", properties).SerializeToString())
    return path


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_program_enlarges_a_file(model: Path, suffix: str, tmp_path: Path, random_network: Build) -> None:
    small, source, target = image(9, 7, 3), tmp_path / f"small{suffix}", tmp_path / f"large{suffix}"
    np.save(source, small) if suffix == ".npy" else Image.fromarray(small).save(source)
    main([str(model), str(source), str(target), "--threads", "1", "--tile", "6"])
    large = np.load(target) if suffix == ".npy" else np.asarray(Image.open(target))
    with TorchRunner(random_network(RGB)) as runner:
        assert np.abs(large.astype(int) - upscale(runner, small)).max() <= 1


@pytest.mark.parametrize("given", [["--runtime", "openvino"], ["--runtime", "openvino", "--precision", "fp32"]])
def test_program_runs_where_it_is_told(
    model: Path, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    np.save(tmp_path / "small.npy", image(9, 7, 3))
    arguments = [str(model), str(tmp_path / "small.npy")]
    main([*arguments, str(tmp_path / "expected.npy")])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    main([*arguments, str(tmp_path / "found.npy"), "--threads", "1", *given])
    expected, found = (np.load(tmp_path / f"{name}.npy").astype(int) for name in ("expected", "found"))
    assert np.abs(expected - found).max() <= 1


@pytest.mark.parametrize(
    ("given", "missing", "message"),
    [
        ([], "onnxruntime", "error: onnxruntime is not installed; pip install onnxruntime"),
        (["--runtime", "openvino"], "openvino", "error: openvino is not installed; pip install openvino"),
        (["--precision", "bf16"], None, "error: onnxruntime does not run bf16 here; take one of: onnxruntime fp32, "),
        (["--precision", "int8"], None, "error: .* computes in fp32; onnxruntime int8 needs a model exported in int8"),
        (["--runtime", "tensorrt"], None, "error: .* has no .* beside it, which says where it may run"),
    ],
)
def test_program_replaces_no_runtime(
    model: Path, given: list[str], missing: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing is not None:
        monkeypatch.setitem(sys.modules, missing, None)
    np.save(tmp_path / "small.npy", image(9, 7, 3))
    with pytest.raises(SystemExit, match=f"^{message}") as caught:
        main([str(model), str(tmp_path / "small.npy"), str(tmp_path / "large.npy"), *given])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "large.npy").exists()


def test_program_runs_as_a_module(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "small.npy", image(9, 7))
    arguments = [str(model), str(tmp_path / "small.npy"), str(tmp_path / "large.npy")]
    done = subprocess.run([sys.executable, "-m", "deploy.upscale", *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert np.load(tmp_path / "large.npy").shape == (18, 14)


def test_program_explains_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["model.onnx", "in.png", "out.png", "--tile", "0"])
    assert caught.value.code == 2
    assert "argument --tile: invalid positive_int value: '0'" in capsys.readouterr().err


def test_program_does_not_replace_what_it_reads(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "small.npy", image(9, 7))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^error: small\.npy is the image to enlarge"):
        main([str(model), str(tmp_path / "small.npy"), "small.npy"])
    np.testing.assert_array_equal(np.load(tmp_path / "small.npy"), image(9, 7))


@pytest.mark.parametrize("missing", ["model", "image"])
def test_program_ends_with_one_line(model: Path, missing: str, tmp_path: Path) -> None:
    np.save(tmp_path / "small.npy", image(9, 7))
    files = {"model": str(model), "image": str(tmp_path / "small.npy")} | {missing: str(tmp_path / "nothing.npy")}
    with pytest.raises(SystemExit, match=r"^error: .*nothing\.npy") as caught:
        main([*files.values(), str(tmp_path / "large.npy")])
    assert "\n" not in str(caught.value)
