import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import DataError
from pipeline.images import EMBEDDED, hash_folders, image_files, listed, read_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]
WIDE = GREY.astype(np.uint16) * 257 + np.random.default_rng(1).integers(-100, 100, GREY.shape).clip(0).astype(np.uint16)


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        saved(Image.fromarray(RGB), folder / name)
    return folder


def png_16_bit_rgb(path: Path, values: NDArray[np.uint16]) -> Path:
    """Pillow reads such files and cannot write them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".tga", ".PNG"])
def test_lossless_formats(tmp_path: Path, suffix: str) -> None:
    assert (read_image(saved(Image.fromarray(RGB), tmp_path / f"a{suffix}")) == RGB).all()


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".jp2"])
def test_lossy_formats(tmp_path: Path, suffix: str) -> None:
    flat = np.full_like(RGB, (200, 100, 50))
    path = saved(Image.fromarray(flat), tmp_path / f"a{suffix}", quality=95) if suffix != ".jp2" else tmp_path / "a.jp2"
    if suffix == ".jp2":
        saved(Image.fromarray(flat), path)
    assert np.abs(read_image(path).astype(int) - flat).max() <= 4


def with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(Image.fromarray(GREY[::-1].copy()))
    return image


def with_transparent_palette() -> Image.Image:
    image = Image.fromarray(RGB).quantize(48)
    image.info["transparency"] = bytes(range(48))
    return image


MODES: dict[str, tuple[Callable[[], Image.Image], str, NDArray[Any]]] = {
    "grey": (lambda: Image.fromarray(GREY), "png", GREY[:, :, None]),
    "grey with alpha": (lambda: with_alpha(Image.fromarray(GREY)), "png", GREY[:, :, None]),
    "bilevel": (lambda: Image.fromarray(GREY > 127), "png", (GREY[:, :, None] > 127) * np.uint8(255)),
    "alpha is dropped": (lambda: with_alpha(Image.fromarray(RGB)), "png", RGB),
    "alpha in tiff": (lambda: with_alpha(Image.fromarray(RGB)), "tif", RGB),
    "palette": (lambda: Image.fromarray(RGB).quantize(48), "png", RGB),
    "palette with transparency": (with_transparent_palette, "png", RGB),
    "gif": (lambda: Image.fromarray(RGB).quantize(48), "gif", RGB),
    "16 bits": (lambda: Image.fromarray(WIDE), "png", np.rint(WIDE / 257).astype(np.uint8)[:, :, None]),
    "16 bits in tiff": (lambda: Image.fromarray(WIDE), "tif", np.rint(WIDE / 257).astype(np.uint8)[:, :, None]),
    "CMYK": (lambda: Image.fromarray(RGB).convert("CMYK"), "tif", RGB),
    "1 pixel": (lambda: Image.fromarray(RGB[:1, :1]), "png", RGB[:1, :1]),
}


@pytest.mark.parametrize("name", MODES)
def test_modes_that_are_handled(tmp_path: Path, name: str) -> None:
    image, suffix, expected = MODES[name]
    result = read_image(saved(image(), tmp_path / f"a.{suffix}"))
    assert result.dtype == np.uint8
    assert result.shape == expected.shape
    assert (result == expected).all()


def test_cmyk_jpeg(tmp_path: Path) -> None:
    flat = Image.fromarray(np.full_like(RGB, (200, 100, 50))).convert("CMYK")
    result = read_image(saved(flat, tmp_path / "a.jpg", quality=95))
    assert np.abs(result.astype(int) - (200, 100, 50)).max() <= 3


def test_16_bit_rgb(tmp_path: Path) -> None:
    path = png_16_bit_rgb(tmp_path / "a.png", RGB.astype(np.uint16) * 257)
    assert (read_image(path) == RGB).all()


@pytest.mark.parametrize(("orientation", "quarter_turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_orientation_of_the_camera(tmp_path: Path, orientation: int, quarter_turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(RGB), tmp_path / "a.png", exif=exif)
    assert (read_image(path) == np.rot90(RGB, quarter_turns)).all()


def frames(path: Path) -> Path:
    first, second = Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())
    return saved(first, path, save_all=True, append_images=[second])


def bytes_in(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def cut_short(path: Path) -> Path:
    saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), path)
    return bytes_in(path, path.read_bytes()[:900])


def flipped_bytes(path: Path) -> Path:
    saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), path)
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    return bytes_in(path, bytes(content))


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "animated.gif": (frames, "an animation or a stack of 2 frames"),
    "animated.webp": (frames, "an animation or a stack of 2 frames"),
    "animated.png": (frames, "an animation or a stack of 2 frames"),
    "pages.tif": (frames, "an animation or a stack of 2 frames"),
    "float.tif": (lambda path: saved(Image.fromarray(GREY.astype(np.float32)), path), "mode F"),
    "lab.tif": (lambda path: saved(Image.new("LAB", (4, 4)), path), "mode LAB"),
    "deep.tif": (lambda path: saved(Image.fromarray(WIDE.astype(np.int32) * 4), path), "mode I"),
    "dark.tif": (lambda path: saved(Image.fromarray(GREY.astype(np.int32)), path), "mode I"),
    "empty.png": (lambda path: bytes_in(path, b""), "broken, cannot identify image file"),
    "text.jpg": (lambda path: bytes_in(path, b"not an image"), "broken, cannot identify image file"),
    "short.png": (cut_short, "broken, "),
    "short.jpg": (cut_short, "broken, image file is truncated"),
    "flipped.png": (flipped_bytes, "broken, "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_with_a_reason(tmp_path: Path, name: str) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(DataError) as caught:
        read_image(make(tmp_path / name))
    assert caught.value.message.startswith(f"{tmp_path / name}: {reason}")
    assert "\n" not in caught.value.message


def test_a_cameras_two_pictures_are_the_first(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8), (0, 200, 0))
    path = saved(first, tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    assert read_image(path)[0, 0, 0] > 190


def names(folder: str | Path, scale: int = 2) -> list[str]:
    return [file.name for file in image_files(folder, scale)]


def test_images_at_any_depth_in_order(tmp_path: Path) -> None:
    touched(tmp_path, "b.png", "a.JPG", "sub/c.png", "sub/deeper/d.webp", ".hidden.png", ".cache/e.png")
    (tmp_path / "crops.csv").write_text("file,x,y\n")
    (tmp_path / "folder.png").mkdir()
    assert names(tmp_path) == ["a", "b", "sub/c", "sub/deeper/d"]


@pytest.mark.parametrize("named", [".", "HR"])
def test_a_set_and_its_hr_folder_are_the_same(tmp_path: Path, named: str) -> None:
    touched(tmp_path, "HR/a.png", "HR/b.png", "LR/X3/ax3.png", "preview.png")
    assert names(tmp_path / named) == ["a", "b"]


def test_lr_folders_are_never_read_as_hr(tmp_path: Path) -> None:
    touched(tmp_path, "Set5/HR/a.png", "Set5/LR_bicubic/X2/ax2.png", "Set14/HR/b.png", "Set14/HR_LR/c.png")
    assert names(tmp_path) == ["Set14/HR/b", "Set5/HR/a"]


LAYOUTS = {
    "div2k": ("DIV2K_train_HR", "DIV2K_train_LR_bicubic/X2"),
    "bicubic": ("HR", "LR_bicubic/X2"),
    "lr": ("HR", "LR/X2"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("partner", ["0001x2.png", "0001.png", "0001x2.webp"])
def test_partners(tmp_path: Path, layout: str, partner: str) -> None:
    hr, lr = LAYOUTS[layout]
    touched(tmp_path, f"{hr}/0001.png", f"{lr}/{partner}")
    for named in (tmp_path, tmp_path / hr):
        (file,) = image_files(named, 2)
        assert (file.name, file.hr, file.lr) == ("0001", tmp_path / hr / "0001.png", tmp_path / lr / partner)
        (file,) = image_files(named, 3)
        assert file.lr is None


def test_missing_partners_are_named_on_both_sides(tmp_path: Path) -> None:
    lr = "DIV2K_train_LR_bicubic/X2"
    touched(tmp_path, *(f"DIV2K_train_HR/{name}.png" for name in ("0001", "0002", "0003")))
    touched(tmp_path, f"{lr}/0002x2.png", f"{lr}/0004x2.png")
    with pytest.raises(DataError) as caught:
        image_files(tmp_path / "DIV2K_train_HR", 2)
    alone = f"DIV2K_train_HR/0001.png; DIV2K_train_HR/0003.png; {lr}/0004x2.png"
    assert caught.value.message == f"without a partner in {tmp_path / 'DIV2K_train_HR'} and {tmp_path / lr}: {alone}"
    assert caught.value.hint == f"complete the pairs, or remove {tmp_path / lr} to have the LR images made"


def test_several_hr_folders(tmp_path: Path) -> None:
    touched(tmp_path, "DIV2K_train_HR/1.png", "DIV2K_valid_HR/2.png")
    with pytest.raises(DataError) as caught:
        image_files(tmp_path, 2)
    assert caught.value.message == f"{tmp_path} has several HR folders: DIV2K_train_HR, DIV2K_valid_HR"
    assert caught.value.hint == f"name one of them, as {tmp_path / 'DIV2K_train_HR'}"


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        image_files(tmp_path / "nowhere", 2)
    assert caught.value.message == f"no folder {tmp_path / 'nowhere'}"
    assert caught.value.hint == "name an existing folder in data.train, data.benchmarks or --calibration"


def test_links_are_followed_and_no_folder_is_read_twice(tmp_path: Path) -> None:
    touched(tmp_path / "elsewhere", "b.png")
    touched(tmp_path / "set", "one/a.png", ".hidden/c.png")
    (tmp_path / "set" / "two").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "two_again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "one" / "back").symlink_to(tmp_path / "set")
    assert names(tmp_path / "set") == ["one/a", "two/b"]


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched(tmp_path, "a.png", "locked/b.png")
    listing = Path.iterdir

    def refuse(folder: Path) -> Iterator[Path]:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return listing(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may read everything
    with pytest.raises(DataError, match=r"locked: cannot be read, Permission denied"):
        image_files(tmp_path, 2)


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError) as caught:
        image_files(tmp_path, 2)
    assert caught.value.message == f"no images in {tmp_path}"
    assert caught.value.hint.startswith("put images there (.avif, .bmp")


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    touched(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"a\.png is a file"):
        image_files(tmp_path / "a.png", 2)


def test_unknown_embedded_images() -> None:
    with pytest.raises(DataError) as caught:
        image_files("scikit-image:valid", 2)
    assert caught.value.hint == "the names are scikit-image:train and scikit-image:test"


def test_embedded_photographs() -> None:
    train, test = set(names("scikit-image:train")), set(names("scikit-image:test"))
    assert not train & test
    assert {"motorcycle_left", "motorcycle_right"} <= train
    assert 4 <= len(test) <= 6
    for folder in EMBEDDED:
        images = [read_image(file.hr) for file in image_files(folder, 2)]
        assert min(min(image.shape[:2]) for image in images) >= 2 * 48
        assert {image.shape[2] for image in images} == {1, 3}


def test_hash_follows_names_and_bytes(tmp_path: Path) -> None:
    folder = touched(tmp_path / "set", "HR/a.png", "HR/b.png", "LR/X2/ax2.png", "LR/X2/bx2.png")
    first = hash_folders([folder], 2)
    assert list(first) == [str(folder)]
    assert len(first[str(folder)]) == 64

    (folder / "HR" / "notes.csv").write_text("no image")
    shutil.copytree(folder, tmp_path / "copy")
    assert hash_folders([folder], 2) == first
    assert hash_folders([tmp_path / "copy"], 2)[str(tmp_path / "copy")] == first[str(folder)]

    without_partners = hash_folders([folder], 3)
    Image.fromarray(RGB[::-1].copy()).save(folder / "LR" / "X2" / "ax2.png")
    changed = hash_folders([folder], 2)
    assert changed != first
    assert hash_folders([folder], 3) == without_partners

    for part in ("HR", "LR/X2"):
        for path in (folder / part).glob("b*.png"):
            path.rename(path.with_name(path.name.replace("b", "c")))
    assert hash_folders([folder], 2) not in (first, changed)


def test_hash_of_embedded_photographs_is_stable() -> None:
    folders = ["scikit-image:train", "scikit-image:test"]
    hashes = hash_folders(folders, 2)
    assert list(hashes) == folders
    assert len(set(hashes.values())) == 2
    assert hash_folders(folders, 4) == hashes


def test_hash_of_an_unreadable_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDED, "scikit-image:train", ("astronaut.png", "gone.png"))
    with pytest.raises(DataError, match=r"gone\.png: cannot be read, No such file or directory"):
        hash_folders(["scikit-image:train"], 2)


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "a; b"
    assert listed([str(n) for n in range(23)]).endswith("19; and 3 more")


def test_names_that_differ_in_the_suffix_alone_keep_it(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "b.png"):
        saved(Image.fromarray(RGB), tmp_path / "photos" / name)
    assert [file.name for file in image_files(tmp_path / "photos", 2)] == ["a.bmp", "a.png", "b"]


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    saved(Image.fromarray(RGB), tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(DataError, match=r"names that are not UTF-8: .*caf\\udce9\.png") as caught:
        image_files(tmp_path, 2)
    assert caught.value.message.encode()
