"""Draws where the network gains most over bicubic: one before-and-after picture, and its details as files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.manifest import atomic_path
from pipeline.metrics import Image8, luma

WINDOW = (72, 96)  # height and width of a detail in HR pixels
ZOOM = 4
GAP, EDGE, LINE = 14, 28, 26
NOTE = "PSNR of luma, over the whole photograph."
PAPER, INK, FAINT, MARK = (250, 250, 248), (28, 30, 34), (118, 121, 128), (214, 78, 24)

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Example:
    """A photograph (height, width, 1 or 3), its two enlargements, and their PSNR-Y in dB over all of it."""

    name: str
    truth: Image8
    bicubic: Image8
    ours: Image8
    bicubic_psnr_y: float
    psnr_y: float


def draw_comparison(examples: Sequence[Example], title: str) -> Image.Image:
    """One row for each example: the photograph with the detail marked, then the detail by bicubic, by the network, and
    as it was photographed, enlarged without smoothing.
    """
    height, width = (side * ZOOM for side in WINDOW)
    head, row = EDGE + 4 * LINE, height + LINE + GAP
    canvas = Image.new("RGB", (2 * EDGE + 4 * width + 3 * GAP, head + len(examples) * row + EDGE - GAP), PAPER)
    draw = ImageDraw.Draw(canvas)
    columns = [EDGE + index * (width + GAP) for index in range(4)]
    draw.text((EDGE, EDGE - 4), title, INK, _font(20))
    draw.text(
        (EDGE, EDGE + LINE), f"{NOTE} Details are enlarged {ZOOM} times more, without smoothing.", FAINT, _font(15)
    )
    for left, heading in zip(columns, ("photograph", "bicubic", "this network", "ground truth"), strict=True):
        draw.text((left, head - LINE), heading, INK, _font(17))
    for index, example in enumerate(examples):
        top = head + index * row
        box = detail_box(example)
        details = (_detail(image, box) for image in (example.bicubic, example.ours, example.truth))
        for left, panel in zip(columns, (_overview(example.truth, box), *details), strict=True):
            canvas.paste(panel, (left, top + height - panel.height))
        below = top + height + 6
        draw.text((columns[0], below), example.name, FAINT, _font(16))
        draw.text((columns[1], below), f"{example.bicubic_psnr_y:.2f} dB", INK, _font(16))
        draw.text((columns[2], below), f"{example.psnr_y:.2f} dB", INK, _font(16))
        gain = f"{example.psnr_y - example.bicubic_psnr_y:+.2f} dB"
        draw.text((columns[2] + width, below), gain, MARK, _font(16), anchor="ra")
    return canvas


def write_crops(folder: Path, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Writes the photograph, reduced and with the detail marked, and the detail three times, pixel by pixel, as PNG.

    Returns for each example its name, its PSNR-Y in dB, and under "files" the name of each picture in `folder`.
    """
    rows = []
    for number, example in enumerate(examples, start=1):
        box = detail_box(example)
        pictures = {
            "photograph": _overview(example.truth, box, zoom=2),
            "bicubic": _picture(example.bicubic).crop(box),
            "ours": _picture(example.ours).crop(box),
            "truth": _picture(example.truth).crop(box),
        }
        files = {kind: f"{number}-{kind}.png" for kind in pictures}
        for kind, picture in pictures.items():
            with atomic_path(folder / files[kind]) as temporary:
                picture.save(temporary, optimize=True)
        scores = {"bicubic_psnr_y": example.bicubic_psnr_y, "psnr_y": example.psnr_y}
        rows.append({"name": example.name, **scores, "files": files})
    return rows


def detail_box(example: Example) -> Box:
    """(left, top, right, bottom) of the window in which squared error of luma falls most from bicubic to ours."""
    truth = luma(example.truth).astype(np.float64)
    fall = (luma(example.bicubic) - truth) ** 2 - (luma(example.ours) - truth) ** 2
    height, width = (min(side, window) for side, window in zip(truth.shape, WINDOW, strict=True))
    sums = np.pad(fall, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = (int(place) for place in np.unravel_index(inside.argmax(), inside.shape))
    return left, top, left + width, top + height


def _detail(image: Image8, box: Box) -> Image.Image:
    crop = _picture(image).crop(box)
    return crop.resize((crop.width * ZOOM, crop.height * ZOOM), Image.Resampling.NEAREST)


def _overview(image: Image8, box: Box, zoom: int = ZOOM) -> Image.Image:
    """The whole photograph in the size of a detail enlarged `zoom` times, with the box marked."""
    whole = _picture(image)
    factor = min(WINDOW[1] * zoom / whole.width, WINDOW[0] * zoom / whole.height)
    small = whole.resize((max(1, round(whole.width * factor)), max(1, round(whole.height * factor))))
    left, top, right, bottom = (round(place * factor) for place in box)
    ImageDraw.Draw(small).rectangle((left - 1, top - 1, right, bottom), outline=MARK, width=3)
    return small


def _picture(image: NDArray[Any]) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2:] == (1,) else image).convert("RGB")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
