"""Drives the making of a device profile: here, or by way of a bundle; shows progress and writes the file."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from deploy.device import device_facts, usable_cores
from pipeline.backends import deploy_errors
from pipeline.bundle import write_bundle
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.manifest import claim
from pipeline.measure import drawn_architectures, measure_device
from pipeline.profile import FOLDER, DeviceProfile, profile_path, save_profile
from pipeline.result import profile_from_result, read_result
from pipeline.rules import file_name
from pipeline.terminal import ProgressBar, note
from pipeline.workload import Task

FEW = 100  # networks below which a model of the device is clearly worse
BUNDLE_MACS = 40e9  # of the largest networks in a bundle: a device leaves out what is too slow for it


def task_from_settings(settings: Settings, lr_size: tuple[int, int] | None) -> Task:
    """lr_size: (height, width), or None for that of the budget. Raises ConfigError where it does not suit unshuffle."""
    task, search = settings.task, settings.search
    size, unshuffle = lr_size or settings.budget.lr_size, search.unshuffle
    if any(side % unshuffle for side in size):
        raise ConfigError(
            f"LR size {size[0]}x{size[1]} is no multiple of unshuffle {unshuffle}", "name another with --lr-size"
        )
    return Task(task.scale, task.color, size, search.activation_of("relu"), unshuffle)


def profile_here(
    name: str | None,
    task: Task,
    runtime: str,
    precision: str,
    threads: int | None,
    minutes: float,
    *,
    force: bool = False,
) -> tuple[Path, DeviceProfile]:
    """Measures this machine. name: of the profile; None for one made of processor, runtime and precision.

    force: replaces a profile of that name. Raises BackendMissing, ConfigError.
    """
    with deploy_errors():
        name = name or _name(device_facts(runtime), runtime, precision)
    path = _path(name, force=force)
    claim(path.parent)
    threads, (height, width) = threads or usable_cores(), task.lr_size
    note(f"profile: {runtime} {precision}, {threads} threads, LR {height}x{width}; {minutes:g} minutes at most")
    with ProgressBar("models") as bar:
        profile = measure_device(
            name,
            task,
            runtime,
            precision,
            threads,
            60 * minutes,
            on_written=bar,
            on_measured=lambda at: bar(at.done, at.total, f"{at.ms:.1f} ms", "timings"),
        )
    return _saved(path, profile)


def profile_bundle(path: Path, task: Task, runtime: str, precision: str, minutes: float) -> None:
    """Writes the bundle that a device measures itself with. Raises BackendMissing, ConfigError."""
    architectures = drawn_architectures(task, BUNDLE_MACS)
    with ProgressBar("models") as bar:
        write_bundle(path, task, architectures, runtime, precision, minutes, bar)


def profile_import(
    name: str | None,
    result: Path,
    bundle: Path | None = None,
    asked: Mapping[str, object] | None = None,
    *,
    force: bool = False,
) -> tuple[Path, DeviceProfile]:
    """Makes the profile of a device from its result. bundle: what it has to be the result of.

    asked: fields of the profile, and what they have to be. name, force: as `profile_here` takes them.
    Raises ConfigError, StaleArtifact.
    """
    profile = profile_from_result(name or "", read_result(result, bundle))
    differ = [
        f"{key} is {getattr(profile, key)}, not {value}"
        for key, value in (asked or {}).items()
        if getattr(profile, key) != value
    ]
    if differ:
        raise ConfigError(f"{result} is of another measurement: {'; '.join(differ)}", "leave these options out")
    name = name or _name(profile.device, profile.runtime, profile.precision)
    return _saved(_path(name, force=force), replace(profile, name=name))


def _name(device: Mapping[str, str], runtime: str, precision: str) -> str:
    """A name for a file: "intel-r-core-i5-onnxruntime-fp32"."""
    words = f"{device.get('gpu') or device.get('cpu')} {runtime} {precision}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def _path(name: str, *, force: bool) -> Path:
    """profiles/<name>.toml. Raises ConfigError where that is no name, or without `force` where it is there already."""
    try:
        file_name().read(name)
        if name.endswith(".toml"):
            raise ValueError(name)
    except ValueError as error:
        raise ConfigError(
            f"{name!r} is no name of a profile; expected {file_name().expected}, without .toml",
            f"the profile is written to {FOLDER}/NAME.toml",
        ) from error
    path = profile_path(name)
    if path.exists() and not force:
        raise ConfigError(f"there is a profile at {path} already", "give another NAME, or --force to replace it")
    return path


def _saved(path: Path, profile: DeviceProfile) -> tuple[Path, DeviceProfile]:
    if len(profile.rows) < FEW:
        note(f"only {len(profile.rows)} networks were fast enough: give more --minutes or a smaller --lr-size")
    save_profile(path, profile)
    return path, profile
