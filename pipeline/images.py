"""Folders of image files: what is in them, which LR files belong to them, their pixels and their hash."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.errors import DataError
from pipeline.manifest import hash_file

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)

# The photographs and photographed textures inside scikit-image's wheel that are sharp down to the pixel. Left out:
# drawings and scans of the eye, the sky and cells. The two motorcycles are one scene and stay on one side.
# Grey: brick, camera, coins, grass, gravel, page, text.
EMBEDDED = {
    "scikit-image:train": (
        "astronaut.png",
        "brick.png",
        "coins.png",
        "grass.png",
        "ihc.png",
        "motorcycle_left.png",
        "motorcycle_right.png",
        "page.png",
        "text.png",
    ),
    "scikit-image:test": ("camera.png", "chelsea.png", "coffee.png", "gravel.png", "rocket.jpg"),
}


@dataclass(frozen=True, slots=True)
class ImageFile:
    """name: path below its folder, without suffix unless two differ in nothing else.

    lr: its reduction, where the folder brings one for the scale.
    """

    name: str
    hr: Path
    lr: Path | None


def image_files(folder: str | Path, scale: int) -> list[ImageFile]:
    """The HR images of a folder, sorted by path, each with its LR partner where the folder has them.

    folder: holds images, at any depth, or has one sub-folder HR or *_HR that does; or "scikit-image:train" or
        "scikit-image:test". Files that are no images by their suffix, hidden files and LR folders are passed over.
    LR partners of HR/0001.png are LR/X2/0001x2.png or LR_bicubic/X2/0001x2.png, of DIV2K_train_HR/0001.png
    DIV2K_train_LR_bicubic/X2/0001x2.png. Raises DataError: no such folder, no images, an image without its partner, a
    name that is not UTF-8.
    """
    if str(folder) in EMBEDDED:
        root = _embedded_folder()
        return [ImageFile(Path(name).stem, root / name, None) for name in EMBEDDED[str(folder)]]
    root = _hr_folder(_existing(folder))
    paths = sorted(_images_below(root))
    if not paths:
        raise DataError(f"no images in {root}", f"put images there ({', '.join(sorted(SUFFIXES))})")
    check_names(paths)
    lr_folder = _lr_folder(root, scale)
    if lr_folder is None:
        return [ImageFile(name, path, None) for name, path in zip(names_below(root, paths), paths, strict=True)]
    return _paired(paths, root, lr_folder, scale)


def read_image(path: Path) -> NDArray[np.uint8]:
    """The image as uint8 (height, width, 3) RGB or (height, width, 1) grey, turned as its camera was held.

    Alpha is dropped: the colour planes are what a network is given when an image with alpha is enlarged. Palettes and
    CMYK become RGB, bilevel images grey, 16-bit values 8-bit. Raises DataError with the file's name and the reason:
    not decodable, more than one frame, float or other values without a defined way to 8 bits.
    """
    try:
        with Image.open(path) as file:
            # The second picture of a camera's MPO file is a preview or the other eye; elsewhere frames are equals.
            frames = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
            if frames > 1:
                raise DataError(f"{path}: an animation or a stack of {frames} frames")
            image = ImageOps.exif_transpose(file)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise what their formats provoke
        reason = str(error).replace(f" {str(path)!r}", "").splitlines() or [type(error).__name__]
        raise DataError(f"{path}: broken, {reason[0]}") from error
    image.info.pop("transparency", None)
    match image.mode:
        case "L" | "LA" | "1":
            return np.asarray(image.convert("L"))[:, :, None]
        case "RGB" | "RGBA" | "RGBX" | "P" | "PA" | "CMYK" | "YCbCr":
            return np.asarray(image.convert("RGB"))
        case "I" if file.format in ("PNG", "PPM"):  # of 16 bits, which Pillow holds in 32
            return _eight_bits(np.asarray(image))[:, :, None]
        case "I;16" | "I;16B" | "I;16L":
            return _eight_bits(np.asarray(image))[:, :, None]
        case mode:
            raise DataError(f"{path}: mode {mode}, which has no defined way to 8-bit RGB")


def entries(folder: Path) -> list[Path]:
    """What is in a folder, but for what is hidden. Raises DataError where that cannot be read."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read, {error.strerror}", "make the folder readable") from error


