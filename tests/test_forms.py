from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np
import pytest

from deploy.resample import downscale
from deploy.runners import Frame, ModelMetadata
from pipeline.data import Pair
from pipeline.forms import compare, measure, odd_crop, outputs_and_image
from pipeline.metrics import CAP_DB, psnr_y, ssim_y

METADATA = ModelMetadata(scale=2, color="rgb", multiple=2, margin=0, architecture_id="a", precision="fp32")


class Repeater:
    """A runner that repeats pixels and then changes them."""

    metadata = METADATA

    def __init__(self, change: Callable[[Frame], Frame] = lambda frame: frame) -> None:
        self._change = change

    def infer(self, frame: Frame) -> Frame:
        return self._change(frame.repeat(2, axis=2).repeat(2, axis=3))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def pair(height: int = 32, width: int = 40) -> Pair:
    hr = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Pair("noise", downscale(hr, 2), hr)


def test_forms_are_compared_with_the_first_as_floats() -> None:
    forms = {"training form": Repeater(), "shifted": Repeater(lambda frame: frame + np.float32(1e-3))}
    found = measure(pair(), forms, "set")
    assert (found.label, found.lr_size, found.for_parity) == ("set/noise", (16, 20), False)
    assert found.forms["training form"].psnr_between_db == CAP_DB
    assert found.forms["training form"].max_abs == 0.0
    assert found.forms["shifted"].psnr_between_db == pytest.approx(60, abs=0.01)
    assert found.forms["shifted"].max_abs == pytest.approx(1e-3, rel=1e-3)


def test_quality_is_that_of_the_image_as_it_ships() -> None:
    given = pair(30, 42)  # the LR image has an odd size: it is extended and cropped
    output, image = outputs_and_image(Repeater(), given.lr)
    assert (output.shape, image.shape) == ((3 * 32 * 44,), (30, 42, 3))
    found = measure(given, {"training form": Repeater()}, "set").forms["training form"]
    assert (found.psnr_y, found.ssim_y) == (psnr_y(image, given.hr, 2), ssim_y(image, given.hr, 2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_broken_model_gets_figures_too(value: float) -> None:
    def spoil(frame: Frame) -> Frame:
        frame[0, 0, 3, 4] = value
        return frame

    found = measure(pair(), {"training form": Repeater(), "broken": Repeater(spoil)}, "set").forms["broken"]
    assert found.psnr_between_db <= 0
    assert (found.max_abs is None) == (not np.isfinite(value))
    assert 0 < found.psnr_y < 40


def test_equal_images_have_the_psnr_that_json_can_hold() -> None:
    flat = Pair("flat", np.full((8, 8, 3), 90, np.uint8), np.full((16, 16, 3), 90, np.uint8))
    found = measure(flat, {"training form": Repeater()}, "set")
    assert (found.forms["training form"].psnr_y, found.bicubic_psnr_y) == (CAP_DB, CAP_DB)


def test_compare_is_psnr_of_peak_one() -> None:
    zeros = np.zeros(100, np.float32)
    assert compare(zeros, zeros + np.float32(0.1)) == pytest.approx((20, 0.1))
    assert compare(zeros, zeros) == (CAP_DB, 0.0)


@pytest.mark.parametrize(("height", "width", "cropped"), [(32, 40, (15, 19)), (30, 40, (15, 19)), (30, 42, (15, 21))])
def test_odd_crop_has_odd_sides(height: int, width: int, cropped: tuple[int, int]) -> None:
    given = pair(height, width)
    found = odd_crop(given, 2)
    assert found.lr.shape[:2] == cropped
    assert found.name == f"noise cropped to {cropped[0]}x{cropped[1]}"
    np.testing.assert_array_equal(found.hr, given.hr[: 2 * cropped[0], : 2 * cropped[1]])
