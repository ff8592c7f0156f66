"""Runs the forms of one network on a photograph: what each is worth, and how far it is from the first."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from deploy.runners import Frame, Runner
from deploy.upscale import TILE, upscale_image
from pipeline.data import Pair
from pipeline.metrics import Image8, ImageQuality, capped, psnr, quality
from pipeline.verdict import Measurement, Photograph


def measure(pair: Pair, forms: Mapping[str, Runner], benchmark: str) -> Photograph:
    """Runs every form on the LR image of `pair`, the first being what the others are compared with."""
    reference: Frame | None = None
    scored: Image8 | None = None
    known: list[ImageQuality] = []
    measured: dict[str, Measurement] = {}
    for name, runner in forms.items():
        output, image = outputs_and_image(runner, pair.lr)
        reference = output if reference is None else reference
        if scored is None or not np.array_equal(image, scored):  # mostly equal: SSIM takes longer than a network
            known, scored = _quality(image, pair, runner.metadata.scale, known), image
        measured[name] = Measurement(*compare(reference, output), capped(known[0].psnr_y), known[0].ssim_y)
    height, width = pair.lr.shape[:2]
    bicubic = capped(known[0].bicubic_psnr_y), known[0].bicubic_ssim_y
    return Photograph(benchmark, pair.name, (height, width), *bicubic, measured)


def outputs_and_image(runner: Runner, lr: Image8) -> tuple[Frame, Image8]:
    """All that the network put out for an image, tile after tile and flat, and the enlarged image made of it."""
    outputs: list[Frame] = []

    def infer(frame: Frame) -> Frame:
        output = runner.infer(frame)
        outputs.append(output.ravel())
        return np.nan_to_num(output).clip(-1, 2)  # a broken model gets figures too

    model = runner.metadata
    image = upscale_image(
        infer, lr, scale=model.scale, color=model.color, multiple=model.multiple, margin=model.margin, tile=TILE
    )
    return np.concatenate(outputs), image


def compare(reference: Frame, candidate: Frame) -> tuple[float, float | None]:
    """PSNR between two outputs in dB, peak 1, and their largest difference, as in `Measurement`."""
    with np.errstate(invalid="ignore", over="ignore"):
        max_abs = float(np.abs(candidate - reference).max())
    if not math.isfinite(max_abs):
        return 0.0, None
    return capped(psnr(reference, candidate)), max_abs


def odd_crop(pair: Pair, scale: int) -> Pair:
    """The pair without its last row or column where the LR image has an even number of them."""
    height, width = (side - 1 + side % 2 for side in pair.lr.shape[:2])
    return replace(
        pair,
        name=f"{pair.name} cropped to {height}x{width}",
        lr=pair.lr[:height, :width],
        hr=pair.hr[: height * scale, : width * scale],
    )


def _quality(image: Image8, pair: Pair, scale: int, known: list[ImageQuality]) -> list[ImageQuality]:
    return quality(lambda _: image, [pair], scale, known)
