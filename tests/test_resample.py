from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.resample import downscale, resize, upscale

# Weights of imresize for an impulse, from the cubic kernel with a = -1/2 at its offsets.
UP_2 = [-0.0234375, -0.0703125, 0.2265625, 0.8671875, 0.8671875, 0.2265625, -0.0703125, -0.0234375]
DOWN_2 = [-0.01171875, -0.03515625, 0.11328125, 0.43359375, 0.43359375, 0.11328125, -0.03515625, -0.01171875]


def random_image(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def resized_row(row: list[float], outputs: int, scale: Fraction) -> list[float]:
    """One row by the definition, sample by sample, in exact arithmetic but for the kernel's sums."""

    def cubic(x: Fraction) -> Fraction:
        x = abs(x)
        if x <= 1:
            return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
        return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x < 2 else Fraction(0)

    def mirrored(index: int) -> int:
        while not 0 <= index < len(row):
            index = -1 - index if index < 0 else 2 * len(row) - 1 - index
        return index

    stretch = min(scale, Fraction(1))
    result = []
    for output in range(outputs):
        center = (output + Fraction(1, 2)) / scale - Fraction(1, 2)
        inputs = range(floor(center - 2 / stretch), ceil(center + 2 / stretch) + 1)
        weights = [cubic(stretch * (center - index)) for index in inputs]
        total = sum(float(weight) * row[mirrored(index)] for index, weight in zip(inputs, weights, strict=True))
        result.append(total / float(sum(weights)))
    return result


def test_impulse_up() -> None:
    row = np.eye(1, 9, 4)
    assert upscale(row, 2)[0, 5:13] == pytest.approx(UP_2, abs=1e-15)
    assert upscale(row.T, 2)[5:13, 0] == pytest.approx(UP_2, abs=1e-15)


def test_impulse_down() -> None:
    weights = [downscale(np.eye(1, 20, position), 2)[0, 5] for position in range(7, 15)]
    assert weights == pytest.approx(DOWN_2, abs=1e-15)


@pytest.mark.parametrize("length", [1, 2, 5, 17, 40])
@pytest.mark.parametrize("scale", ["2", "3", "4", "1/2", "1/3", "1/4", "17/10", "2/5"])
def test_equals_the_definition(length: int, scale: str) -> None:
    row = random_image(length).astype(float)
    expected = resized_row(row.tolist(), ceil(length * Fraction(scale)), Fraction(scale))
    assert resize(row[:, None], float(Fraction(scale)))[:, 0] == pytest.approx(expected, abs=1e-9)
    assert resize(row[None], float(Fraction(scale)))[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", [(11, 30), (40, 9), (23, 17)])
def test_size_instead_of_scale(size: tuple[int, int]) -> None:
    image = random_image(23, 17).astype(float)
    columns = [resized_row(column, size[0], Fraction(size[0], 23)) for column in image.T.tolist()]
    expected = [resized_row(list(row), size[1], Fraction(size[1], 17)) for row in zip(*columns, strict=True)]
    assert resize(image, size) == pytest.approx(np.array(expected), abs=1e-9)


@pytest.mark.parametrize("scale", [2, 3, 4, 5, 6, 7, 8])
def test_lr_sides_are_rounded_up(scale: int) -> None:
    for side in (*range(1, 50), 321, 481, 1356, 2040):
        assert downscale(np.zeros((side, 1), np.float32), scale).shape == (-(-side // scale), 1)


@pytest.mark.parametrize("scale", [2, 0.5, 1 / 3])
def test_wide_images_are_the_same_in_parts(scale: float) -> None:
    """Wider and higher than the blocks that are computed at once."""
    image = random_image(700, 600, 3).astype(np.float64)
    whole = resize(image, scale)
    part = resize(image[:, 240:360], scale)
    inner = slice(int(20 * scale), int(100 * scale))
    assert np.abs(whole[:, int(240 * scale) :][:, inner] - part[:, inner]).max() < 1e-9
    assert np.abs(whole.swapaxes(0, 1) - resize(image.swapaxes(0, 1), scale)).max() < 1e-9


@pytest.mark.parametrize("shape", [(12, 9), (12, 9, 1), (12, 9, 2), (12, 9, 3), (12, 9, 4), (1, 1), (1, 40, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_shapes_and_types(shape: tuple[int, ...], dtype: str) -> None:
    image = random_image(*shape).astype(dtype)
    large, small = upscale(image, 3), downscale(image, 3)
    assert large.shape == (3 * shape[0], 3 * shape[1], *shape[2:])
    assert small.shape == (-(-shape[0] // 3), -(-shape[1] // 3), *shape[2:])
    assert large.dtype == small.dtype == dtype
    assert large.flags.c_contiguous


def test_channels_do_not_mix() -> None:
    image = random_image(15, 11, 4)
    assert all((upscale(image, 2)[..., c] == upscale(image[..., c], 2)).all() for c in range(4))


@pytest.mark.parametrize("scale", [0.5, 1 / 3, 2, 3])
def test_constants_stay(scale: float) -> None:
    image = np.full((13, 10), 77, np.uint8)
    assert (resize(image, scale) == 77).all()


def test_uint8_is_rounded_once_and_clipped() -> None:
    image = np.where(random_image(16, 16) < 128, 0, 255).astype(np.uint8)  # overshoots on both sides
    exact = resize(image.astype(np.float64), 2.0)
    assert exact.min() < 0
    assert exact.max() > 255
    assert (upscale(image, 2) == np.floor(exact.clip(0, 255) + 0.5)).all()


@pytest.mark.parametrize(("shape", "scale"), [((0, 4), 2.0), ((4,), 2.0), ((2, 2, 2, 2), 2.0), ((4, 4), (0, 3))])
def test_refused(shape: tuple[int, ...], scale: float | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="image"):
        resize(np.zeros(shape), scale)
