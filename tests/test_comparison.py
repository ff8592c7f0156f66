from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.comparison import PAPER, WINDOW, ZOOM, Example, detail_box, draw_comparison, write_crops
from pipeline.metrics import Image8


def noise(*shape: int, seed: int = 0) -> Image8:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def opened(path: Path) -> Image8:
    with Image.open(path) as image:
        return np.asarray(image)


def example(truth: Image8, top: int, left: int) -> Example:
    """Ours is bicubic but for one place, which is right."""
    bicubic = np.zeros_like(truth)
    ours = bicubic.copy()
    height, width = WINDOW
    ours[top : top + height, left : left + width] = truth[top : top + height, left : left + width]
    return Example("Set5/bird", truth, bicubic, ours, 30.0, 31.5)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (17, 40), (128, 104)])
@pytest.mark.parametrize("channels", [1, 3])
def test_detail_is_where_ours_gains_most(top: int, left: int, channels: int) -> None:
    found = detail_box(example(noise(200, 200, channels), top, left))
    assert found == (left, top, left + WINDOW[1], top + WINDOW[0])


def test_small_photograph_is_its_own_detail() -> None:
    assert detail_box(example(noise(20, 30, 3), 0, 0)) == (0, 0, 30, 20)


def test_picture_shows_the_details_pixel_by_pixel() -> None:
    first = example(noise(200, 200, 3), 17, 40)
    picture = np.asarray(draw_comparison([first, example(noise(20, 300, 1), 0, 0)], "a network"))
    assert picture.shape[2] == 3
    detail = first.truth[17 : 17 + WINDOW[0], 40 : 40 + WINDOW[1]].repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    height, width = detail.shape[:2]
    rows, columns = np.nonzero((picture[: -height + 1, : -width + 1] == detail[0, 0]).all(axis=2))
    places = [
        (row, column)
        for row, column in zip(rows, columns, strict=True)
        if (picture[row : row + height, column : column + width] == detail).all()
    ]
    assert len(places) == 2  # ours, which is right there, and the truth
    assert (picture[0] == PAPER).all()


def test_more_examples_make_a_higher_picture() -> None:
    one = example(noise(100, 100, 3), 0, 0)
    heights = [draw_comparison([one] * count, "").height for count in (1, 2, 4)]
    assert heights[1] - heights[0] == (heights[2] - heights[1]) / 2 > WINDOW[0] * ZOOM


@pytest.mark.parametrize("channels", [1, 3])
def test_crops_are_the_details_pixel_by_pixel(tmp_path: Path, channels: int) -> None:
    first = example(noise(200, 200, channels), 17, 40)
    rows = write_crops(tmp_path, [first, example(noise(20, 300, channels), 0, 0)])
    assert [(row["name"], row["bicubic_psnr_y"], row["psnr_y"]) for row in rows] == [("Set5/bird", 30.0, 31.5)] * 2
    for kind, image in (("bicubic", first.bicubic), ("ours", first.ours), ("truth", first.truth)):
        crop = opened(tmp_path / rows[0]["files"][kind])
        assert (crop == image[17 : 17 + WINDOW[0], 40 : 40 + WINDOW[1]]).all()
    sizes = [opened(tmp_path / row["files"]["photograph"]).shape[:2] for row in rows]
    assert sizes == [(144, 144), (13, 192)]
    assert len({*tmp_path.iterdir()}) == 8
