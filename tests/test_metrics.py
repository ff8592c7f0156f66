import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.resample import downscale, upscale
from pipeline.data import Pair, load_pairs
from pipeline.metrics import ImageQuality, luma, mean_quality, psnr, psnr_y, quality, ssim_y

BICUBIC_PSNR_Y = {
    ("Set5", 2): 33.65,
    ("Set5", 3): 30.39,
    ("Set5", 4): 28.42,
    ("Set14", 2): 30.22,
    ("Set14", 3): 27.53,
    ("Set14", 4): 25.99,
    ("B100", 2): 29.55,
    ("B100", 3): 27.20,
    ("B100", 4): 25.96,
}
# As papers report it for Set5; they differ among themselves in the fourth decimal.
BICUBIC_SSIM_Y = {2: 0.9299, 3: 0.8682, 4: 0.8104}


def random_image(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pair(name: str, *, seed: int, channels: int = 3) -> Pair:
    hr = upscale(random_image(9, 10, channels, seed=seed), 4)
    return Pair(name, downscale(hr, 2), hr)


@pytest.mark.parametrize(("name", "scale"), BICUBIC_PSNR_Y)
def test_bicubic_reads_as_published(sr_data: Path, name: str, scale: int) -> None:
    pairs = load_pairs([sr_data / "benchmarks" / name], scale)
    figures = [psnr_y(upscale(pair.lr, scale), pair.hr, scale) for pair in pairs]
    assert np.mean(figures) == pytest.approx(BICUBIC_PSNR_Y[name, scale], abs=0.01)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_ssim_reads_as_published(sr_data: Path, scale: int) -> None:
    mean = mean_quality(quality(lambda lr: upscale(lr, scale), load_pairs([sr_data / "benchmarks/Set5"], scale), scale))
    assert mean.bicubic_ssim_y == pytest.approx(BICUBIC_SSIM_Y[scale], abs=1e-3)
    assert mean.ssim_y == mean.bicubic_ssim_y


@pytest.mark.parametrize(
    ("rgb", "expected"), [((0, 0, 0), 16), ((255, 255, 255), 235), ((255, 0, 0), 81), ((0, 255, 0), 145)]
)
def test_luma_of_colors(rgb: tuple[int, int, int], expected: int) -> None:
    assert luma(np.array([[rgb]], np.uint8)).tolist() == [[expected]]


def test_luma_of_grey_is_itself() -> None:
    image = random_image(3, 4)
    assert (luma(image) == image).all()
    assert (luma(image[:, :, None]) == image).all()


@pytest.mark.parametrize(
    ("difference", "peak", "expected"), [(1.0, 255.0, 48.1308), (0.1, 1.0, 20.0), (0.0, 1.0, math.inf), (1.0, 1.0, 0.0)]
)
def test_psnr(difference: float, peak: float, expected: float) -> None:
    assert psnr(np.full((4, 4), difference), np.zeros((4, 4)), peak) == pytest.approx(expected, abs=1e-4)


def test_psnr_of_integers_does_not_wrap() -> None:
    assert psnr(np.array([[250]], np.uint8), np.array([[5]], np.uint8), 255) == pytest.approx(
        20 * math.log10(255 / 245)
    )


def test_psnr_refuses_two_sizes() -> None:
    with pytest.raises(ValueError, match="one size"):
        psnr(np.zeros((4, 4)), np.zeros((4, 5)))


def test_the_border_does_not_count() -> None:
    hr = random_image(20, 24, 3)
    sr = hr.copy()
    sr[:2] = sr[-2:] = 0
    sr[:, :2] = sr[:, -2:] = 0
    assert psnr_y(sr, hr, border=2) == math.inf
    assert ssim_y(sr, hr, border=2) == pytest.approx(1)
    assert psnr_y(sr, hr, border=1) < 20
    assert psnr_y(hr, hr, border=0) == math.inf


def test_psnr_y_compares_rounded_luma() -> None:
    hr = np.full((6, 6, 3), 100, np.uint8)
    sr = hr.copy()
    sr[..., 2] += 1  # 0.098 of luma, which the rounding swallows here
    assert psnr_y(sr, hr, border=0) == math.inf


def test_ssim_equals_its_definition() -> None:
    """Window by window, with the weights written out."""
    x, y = random_image(15, 17), random_image(15, 17, seed=1)
    distance = np.arange(-5, 6)
    window = np.exp(-(distance[:, None] ** 2 + distance**2) / (2 * 1.5**2))
    window /= window.sum()
    figures = []
    for top in range(5):
        for left in range(7):
            a, b = (image[top : top + 11, left : left + 11].astype(float) for image in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
            cov = (window * a * b).sum() - mean_a * mean_b
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            similar = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
            figures.append(similar / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    assert ssim_y(x, y, border=0) == pytest.approx(np.mean(figures), abs=1e-9)


def test_quality_measures_ours_and_bicubic() -> None:
    pairs = [pair("colour", seed=0), pair("grey", seed=1, channels=1)]
    result = quality(lambda lr: np.repeat(np.repeat(lr, 2, 0), 2, 1), pairs, 2)
    assert [image.name for image in result] == ["colour", "grey"]
    for image, given in zip(result, pairs, strict=True):
        assert image.bicubic_psnr_y == psnr_y(upscale(given.lr, 2), given.hr, 2)
        assert image.bicubic_ssim_y == ssim_y(upscale(given.lr, 2), given.hr, 2)
        assert image.psnr_y < image.bicubic_psnr_y
        assert image.ssim_y < image.bicubic_ssim_y


def test_known_bicubic_figures_are_taken_over() -> None:
    pairs = [pair("a", seed=0), pair("b", seed=1)]
    first = quality(lambda lr: upscale(lr, 2), pairs, 2)
    marked = [replace(image, bicubic_psnr_y=1.0, bicubic_ssim_y=0.5) for image in first]
    second = quality(lambda lr: upscale(lr, 2), pairs, 2, known=marked)
    assert [(image.bicubic_psnr_y, image.bicubic_ssim_y) for image in second] == [(1.0, 0.5)] * 2
    assert [image.psnr_y for image in second] == [image.psnr_y for image in first]
    with pytest.raises(ValueError, match="other images"):
        quality(lambda lr: upscale(lr, 2), pairs[::-1], 2, known=first)


def test_quality_refuses_outputs_of_another_size() -> None:
    with pytest.raises(ValueError, match="one size"):
        quality(lambda lr: upscale(lr, 3), [pair("a", seed=0)], 2)


def test_mean_quality() -> None:
    images = [ImageQuality("a", 30.0, 0.5, 28.0, 0.4), ImageQuality("b", 34.0, 1.0, 31.0, 0.9)]
    assert mean_quality(images, "Set2") == ImageQuality("Set2", 32.0, 0.75, 29.5, 0.65)
