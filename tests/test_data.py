import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from deploy.resample import downscale, upscale
from pipeline.architecture import Color
from pipeline.data import Pair, PatchSampler, load_pairs
from pipeline.errors import DataError
from pipeline.metrics import luma


def photograph(height: int, width: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (-(-height // 3), -(-width // 3), channels), dtype=np.uint8)
    return upscale(coarse, 3)[:height, :width]


def saved(image: NDArray[np.uint8], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path)
    return path


def pair(height: int, width: int, scale: int = 2, channels: int = 3, seed: int = 0) -> Pair:
    hr = photograph(height * scale, width * scale, channels, seed)
    return Pair(f"{height}x{width}", downscale(hr, scale), hr)


def flat(name: str, height: int, width: int, value: int) -> Pair:
    return Pair(name, *(np.full((side * height, side * width, 3), value, np.uint8) for side in (1, 2)))


# -- pairs


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_hr_is_cropped_and_lr_is_its_reduction(tmp_path: Path, scale: int, channels: int) -> None:
    image = photograph(29, 35, channels)
    saved(image, tmp_path / "a.png")
    (loaded,) = load_pairs([tmp_path], scale)
    height, width = 29 // scale, 35 // scale
    assert loaded.name == "a"
    assert (loaded.hr == image[: height * scale, : width * scale]).all()
    assert (loaded.lr == downscale(loaded.hr, scale)).all()
    assert loaded.lr.shape == (height, width, channels)
    assert loaded.lr.dtype == loaded.hr.dtype == np.uint8


def test_order_and_progress(tmp_path: Path) -> None:
    for index in range(30):
        saved(photograph(4 + 16 * (index % 3), 8, seed=index), tmp_path / f"{index % 2}" / f"{29 - index:02}.png")
    calls: list[tuple[int, int]] = []
    folders = [tmp_path / "1", tmp_path / "0"]
    pairs = load_pairs(folders, 2, progress=lambda done, total: calls.append((done, total)))
    assert [pair.name for pair in pairs] == [f"{n:02}" for start in (0, 1) for n in range(start, 30, 2)]
    assert calls == [(done, 30) for done in range(1, 31)]
    again = load_pairs(folders, 2)
    assert all((first.lr == second.lr).all() for first, second in zip(pairs, again, strict=True))


def test_embedded_photographs_load() -> None:
    pairs = load_pairs(["scikit-image:test"], 4)
    assert [pair.name for pair in pairs] == ["camera", "chelsea", "coffee", "gravel", "rocket"]
    assert [pair.hr.shape[2] for pair in pairs] == [1, 3, 3, 1, 3]


def test_lr_files_are_used_where_they_are(tmp_path: Path) -> None:
    image, marked = photograph(12, 16), np.full((6, 8, 3), 99, np.uint8)
    saved(image, tmp_path / "DIV2K_train_HR" / "0001.png")
    saved(marked, tmp_path / "DIV2K_train_LR_bicubic" / "X2" / "0001x2.png")
    (given,) = load_pairs([tmp_path / "DIV2K_train_HR"], 2)
    assert (given.lr == marked).all()
    (made,) = load_pairs([tmp_path / "DIV2K_train_HR"], 4)
    assert (made.lr == downscale(image, 4)).all()


def test_lr_files_of_uncropped_photographs(tmp_path: Path) -> None:
    image = photograph(13, 15)
    saved(image, tmp_path / "HR" / "a.png")
    saved(downscale(image, 2), tmp_path / "LR" / "X2" / "a.png")
    (loaded,) = load_pairs([tmp_path], 2)
    assert loaded.lr.shape == (6, 7, 3)
    assert loaded.hr.shape == (12, 14, 3)
    assert (loaded.lr == downscale(image, 2)[:6, :7]).all()


@pytest.mark.parametrize(
    ("lr", "described"),
    [((6, 7, 3), "7x6 RGB"), ((8, 8, 3), "8x8 RGB"), ((3, 4, 3), "4x3 RGB"), ((6, 8, 1), "8x6 grey")],
)
def test_lr_files_that_do_not_fit(tmp_path: Path, lr: tuple[int, ...], described: str) -> None:
    saved(photograph(12, 16), tmp_path / "HR" / "a.png")
    path = saved(photograph(*lr), tmp_path / "LR" / "X2" / "ax2.png")
    with pytest.raises(DataError) as caught:
        load_pairs([tmp_path], 2)
    reason = f"{path}: {described} does not fit a.png, 16x12 RGB, at x2"
    assert caught.value.message == f"1 image cannot be used: {reason}"


@pytest.fixture
def broken_folder(tmp_path: Path) -> Path:
    """One good image among a broken, an unsuitable and a tiny one."""
    saved(photograph(20, 20), tmp_path / "c_good.png")
    (tmp_path / "a_broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand nothing else")
    Image.fromarray(np.zeros((20, 20), np.float32)).save(tmp_path / "b_float.tif")
    saved(photograph(1, 20), tmp_path / "d_tiny.png")
    return tmp_path


def test_unusable_images_are_listed_together(broken_folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_pairs([broken_folder], 2)
    message = caught.value.message
    assert message.startswith(f"3 images cannot be used: {broken_folder / 'a_broken.png'}: broken, ")
    assert f"{broken_folder / 'b_float.tif'}: mode F" in message
    assert message.endswith(f"{broken_folder / 'd_tiny.png'}: 20x1 is too small, x2 needs at least 2x2")
    assert "\n" not in message
    assert caught.value.hint == "repair or remove them, or leave them out with data.skip_broken = true"
    assert caught.value.exit_code == 9


def test_unusable_images_can_be_skipped(broken_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs = load_pairs([broken_folder], 2, skip_broken=True)
    assert [pair.name for pair in pairs] == ["c_good"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
    assert str(broken_folder / "a_broken.png") in caplog.messages[0]


def test_nothing_usable_is_an_error_all_the_same(broken_folder: Path) -> None:
    (broken_folder / "c_good.png").unlink()
    with pytest.raises(DataError) as caught:
        load_pairs([broken_folder], 2, skip_broken=True)
    assert caught.value.message == f"no usable image in {broken_folder}"


def test_no_folders() -> None:
    with pytest.raises(DataError, match="an empty list of folders"):
        load_pairs([], 2)


@pytest.mark.parametrize(("minimum", "accepted"), [(10, True), (11, False)])
def test_minimum_is_in_lr_pixels(tmp_path: Path, minimum: int, accepted: bool) -> None:
    saved(photograph(31, 60), tmp_path / "a.png")
    if accepted:
        assert len(load_pairs([tmp_path], 3, minimum=minimum)) == 1
        return
    with pytest.raises(DataError, match=r"a\.png: 60x31 is too small, x3 needs at least 33x33"):
        load_pairs([tmp_path], 3, minimum=minimum)


# -- patches


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("color", "channels"), [("rgb", 3), ("y", 1)])
def test_batches_are_what_torch_trains_on(scale: int, color: Color, channels: int) -> None:
    sampler = PatchSampler([pair(20, 30, scale), pair(25, 16, scale, channels=1)], scale, 12, 5, color, seed=0)
    lr, hr = sampler.batch(0)
    assert lr.shape == (5, channels, 12, 12)
    assert hr.shape == (5, channels, 12 * scale, 12 * scale)
    for tensor in (lr, hr):
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert 0 <= tensor.min() < tensor.max() <= 1


def test_batches_depend_on_seed_and_step_alone() -> None:
    pairs = [pair(20, 30), pair(25, 16)]

    def batch(seed: int, *steps: int) -> torch.Tensor:
        sampler = PatchSampler(pairs, 2, 8, 4, "rgb", seed)
        return torch.cat([part.flatten() for part in [sampler.batch(step) for step in steps][-1]])

    assert torch.equal(batch(3, 7), batch(3, 0, 9, 7))
    assert not torch.equal(batch(3, 7), batch(3, 8))
    assert not torch.equal(batch(3, 7), batch(4, 7))


@pytest.mark.parametrize("scale", [2, 3])
def test_lr_and_hr_are_turned_together_in_all_8_ways(scale: int) -> None:
    """Patches as large as the image: each is one of its 8 orientations, whose own reduction is the LR patch."""
    image = pair(9, 9, scale)
    ways = [np.rot90(side, turns) for side in (image.hr, image.hr[:, ::-1]) for turns in range(4)]
    seen: set[int] = set()
    for step in range(6):
        for lr, hr in zip(*PatchSampler([image], scale, 9, 16, "rgb", seed=0).batch(step), strict=True):
            values = np.rint(hr.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
            seen.update(index for index, way in enumerate(ways) if (way == values).all())
            reduced = torch.from_numpy(downscale(values, scale)).permute(2, 0, 1) / 255
            assert (lr - reduced).abs().max() <= 1.01 / 255  # halves are rounded up in every orientation
    assert seen == set(range(8))


def test_patches_are_cut_at_the_same_place() -> None:
    """The reduction of an HR patch is its LR patch, away from the borders that the reduction mirrors."""
    sampler = PatchSampler([pair(40, 50), pair(31, 64, seed=1)], 2, 16, 32, "rgb", seed=0)
    for lr, hr in zip(*sampler.batch(0), strict=True):
        reduced = downscale((hr * 255).permute(1, 2, 0).numpy(), 2).clip(0, 255) / 255
        difference = np.abs(reduced.transpose(2, 0, 1) - lr.numpy())[:, 2:-2, 2:-2]
        assert difference.max() <= 0.51 / 255


def test_all_places_are_reached() -> None:
    image = Pair("a", np.arange(24, dtype=np.uint8).reshape(4, 6, 1), np.zeros((8, 12, 1), np.uint8))
    lr, _ = PatchSampler([image], 2, 3, 1000, "y", seed=0).batch(0)
    centers = {round(value * 255) for value in lr[:, 0, 1, 1].tolist()}
    assert centers == {row * 6 + column for row in (1, 2) for column in (1, 2, 3, 4)}


def test_images_are_drawn_in_proportion_to_their_area() -> None:
    sampler = PatchSampler([flat("a", 8, 8, 0), flat("b", 16, 24, 128), flat("c", 8, 24, 255)], 2, 8, 4000, "rgb", 0)
    lr, hr = sampler.batch(0)
    shares = [float((lr[:, 0, 0, 0] == value / 255).double().mean()) for value in (0, 128, 255)]
    assert shares == pytest.approx([0.1, 0.6, 0.3], abs=0.03)
    assert torch.equal(lr.mean((1, 2, 3)), hr.mean((1, 2, 3)))


def test_luma_and_grey() -> None:
    colour, grey = pair(8, 8), pair(8, 8, channels=1)
    for image, color, expected in (
        (colour, "y", luma(colour.hr)[..., None]),
        (grey, "y", grey.hr),
        (grey, "rgb", np.repeat(grey.hr, 3, axis=2)),
        (colour, "rgb", colour.hr),
    ):
        _, hr = PatchSampler([image], 2, 8, 1, "y" if color == "y" else "rgb", seed=0).batch(0)
        values = np.rint(hr[0].permute(1, 2, 0).numpy() * 255)
        ways = [np.rot90(side, turns) for side in (expected, expected[:, ::-1]) for turns in range(4)]
        assert any((values == way).all() for way in ways)


def test_images_smaller_than_a_patch_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    sampler = PatchSampler([flat("small", 7, 50, 0), flat("large", 8, 8, 255)], 2, 8, 64, "rgb", seed=0)
    assert sampler.batch(0)[0].min() == 1
    assert caplog.messages == ["left out small: smaller than a patch of 8 LR pixels"]


@pytest.mark.parametrize(
    ("pairs", "hint"),
    [
        ([flat("a", 7, 50, 0), flat("b", 6, 6, 0)], "set train.patch to at most 7, or add images"),
        ([], "add images to data.train"),
    ],
)
def test_no_image_holds_a_patch(pairs: list[Pair], hint: str) -> None:
    with pytest.raises(DataError) as caught:
        PatchSampler(pairs, 2, 8, 4, "rgb", seed=0)
    assert caught.value.message == "no training image holds a patch of 8x8 LR pixels at x2"
    assert caught.value.hint == hint


def test_research_images(sr_data: Path) -> None:
    """Every format and naming of the folders that the published figures are measured with."""
    counts = {"T91": 91, "BSDS200": 200, "HRphotos_sub": 94}
    for name, count in counts.items():
        assert len(load_pairs([sr_data / "train" / name], 2)) == count
