import numpy as np
import pytest

from deploy.color import luma_from_rgb, rgb_from_ycbcr, to_uint8, ycbcr_from_rgb

# The corners of the cube, from the definition of ITU-R BT.601 scaled to 8 bits.
CORNERS = {
    (0, 0, 0): (16, 128, 128),
    (255, 255, 255): (235, 128, 128),
    (255, 0, 0): (81.481, 90.203, 240),
    (0, 255, 0): (144.553, 53.797, 34.214),
    (0, 0, 255): (40.966, 240, 109.786),
}


@pytest.mark.parametrize(("rgb", "ycbcr"), CORNERS.items())
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_corners(rgb: tuple[int, ...], ycbcr: tuple[float, ...], dtype: type) -> None:
    assert ycbcr_from_rgb(np.array(rgb, dtype)) == pytest.approx(ycbcr, abs=1e-4)


def test_inverse() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert rgb_from_ycbcr(ycbcr_from_rgb(image.astype(np.float64))) == pytest.approx(image, abs=1e-10)
    assert (to_uint8(rgb_from_ycbcr(ycbcr_from_rgb(image))) == image).all()


def test_luma_is_the_first_plane() -> None:
    image = np.random.default_rng(0).random((4, 5, 3)) * 255
    assert luma_from_rgb(image) == pytest.approx(ycbcr_from_rgb(image)[..., 0])


@pytest.mark.parametrize(("given", "computed"), [("uint8", "float32"), ("float32", "float32"), ("float64", "float64")])
def test_types(given: str, computed: str) -> None:
    image = np.zeros((2, 2, 3), given)
    for function in (ycbcr_from_rgb, rgb_from_ycbcr, luma_from_rgb):
        assert function(image).dtype == computed


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_to_uint8_rounds_halves_up_and_clips(dtype: type) -> None:
    values = {-300: 0, -0.6: 0, 0.49: 0, 0.5: 1, 1.5: 2, 2.5: 3, 254.49: 254, 254.5: 255, 255: 255, 511: 255}
    assert to_uint8(np.array(list(values), dtype)).tolist() == list(values.values())
