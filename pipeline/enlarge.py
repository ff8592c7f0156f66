"""Enlarges image files, one or a folder of them, through a run or an exported model."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast, get_args

from deploy.engine_facts import Flavour
from deploy.image_files import bytes_of_image, color_profile, read_image
from deploy.openers import ENGINE, exported_precision
from deploy.runners import DeployError
from deploy.upscale import upscale
from pipeline.backends import Precision, candidate_model, deploy_errors, engine_name, open_named
from pipeline.errors import ConfigError, DataError, StaleArtifact
from pipeline.images import SUFFIXES, check_names, entries, listed, names_below
from pipeline.manifest import atomic_path, check_outputs
from pipeline.runs import state_of


def model_from_path(path: Path, runtime: str = "onnxruntime", precision: str | None = None) -> Path:
    """The model a user means: the file itself, or that of a run which `runtime` runs in `precision`.

    precision: None for the most precise one. Raises ConfigError where there is nothing, StaleArtifact where the run
    has no export, or none in this precision, or was changed since; BackendMissing for an unknown pair.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise ConfigError(f"no run or model at {path}", "name a run directory or a model.onnx")
    outputs = check_outputs(path / "export").outputs
    models = [name for name in outputs if name.endswith(".onnx")]
    if state_of(path, "export")["stale"]:
        raise StaleArtifact(f"{path} was searched again since its export", f"run `sr-pipeline export {path}`")
    if not models:
        raise StaleArtifact(f"{path}/export holds no model", f"run `sr-pipeline export {path}`")
    if runtime == ENGINE:
        return path / "export" / _engine(path, outputs, cast(Precision, precision or "fp32"))
    if precision is None:
        return path / "export" / min(models, key=len)
    if (model := candidate_model(runtime, precision)) not in models:
        hint = f"run `sr-pipeline export {path} --precision {exported_precision(runtime, precision)}`"
        raise StaleArtifact(f"{path}/export has no {model}, which {runtime} {precision} needs", hint)
    return path / "export" / model


def enlarge(
    model: Path,
    source: Path,
    target: Path | None,
    on_image: Callable[[Path], None] | None = None,
    runtime: str = "onnxruntime",
    precision: str | None = None,
) -> list[Path]:
    """Enlarges the image `source`, or every image of the folder `source`, and returns what was written.

    runtime, precision: of the model, as `deploy.openers.open_in` takes them.
    target: a file, or a folder, which has no suffix and is made; None writes beside the source, as photo_x2.png or
        folder_x2/photo.png.
    on_image: called with what was written, after each image.
    Raises DataError that names all images that could not be read, after the others were written; ConfigError where the
    target cannot be written or is what is read; BackendMissing where the runtime is absent.
    """
    images = _images(source)
    check_names(images)
    taken = {image.resolve() for image in images}
    if source.is_dir() and target is not None and target.resolve() == source.resolve():
        raise ConfigError(f"{target} is the folder to read from", "name another folder with -o")
    if target is not None and target.resolve() in taken:
        raise ConfigError(f"{target} is the image to enlarge", "name another file with -o")
    broken: list[str] = []
    written: list[Path] = []
    with open_named(model, runtime, precision) as runner:
        suffix = f"_x{runner.metadata.scale}"
        for image, output in zip(images, _targets(images, source, target, suffix), strict=True):
            try:
                pixels = read_image(image)
            except DeployError as error:
                broken.append(str(error))
                continue
            with deploy_errors():
                enlarged = upscale(runner, pixels)
            try:
                content = bytes_of_image(output, enlarged, color_profile(image))
            except DeployError as error:
                raise ConfigError(str(error), "name a .png with -o") from error
            with atomic_path(output) as temporary:
                temporary.write_bytes(content)
            written.append(output)
            if on_image is not None:
                on_image(output)
    if broken:
        raise DataError(listed(broken), "remove these files, or convert them to 8-bit PNG")
    return written


def _engine(run: Path, outputs: Iterable[str], precision: Precision) -> str:
    engines = [engine_name(precision, flavour) for flavour in get_args(Flavour)]
    for name in engines:
        if name in outputs:
            return name
    hint = f"run `sr-pipeline export {run} --precision {precision} --engine {ENGINE}`"
    raise StaleArtifact(f"{run}/export has neither {' nor '.join(engines)}", hint)


def _images(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"no image or folder at {source}", "name an image or a folder of images")
    images = sorted(path for path in entries(source) if path.suffix.lower() in SUFFIXES and path.is_file())
    if not images:
        raise DataError(f"no images in {source}", f"it takes {', '.join(sorted(SUFFIXES))}")
    return images


def _targets(images: list[Path], source: Path, target: Path | None, suffix: str) -> list[Path]:
    """Where the enlarged images go: PNG, unless the name of a single target says otherwise."""
    if source.is_dir():
        beside = source if source.name not in ("", "..") else source.resolve()
        folder = target or beside.with_name(beside.name + suffix)
        return [folder / f"{name}.png" for name in names_below(source, images)]
    if target is None or target.is_dir() or not target.suffix:
        return [(target or source.parent) / f"{source.stem}{suffix}.png"]
    return [target]
