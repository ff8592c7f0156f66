"""LR/HR pairs of photographs, decoded once, and the random patches that networks are trained on."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.resample import downscale
from pipeline.architecture import Color
from pipeline.errors import DataError
from pipeline.images import ImageFile, image_files, listed, read_image
from pipeline.metrics import luma

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A photograph and its reduction.

    lr: uint8 (height, width, channels); hr: uint8 (scale * height, scale * width, channels); 3 channels, or 1: grey.
    """

    name: str
    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]


def load_pairs(
    folders: Sequence[str | Path],
    scale: int,
    *,
    skip_broken: bool = False,
    minimum: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """The images of all folders, in the order of `folders` and of their paths, however many threads decode them.

    HR is cropped at the bottom and right to multiples of `scale`; LR is MATLAB's bicubic reduction of it, or the LR
    file that belongs to it. folders: as image_files takes them.
    skip_broken: leave out what cannot be used, with a warning in the log, instead of ending.
    minimum: sides of an LR image in pixels that are too few are errors.
    progress: called with the number of images done and of all images.
    Raises DataError: as image_files does; naming every image that is broken, unsuitable or too small together.
    """
    files = [file for folder in folders for file in image_files(folder, scale)]
    pairs: list[Pair] = []
    unusable: list[str] = []

    def load(file: ImageFile) -> Pair | str:
        try:
            return _pair_from_file(file, scale, minimum)
        except DataError as error:
            return error.message

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, result in enumerate(pool.map(load, files), start=1):
            if isinstance(result, Pair):
                pairs.append(result)
            else:
                unusable.append(result)
            if progress is not None:
                progress(done, len(files))
    if unusable and not skip_broken:
        number = "1 image" if len(unusable) == 1 else f"{len(unusable)} images"
        hint = "repair or remove them, or leave them out with data.skip_broken = true"
        raise DataError(f"{number} cannot be used: {listed(unusable)}", hint)
    for message in unusable:
        _log.warning("left out %s", message)
    if not pairs:
        names = ", ".join(str(folder) for folder in folders)
        raise DataError(f"no usable image in {names or 'an empty list of folders'}", "name folders with photographs")
    return pairs


def _pair_from_file(file: ImageFile, scale: int, minimum: int) -> Pair:
    hr = read_image(file.hr)
    height, width = hr.shape[0] // scale, hr.shape[1] // scale
    if min(height, width) < max(1, minimum):
        needed = max(1, minimum) * scale
        size = f"{hr.shape[1]}x{hr.shape[0]}"
        raise DataError(f"{file.hr}: {size} is too small, x{scale} needs at least {needed}x{needed}")
    hr = np.ascontiguousarray(hr[: height * scale, : width * scale])
    if file.lr is None:
        return Pair(file.name, downscale(hr, scale), hr)
    lr = read_image(file.lr)
    # An LR image that was made from an uncropped one is rounded up.
    if lr.shape[2] != hr.shape[2] or lr.shape[0] - height not in (0, 1) or lr.shape[1] - width not in (0, 1):
        sizes = f"{_described(lr)} does not fit {file.hr.name}, {_described(hr)}, at x{scale}"
        raise DataError(f"{file.lr}: {sizes}")
    return Pair(file.name, np.ascontiguousarray(lr[:height, :width]), hr)


def _described(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]}x{image.shape[0]} {'grey' if image.shape[2] == 1 else 'RGB'}"


class PatchSampler:
    """Random patches of LR/HR pairs, in one of the 8 orientations each.

    patch: side of an LR patch in pixels. color: "rgb", where grey images are repeated, or "y": luma, 8-bit rounded.
    Images are drawn in proportion to their area; those smaller than a patch are left out, with a warning in the log.
    Raises DataError where all are.
    """

    def __init__(self, pairs: Sequence[Pair], scale: int, patch: int, batch: int, color: Color, seed: int) -> None:
        usable = [pair for pair in pairs if min(pair.lr.shape[:2]) >= patch]
        if not usable:
            largest = max((min(pair.lr.shape[:2]) for pair in pairs), default=0)
            hint = f"set train.patch to at most {largest}, or add images" if largest else "add images to data.train"
            raise DataError(f"no training image holds a patch of {patch}x{patch} LR pixels at x{scale}", hint)
        for pair in pairs:
            if min(pair.lr.shape[:2]) < patch:
                _log.warning("left out %s: smaller than a patch of %d LR pixels", pair.name, patch)
        self._scale, self._patch, self._batch, self._seed = scale, patch, batch, seed
        self._images = [(_pixels(pair.lr, color), _pixels(pair.hr, color)) for pair in usable]
        self._sizes = np.array([pair.lr.shape[:2] for pair in usable])
        self._areas = np.cumsum(self._sizes.prod(axis=1))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """LR (batch, channels, patch, patch) and HR (batch, channels, scale * patch, scale * patch) in [0, 1].

        float32 in channels_last memory. The same seed and step give the same patches, whatever was drawn before.
        """
        random = np.random.default_rng([self._seed, step])
        chosen = np.searchsorted(self._areas, random.integers(self._areas[-1], size=self._batch), side="right")
        corners = random.integers(self._sizes[chosen] - self._patch + 1)
        orientations = random.integers(8, size=self._batch)
        side, large_side = self._patch, self._patch * self._scale
        lr = np.empty((self._batch, side, side), self._images[0][0].dtype)
        hr = np.empty((self._batch, large_side, large_side), lr.dtype)
        for index, (image, (top, left), orientation) in enumerate(zip(chosen, corners, orientations, strict=True)):
            small, large = self._images[image]
            lr[index] = _oriented(small[top : top + side, left : left + side], orientation)
            top, left = top * self._scale, left * self._scale
            hr[index] = _oriented(large[top : top + large_side, left : left + large_side], orientation)
        return _unit_range(lr), _unit_range(hr)


def _pixels(image: NDArray[np.uint8], color: Color) -> NDArray[Any]:
    """(height, width), one element for a pixel: numpy turns and mirrors that twice as fast as three bytes."""
    if color == "y":
        return luma(image)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))).view("V3")[:, :, 0]


def _oriented(patch: NDArray[Any], orientation: int) -> NDArray[Any]:
    """One of the 8 symmetries of a square, as a view."""
    patch = patch[::-1] if orientation & 1 else patch
    patch = patch[:, ::-1] if orientation & 2 else patch
    return patch.swapaxes(0, 1) if orientation & 4 else patch


def _unit_range(patches: NDArray[Any]) -> Tensor:
    values = patches.view(np.uint8).reshape(*patches.shape, -1)
    return torch.from_numpy(np.divide(values, np.float32(255), dtype=np.float32)).permute(0, 3, 1, 2)
