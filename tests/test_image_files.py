import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from deploy.image_files import color_profile, read_image, write_image
from deploy.runners import DeployError
from tests.test_images import png_16_bit_rgb


def pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".npy"])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 2), (5, 4, 3), (5, 4, 4)])
def test_what_is_written_reads_back(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / f"image{suffix}"
    write_image(path, pixels(*shape))
    np.testing.assert_array_equal(read_image(path), pixels(*shape))


def test_one_channel_is_written_as_grey(tmp_path: Path) -> None:
    write_image(tmp_path / "grey.png", pixels(5, 4, 1))
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), pixels(5, 4, 1)[:, :, 0])


@pytest.mark.parametrize(
    ("mode", "options", "shape"),
    [
        ("1", {}, (5, 4)),
        ("P", {}, (5, 4, 3)),
        ("P", {"transparency": 0}, (5, 4, 4)),
        ("L", {"transparency": 7}, (5, 4, 2)),
        ("RGB", {"transparency": (1, 2, 3)}, (5, 4, 4)),
    ],
)
def test_other_modes_become_grey_or_rgb(
    tmp_path: Path, mode: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    Image.fromarray(pixels(5, 4, 3)).convert(mode).save(tmp_path / "image.png", **options)
    image = read_image(tmp_path / "image.png")
    assert image.shape == shape
    assert image.dtype == np.uint8


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 5), (0, 255, 255, 0)).save(tmp_path / "red.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "red.tif")[0, 0], [255, 0, 0])


def test_orientation_of_the_camera_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, clockwise
    Image.fromarray(pixels(5, 4, 3)).save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), np.rot90(pixels(5, 4, 3), -1))


def make(folder: Path, kind: str) -> Path:
    path = folder / ("wrong.npy" if kind in ("floats", "five channels", "no rows", "pickle") else "wrong.png")
    match kind:
        case "text":
            path.write_text("no image")
        case "half":
            Image.fromarray(pixels(50, 40, 3)).save(path)
            path.write_bytes(path.read_bytes()[:2000])
        case "16 bits":
            Image.fromarray(pixels(5, 4).astype(np.uint16)).save(path)
        case "floats":
            np.save(path, pixels(5, 4).astype(np.float32))
        case "five channels":
            np.save(path, pixels(5, 4, 5))
        case "no rows":
            np.save(path, pixels(0, 4, 3))
        case "pickle":
            np.save(path, np.array([{}], object), allow_pickle=True)
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "No such file"),
        ("text", "cannot identify"),
        ("half", "truncated"),
        ("16 bits", "it has 16 bits per channel; 8-bit images are enlarged"),
        ("floats", r"it holds float32 \(5, 4\)"),
        ("five channels", r"it holds uint8 \(5, 4, 5\)"),
        ("no rows", r"it holds uint8 \(0, 4, 3\)"),
        ("pickle", "pickle"),
    ],
)
def test_unsuitable_file_is_named_with_the_reason(tmp_path: Path, kind: str, reason: str) -> None:
    path = make(tmp_path, kind)
    with pytest.raises(DeployError, match=rf"^cannot read .*wrong\..*{reason}") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere/image.png", "image.docx", "alpha.jpg"])
def test_unwritable_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DeployError, match=f"^cannot write .*{name}"):
        write_image(tmp_path / name, pixels(5, 4, 4))


def test_what_cannot_be_encoded_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "kept.jpg").write_bytes(b"kept")
    with pytest.raises(DeployError, match=r"cannot write .*kept\.jpg: cannot write mode RGBA as JPEG"):
        write_image(tmp_path / "kept.jpg", pixels(5, 4, 4))
    assert (tmp_path / "kept.jpg").read_bytes() == b"kept"


@pytest.mark.parametrize("direction", ["read", "write"])
def test_without_pillow_npy_is_left(tmp_path: Path, direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    write_image(tmp_path / "image.npy", pixels(5, 4, 3))
    np.testing.assert_array_equal(read_image(tmp_path / "image.npy"), pixels(5, 4, 3))
    with pytest.raises(DeployError, match=r"image.png needs Pillow: install pillow, or use \.npy"):
        read_image(tmp_path / "image.png") if direction == "read" else write_image(tmp_path / "image.png", pixels(5, 4))


@pytest.mark.parametrize("name", ["wide.png", "wide.ppm", "text.ppm"])
def test_colours_of_16_bits_are_not_cut_to_8(tmp_path: Path, name: str) -> None:
    values = pixels(5, 4, 3).astype(np.uint16) * 257
    png_16_bit_rgb(tmp_path / "wide.png", values)
    (tmp_path / "wide.ppm").write_bytes(b"P6 4 5 65535\n" + values.astype(">u2").tobytes())
    (tmp_path / "text.ppm").write_text(f"P3 4 5 65535\n{' '.join(map(str, values.ravel()))}\n")
    with pytest.raises(DeployError, match=rf"{name}: it has 16 bits per channel"):
        read_image(tmp_path / name)


def test_a_ppm_is_read(tmp_path: Path) -> None:
    write_image(tmp_path / "image.ppm", pixels(5, 4, 3))
    np.testing.assert_array_equal(read_image(tmp_path / "image.ppm"), pixels(5, 4, 3))


def test_an_image_that_is_a_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "large.png", pixels(50, 40, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(DeployError, match=r"cannot read .*large\.png: Image size \(2000 pixels\) exceeds limit"):
        read_image(tmp_path / "large.png")


def test_the_color_profile_goes_along(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels(5, 4, 3)).save(tmp_path / "photo.png", icc_profile=profile)
    write_image(tmp_path / "large.jpg", pixels(10, 8, 3), color_profile(tmp_path / "photo.png"))
    assert color_profile(tmp_path / "large.jpg") == profile
    write_image(tmp_path / "photo.npy", pixels(5, 4, 3))
    assert color_profile(tmp_path / "photo.npy") is None
