"""Reads and writes 8-bit images as arrays, with Pillow where it is installed and as .npy without it."""

import io
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.files import write_at_once
from deploy.runners import DeployError

Image8 = NDArray[np.uint8]


def read_image(path: Path) -> Image8:
    """The image as it is meant to be seen: uint8 (height, width), or with 2, 3 or 4 channels: LA, RGB, RGBA.

    Palettes, CMYK and other colour models become RGB; the camera's orientation is applied. Raises DeployError, naming
    the file: not an image, an animation, more than 8 bits per channel, Pillow missing.
    """
    try:
        array: Image8 = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _decode(path)
    except DeployError:
        raise
    except Exception as error:  # Pillow's decoders raise what their formats provoke
        reason = getattr(error, "strerror", None) or str(error)
        raise DeployError(f"cannot read {path}: {reason}") from error
    if (
        array.dtype != np.uint8
        or not array.size
        or not (array.ndim == 2 or (array.ndim == 3 and 1 <= array.shape[2] <= 4))
    ):
        raise DeployError(f"cannot read {path}: it holds {array.dtype} {array.shape}; 8-bit images are enlarged")
    return array


def color_profile(path: Path) -> bytes | None:
    """The ICC profile inside an image that `read_image` read: what its RGB values mean."""
    if path.suffix == ".npy":
        return None
    with _pillow(path).open(path) as file:
        found: bytes | None = file.info.get("icc_profile") if file.mode in ("RGB", "RGBA", "L", "LA") else None
    return found


def write_image(path: Path, image: Image8, icc_profile: bytes | None = None) -> None:
    """Writes what `read_image` reads; the suffix decides the format. Raises DeployError, naming the file."""
    write_at_once(path, bytes_of_image(path, image, icc_profile))


def bytes_of_image(path: Path, image: Image8, icc_profile: bytes | None = None) -> bytes:
    """What `write_image` writes to `path`. Raises DeployError, naming it, where its format is unknown or unfit."""
    content = io.BytesIO()
    if path.suffix == ".npy":
        np.save(content, image)
        return content.getvalue()
    image_module = _pillow(path)
    if (kind := image_module.registered_extensions().get(path.suffix.lower())) is None:
        raise DeployError(f"cannot write {path}: no format is known by {path.suffix or 'a name without suffix'}")
    try:
        picture = image_module.fromarray(image[:, :, 0] if image.shape[2:] == (1,) else image)
        # For formats that lose detail; the others ignore it. An enlarged image deserves better than the default.
        picture.save(content, kind, quality=95, icc_profile=icc_profile)
    except (KeyError, OSError, ValueError) as error:  # KeyError: a format that is only read
        raise DeployError(f"cannot write {path}: {error}") from error
    return content.getvalue()


def _decode(path: Path) -> NDArray[Any]:
    image_module = _pillow(path)
    from PIL import ImageOps

    with image_module.open(path) as file:
        if getattr(file, "n_frames", 1) > 1 and file.format != "MPO":
            raise DeployError(f"cannot read {path}: it holds {file.n_frames} pictures; one is enlarged at a time")
        if any(_is_deep(tile[0], tile[3]) for tile in file.tile):  # Pillow would cut colours of 16 bits to 8
            raise DeployError(f"cannot read {path}: it has 16 bits per channel; 8-bit images are enlarged")
        image = ImageOps.exif_transpose(file)
    alpha = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
    if image.mode in ("1", "L", "LA", "La"):
        image = image.convert("LA" if alpha else "L")
    elif image.mode not in ("F", "I") and not image.mode.startswith("I;"):
        image = image.convert("RGBA" if alpha else "RGB")
    return np.asarray(image)


def _is_deep(codec: str, how: Any) -> bool:
    """Whether what Pillow's decoder is about to read, in this way, has more than 8 bits per channel."""
    return ";16" in str(how) or (codec.startswith("ppm") and isinstance(how, tuple) and how[1] > 255)


def _pillow(path: Path) -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise DeployError(f"{path} needs Pillow: install pillow, or use .npy") from error
    return Image
