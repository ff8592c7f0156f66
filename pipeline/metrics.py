"""How good an enlarged image is: PSNR and SSIM on luma, and the same for bicubic beside it.

Protocol: Y' of BT.601 as MATLAB's rgb2ycbcr gives it, rounded to 8 bits, with a peak of 255; `border` pixels are
cropped on every side. A grey image is its own luma.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deploy.color import luma_from_rgb, to_uint8
from deploy.resample import upscale as bicubic

Image8 = NDArray[np.uint8]

CAP_DB = 200.0  # stands for the PSNR of equal images, which is infinite and has no place in JSON


class HasImages(Protocol):
    """A photograph and its reduction: uint8 (h, w, c) and (scale * h, scale * w, c), c = 3 or 1."""

    @property
    def name(self) -> str: ...
    @property
    def lr(self) -> Image8: ...
    @property
    def hr(self) -> Image8: ...


@dataclass(frozen=True, slots=True)
class ImageQuality:
    """PSNR in dB and SSIM of one image, or their means, against the photograph; bicubic's beside them."""

    name: str
    psnr_y: float
    ssim_y: float
    bicubic_psnr_y: float
    bicubic_ssim_y: float


def luma(image: Image8) -> Image8:
    """Y' (height, width) of an RGB image (height, width, 3); a grey one, (height, width[, 1]), as it is."""
    if image.ndim == 2:
        return image
    if image.shape[2] == 1:
        return image[:, :, 0]
    return to_uint8(luma_from_rgb(image.astype(np.float64)))


def psnr(first: NDArray[Any], second: NDArray[Any], peak: float = 1.0) -> float:
    """10 log10(peak^2 / mean squared difference) in dB over all elements; inf where the arrays are equal."""
    if first.shape != second.shape:
        raise ValueError(f"images of one size are compared, not {first.shape} and {second.shape}")
    error = float(np.mean(np.square(first.astype(np.float64) - second)))
    return 10 * math.log10(peak**2 / error) if error else math.inf


def capped(decibels: float) -> float:
    return min(decibels, CAP_DB)


def psnr_y(sr: Image8, hr: Image8, border: int) -> float:
    """PSNR of the luma in dB, inf where it is equal."""
    return psnr(_inner_luma(sr, border), _inner_luma(hr, border), peak=255)


def ssim_y(sr: Image8, hr: Image8, border: int) -> float:
    """Mean SSIM of the luma (Wang et al. 2004): Gaussian window 11x11, sigma 1.5, where it fits into the image.

    At least 11 pixels must be left in each direction inside the border.
    """
    from skimage.metrics import structural_similarity

    similarity = structural_similarity(  # type: ignore[no-untyped-call]
        _inner_luma(sr, border),
        _inner_luma(hr, border),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(similarity)


def quality(
    upscale: Callable[[Image8], Image8],
    pairs: Sequence[HasImages],
    scale: int,
    known: Sequence[ImageQuality] = (),
) -> list[ImageQuality]:
    """The quality of `upscale`, which enlarges (h, w, c) to (scale * h, scale * w, c), on every pair.

    known: an earlier result on the same pairs; bicubic's figures are taken from it and not computed again.
    """
    if not known:
        bicubics = [_score(bicubic(pair.lr, scale), pair.hr, scale) for pair in pairs]
    elif [entry.name for entry in known] == [pair.name for pair in pairs]:
        bicubics = [(entry.bicubic_psnr_y, entry.bicubic_ssim_y) for entry in known]
    else:
        raise ValueError("`known` was measured on other images")
    return [
        ImageQuality(pair.name, *_score(upscale(pair.lr), pair.hr, scale), *reference)
        for pair, reference in zip(pairs, bicubics, strict=True)
    ]


def mean_quality(images: Sequence[ImageQuality], name: str = "mean") -> ImageQuality:
    """The mean of every figure over at least one image."""
    return ImageQuality(
        name,
        fmean(image.psnr_y for image in images),
        fmean(image.ssim_y for image in images),
        fmean(image.bicubic_psnr_y for image in images),
        fmean(image.bicubic_ssim_y for image in images),
    )


def _score(sr: Image8, hr: Image8, border: int) -> tuple[float, float]:
    return psnr_y(sr, hr, border), ssim_y(sr, hr, border)


def _inner_luma(image: Image8, border: int) -> Image8:
    height, width = image.shape[:2]
    return luma(image[border : height - border, border : width - border])
