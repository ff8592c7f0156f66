"""Bicubic resizing with antialiasing, as MATLAB's imresize computes it, in numpy."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.color import as_float, to_uint8

# The weights of an axis form a band matrix. It is applied in blocks of this many outputs, on so many columns at once:
# few multiplications with zero, and products so small that BLAS starts no threads, which would fight the runtime's.
_BLOCK = 16
_COLUMNS = 192


class _Block(NamedTuple):
    """A dense part of the band: the outputs it makes, the inputs it reads, weights (outputs, inputs)."""

    outputs: slice
    inputs: slice
    weights: NDArray[np.float64]


def resize(image: NDArray[Any], scale: float | tuple[int, int]) -> NDArray[Any]:
    """The image at `scale` times its size, rounded up, or at the size (height, width).

    image: (height, width) or (height, width, channels). uint8 gives uint8, rounded once at the end; float32 and
    float64 keep their type and are neither rounded nor clipped. Downscaling is antialiased.
    Method: cubic convolution (Keys 1981, a = -1/2), symmetric borders.
    """
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"an image is (height, width) or (height, width, channels), not {image.shape}")
    height, width = image.shape[:2]
    if isinstance(scale, tuple):
        rows, columns = scale
        vertical, horizontal = rows / height, columns / width
    else:
        rows, columns = int(np.ceil(height * scale)), int(np.ceil(width * scale))
        vertical = horizontal = float(scale)
    if rows < 1 or columns < 1:
        raise ValueError(f"{scale} leaves nothing of an image of {height}x{width}")
    planes = np.ascontiguousarray(as_float(image.reshape(height, width, -1)).transpose(2, 0, 1))
    planes = _along_rows(planes, _band(height, rows, vertical), rows)
    planes = _along_rows(planes.swapaxes(1, 2), _band(width, columns, horizontal), columns).swapaxes(1, 2)
    result = to_uint8(planes) if image.dtype == np.uint8 else planes
    return np.ascontiguousarray(result.transpose(1, 2, 0)).reshape(rows, columns, *image.shape[2:])


def downscale(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """LR from HR: each side divided by `scale` and rounded up. Types as in resize."""
    return resize(image, 1 / scale)


def upscale(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """Each side multiplied by `scale`. Types as in resize."""
    return resize(image, float(scale))


def _along_rows(planes: NDArray[Any], band: tuple[_Block, ...], outputs: int) -> NDArray[Any]:
    """planes (channels, inputs, columns) -> (channels, outputs, columns), in the same order in memory."""
    channels, _, columns = planes.shape
    result = np.empty_like(planes, shape=(channels, outputs, columns))
    for block in band:
        weights = block.weights.astype(planes.dtype)
        for start in range(0, columns, _COLUMNS):
            part = slice(start, start + _COLUMNS)
            np.matmul(weights, planes[:, block.inputs, part], out=result[:, block.outputs, part])
    return result


@lru_cache(maxsize=64)
def _band(inputs: int, outputs: int, scale: float) -> tuple[_Block, ...]:
    weights, indices = _taps(inputs, outputs, scale)
    blocks = []
    for start in range(0, outputs, _BLOCK):
        rows = slice(start, min(start + _BLOCK, outputs))
        first, last = indices[rows].min(), indices[rows].max()
        dense = np.zeros((rows.stop - rows.start, last + 1 - first))
        np.add.at(dense, (np.arange(len(dense))[:, None], indices[rows] - first), weights[rows])
        blocks.append(_Block(rows, slice(int(first), int(last) + 1), dense))
    return tuple(blocks)


def _taps(inputs: int, outputs: int, scale: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Weights and input indices of every output, both (outputs, taps); the weights of an output add up to 1."""
    stretch = min(scale, 1.0)  # below 1 the kernel is stretched, so that it removes what the smaller image cannot show
    radius = 2 / stretch
    centers = (np.arange(outputs) + 0.5) / scale - 0.5
    reach = np.arange(int(np.ceil(2 * radius)) + 2)
    indices = np.floor(centers[:, None] - radius).astype(np.int64) + reach
    weights = _cubic(stretch * (centers[:, None] - indices))
    weights /= weights.sum(axis=1, keepdims=True)
    used = weights.any(axis=0)
    period = indices[:, used] % (2 * inputs)  # beyond the border the image is continued as its mirror image
    return weights[:, used], np.minimum(period, 2 * inputs - 1 - period)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    distance = np.abs(x)
    inner = 1.5 * distance**3 - 2.5 * distance**2 + 1
    outer = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return np.where(distance <= 1, inner, np.where(distance <= 2, outer, 0.0))
