"""Enlarges whole images through a network: colour or grey, alpha, any size, in tiles where they are large."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.color import rgb_from_ycbcr, to_uint8, ycbcr_from_rgb
from deploy.image_files import Image8, color_profile, read_image, write_image
from deploy.openers import ENGINE, PRECISIONS, RUNTIMES, open_in, positive_int
from deploy.resample import resize
from deploy.resample import upscale as bicubic
from deploy.runners import Color, DeployError, Frame, Runner, in_one_line

TILE = 1024

Infer = Callable[[Frame], Frame]


def upscale(runner: Runner, image: Image8, tile: int | None = TILE) -> Image8:
    """`upscale_image` as the runner's model asks for it."""
    model = runner.metadata
    return upscale_image(
        runner.infer,
        image,
        scale=model.scale,
        color=model.color,
        multiple=model.multiple,
        margin=model.margin,
        tile=tile,
    )


def upscale_image(
    infer: Infer,
    image: Image8,
    *,
    scale: int,
    color: Color,
    multiple: int = 1,
    margin: int = 0,
    tile: int | None = None,
) -> Image8:
    """The image `scale` times as large in each direction, with the dimensions and channels it came with.

    image: uint8 (height, width), or with a last axis of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).
    A luma network enlarges Y, and MATLAB's bicubic the chroma; alpha is enlarged by bicubic as well.
    multiple, margin, tile: as `infer_frame` takes them.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (2,), (3,), (4,)):
        raise ValueError(f"an image is uint8 with 1 to 4 channels, not {image.dtype} {image.shape}")
    channels = image.reshape(*image.shape[:2], -1)
    colors = 1 if channels.shape[2] <= 2 else 3
    photo, alpha = channels[:, :, :colors], channels[:, :, colors:]

    def enlarge(values: NDArray[Any]) -> Frame:
        """(height, width, channels) in [0, 255], enlarged by the network."""
        frame = np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255)
        output = infer_frame(infer, frame, scale=scale, multiple=multiple, margin=margin, tile=tile)
        enlarged: Frame = output[0].transpose(1, 2, 0) * np.float32(255)
        return enlarged

    if color == "y" and colors == 3:
        ycbcr = ycbcr_from_rgb(photo)
        chroma = resize(ycbcr[:, :, 1:], scale)
        result = rgb_from_ycbcr(np.concatenate([enlarge(ycbcr[:, :, :1]), chroma], axis=2))
    elif color == "rgb" and colors == 1:
        result = enlarge(np.repeat(photo, 3, axis=2)).mean(axis=2, keepdims=True)
    else:
        result = enlarge(photo)
    large = to_uint8(result)
    if alpha.size:
        large = np.concatenate([large, bicubic(alpha, scale)], axis=2)
    return large if image.ndim == 3 else large[:, :, 0]


def infer_frame(
    infer: Infer, frame: Frame, *, scale: int, multiple: int = 1, margin: int = 0, tile: int | None = None
) -> Frame:
    """SR (batch, channels, scale*height, scale*width) from an LR frame (batch, channels, height, width) of any size.

    multiple: the frame is extended to multiples of it by repeating its border, and the result is cropped.
    tile: frames that are larger in a direction are cut into tiles of about this side, so that the memory the network
        takes is bounded. The tiles overlap by `margin`, which a model's metadata names; with less there are seams.
    """
    height, width = frame.shape[2:]
    padded = np.pad(frame, ((0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple)), mode="edge")
    if tile is None or max(height, width) <= tile:
        return infer(padded)[:, :, : height * scale, : width * scale]
    rows, columns = _spans(padded.shape[2], tile, multiple), _spans(padded.shape[3], tile, multiple)
    batch, channels = frame.shape[:2]
    result = np.empty((batch, channels, padded.shape[2] * scale, padded.shape[3] * scale), np.float32)
    for top, bottom in rows:
        for left, right in columns:
            above, before = max(top - margin, 0), max(left - margin, 0)
            output = infer(np.ascontiguousarray(padded[:, :, above : bottom + margin, before : right + margin]))
            inner = output[:, :, (top - above) * scale :, (left - before) * scale :]
            inner = inner[:, :, : (bottom - top) * scale, : (right - left) * scale]
            result[:, :, top * scale : bottom * scale, left * scale : right * scale] = inner
    return result[:, :, : height * scale, : width * scale]


def _spans(side: int, tile: int, multiple: int) -> list[tuple[int, int]]:
    """[0, side) in about equal parts of at most `tile`, rounded up to multiples of `multiple`."""
    parts = -(-side // tile)
    step = -(-side // (parts * multiple)) * multiple
    return [(start, min(start + step, side)) for start in range(0, side, step)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Enlarges one image. Ends with a line on stderr and exit code 1 where it cannot."""
    parser = argparse.ArgumentParser(prog="python -m deploy.upscale", description="Enlarge an image with a model.")
    parser.add_argument("model", type=Path, help="a model of `sr-pipeline export`, or an engine for tensorrt")
    parser.add_argument("image", type=Path, help="an 8-bit image, or .npy: uint8 (height, width[, channels])")
    parser.add_argument("output", type=Path, help="where to write; the suffix decides the format")
    parser.add_argument(
        "--runtime",
        choices=[*RUNTIMES, ENGINE],
        default="onnxruntime",
        help="(default: %(default)s); no other runs instead",
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="(default: that of the model)")
    parser.add_argument("--threads", type=positive_int, help="threads on the CPU (default: the runtime's choice)")
    parser.add_argument(
        "--tile", type=positive_int, default=TILE, help="largest side of a tile in pixels (%(default)s)"
    )
    given = parser.parse_args(arguments)
    try:
        if given.output.resolve() == given.image.resolve():
            raise DeployError(f"{given.output} is the image to enlarge; name another file to write")
        with open_in(given.model, given.runtime, given.precision, given.threads) as runner:
            large = upscale(runner, read_image(given.image), given.tile)
            write_image(given.output, large, color_profile(given.image))
    except DeployError as error:
        raise SystemExit(in_one_line(error)) from error


if __name__ == "__main__":
    main()
