"""Conversions between RGB, Y'CbCr of BT.601 as MATLAB has it, and 8-bit values."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# MATLAB's rgb2ycbcr: R'G'B' in [0, 255] to Y' in [16, 235], Cb and Cr in [16, 240].
_FROM_RGB = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
_TO_RGB = np.linalg.inv(_FROM_RGB)
_OFFSET = np.array([16.0, 128.0, 128.0])


def ycbcr_from_rgb(rgb: NDArray[Any]) -> NDArray[Any]:
    """Y'CbCr (..., 3) of R'G'B' (..., 3) in [0, 255]: Y' in [16, 235], Cb and Cr in [16, 240], not rounded.

    float64 stays float64; everything else is computed in and returned as float32.
    """
    values = as_float(rgb)
    ycbcr: NDArray[Any] = values @ _FROM_RGB.T.astype(values.dtype) + _OFFSET.astype(values.dtype)
    return ycbcr


def rgb_from_ycbcr(ycbcr: NDArray[Any]) -> NDArray[Any]:
    """The inverse of ycbcr_from_rgb: R'G'B' (..., 3), neither rounded nor clipped to [0, 255]."""
    values = as_float(ycbcr)
    rgb: NDArray[Any] = (values - _OFFSET.astype(values.dtype)) @ _TO_RGB.T.astype(values.dtype)
    return rgb


def luma_from_rgb(rgb: NDArray[Any]) -> NDArray[Any]:
    """Only the Y' (...) of ycbcr_from_rgb."""
    values = as_float(rgb)
    luma: NDArray[Any] = values @ _FROM_RGB[0].astype(values.dtype) + values.dtype.type(_OFFSET[0])
    return luma


def as_float(values: NDArray[Any]) -> NDArray[Any]:
    """float64 as it is, everything else as float32."""
    return values if values.dtype == np.float64 else values.astype(np.float32, copy=False)


def to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values in [0, 255], clipped and rounded to the nearest integer, halves up, as MATLAB's uint8()."""
    rounded: NDArray[np.uint8] = (values.clip(0, 255) + values.dtype.type(0.5)).astype(np.uint8)
    return rounded