def names_below(root: Path, paths: Sequence[Path]) -> list[str]:
    """Of each path below `root`, without suffix unless two differ in nothing else."""
    names = [_name(path, root) for path in paths]
    times = Counter(names)
    return [
        name if times[name] == 1 else path.relative_to(root).as_posix() for name, path in zip(names, paths, strict=True)
    ]


def check_names(paths: Iterable[Path]) -> None:
    """Raises DataError for names that are not UTF-8, as old archives leave them: no report could hold them."""
    strange = [ascii(str(path)) for path in paths if not _is_utf8(str(path))]
    if strange:
        raise DataError(f"names that are not UTF-8: {listed(strange)}", "rename these files")


def hash_folders(folders: Iterable[str | Path], scale: int) -> dict[str, str]:
    """Folder -> SHA-256 over names and bytes of the images that are read from it at `scale`, LR partners included.

    Raises DataError as image_files does, and for a file that cannot be read.
    """
    return {str(folder): _hash(image_files(folder, scale)) for folder in folders}


def _hash(files: Sequence[ImageFile]) -> str:
    parts = [(file.name, path) for file in files for path in (file.hr, file.lr) if path is not None]
    digest = hashlib.sha256()
    try:
        with ThreadPoolExecutor() as pool:
            contents = list(pool.map(hash_file, [path for _, path in parts]))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read, {error.strerror}", "make the file readable") from error
    for (name, path), content in zip(parts, contents, strict=True):
        digest.update(f"{name}{path.suffix}\0{content}\n".encode())
    return digest.hexdigest()


def _embedded_folder() -> Path:
    import skimage

    return Path(skimage.__file__).parent / "data"


def _existing(folder: str | Path) -> Path:
    root = Path(folder)
    if str(folder).startswith("scikit-image:"):
        raise DataError(f"no embedded images {folder}", f"the names are {' and '.join(EMBEDDED)}")
    if not root.exists():
        raise DataError(
            f"no folder {folder}", "name an existing folder in data.train, data.benchmarks or --calibration"
        )
    if not root.is_dir():
        raise DataError(f"{folder} is a file", "name the folder that it is in")
    return root


def _hr_folder(root: Path) -> Path:
    candidates = sorted(path for path in entries(root) if path.is_dir() and _is_hr(path.name))
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        raise DataError(f"{root} has several HR folders: {names}", f"name one of them, as {candidates[0]}")
    return candidates[0] if candidates else root


def _is_hr(name: str) -> bool:
    return name == "HR" or name.endswith("_HR")


def _is_lr(name: str) -> bool:
    return "LR" in name.split("_")


def _images_below(root: Path, seen: set[Path] | None = None) -> Iterator[Path]:
    """seen: the folders that were read, without links: one that several names lead to is read once."""
    seen = seen or set()
    seen.add(root.resolve())
    for path in sorted(entries(root)):
        if path.is_dir():
            if not _is_lr(path.name) and path.resolve() not in seen:
                yield from _images_below(path, seen)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


def _lr_folder(hr_folder: Path, scale: int) -> Path | None:
    if not _is_hr(hr_folder.name):
        return None
    base = hr_folder.name.removesuffix("HR")
    candidates = [hr_folder.with_name(f"{base}{kind}") / f"X{scale}" for kind in ("LR_bicubic", "LR")]
    return next((path for path in candidates if path.is_dir()), None)


def _paired(paths: Sequence[Path], root: Path, lr_folder: Path, scale: int) -> list[ImageFile]:
    reductions = {_name(path, lr_folder): path for path in sorted(_images_below(lr_folder))}
    pairs, alone = [], []
    for path in paths:
        name = _name(path, root)
        reduction = reductions.pop(f"{name}x{scale}", None) or reductions.pop(name, None)
        pairs.append(ImageFile(name, path, reduction))
        alone += [] if reduction else [str(path.relative_to(root.parent))]
    alone += [str(path.relative_to(root.parent)) for path in reductions.values()]
    if alone:
        hint = f"complete the pairs, or remove {lr_folder} to have the LR images made"
        raise DataError(f"without a partner in {root} and {lr_folder}: {listed(alone)}", hint)
    return pairs


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    return ((values.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8)


def listed(items: Sequence[str], most: int = 20) -> str:
    """The items on one line; beyond `most` only their number."""
    rest = f"; and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + rest
