"""The command lines that would make a run again, read from the manifests of its stages."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from pipeline.config import (
    DataSettings,
    SearchSettings,
    Settings,
    TaskSettings,
    TrainSettings,
    VerifySettings,
    load_settings,
)
from pipeline.manifest import MODELS, Manifest

FILES = (*MODELS, ".toml")  # what a stage reads beside folders of images
TEACHER = "train.teacher"  # the hash of it; a folder may well be named teacher
CALIBRATION = "calibration/"  # before the names of the folders that INT8 was calibrated on


def command_lines(run: str, manifests: Mapping[str, Manifest]) -> list[str]:
    """One for each stage in `manifests`, with every setting that is not the default."""
    makers = {"search": _search, "export": _export, "verify": _verify}
    return [
        shlex.join(["sr-pipeline", *maker(run, manifests)]) for stage, maker in makers.items() if stage in manifests
    ]


def folders_from_manifest(manifest: Manifest) -> list[str]:
    """The folders of images that a search or a verification read."""
    return [name for name in manifest.inputs if name != TEACHER and not name.endswith(FILES)]


def calibrated_on(manifest: Manifest) -> list[str]:
    """The folders of images that an export measured the ranges of INT8 on."""
    return [name.removeprefix(CALIBRATION) for name in manifest.inputs if name.startswith(CALIBRATION)]


def _search(run: str, manifests: Mapping[str, Manifest]) -> Iterable[str]:
    manifest = manifests["search"]
    recipe, budget = manifest.settings["recipe"], manifest.settings["budget"]
    values: dict[str, Any] = {"data.train": folders_from_manifest(manifest)}
    values |= {f"budget.{key}": budget[key] for key in budget}
    sections = {"data": DataSettings, "task": TaskSettings, "search": SearchSettings, "train": TrainSettings}
    for section, keys in sections.items():
        values |= {f"{section}.{key.name}": recipe[key.name] for key in fields(keys) if key.name in recipe}
    return ["search", "-o", run, *_overrides(values)]


def _export(run: str, manifests: Mapping[str, Manifest]) -> Iterable[str]:
    manifest = manifests["export"]
    settings = manifest.settings
    words = ["export", run]
    for option, values in (
        ("--precision", settings.get("precisions", [])),
        ("--engine", settings.get("engines", {})),
        ("--calibration", calibrated_on(manifest)),
    ):
        words += [word for value in values for word in (option, value)]
    return words


def _verify(run: str, manifests: Mapping[str, Manifest]) -> Iterable[str]:
    """The budget is the one that was searched for, unless another is named."""
    manifest = manifests["verify"]
    thresholds, budget = manifest.settings["thresholds"], manifest.settings["budget"]
    values: dict[str, Any] = {"data.benchmarks": folders_from_manifest(manifest)}
    if "search" not in manifests or manifests["search"].settings["budget"] != budget:
        values |= {f"budget.{key}": budget[key] for key in budget}
    values |= {f"verify.{key.name}": thresholds[key.name] for key in fields(VerifySettings) if key.name in thresholds}
    values["verify.latency"] = manifest.settings["timed"]
    values["data.skip_broken"] = manifest.settings.get("skip_broken", False)
    return ["verify", run, *_overrides(values)]


def _overrides(values: Mapping[str, Any]) -> Iterable[str]:
    """--set for each value that differs from its default and that this version knows."""
    defaults: Settings = load_settings()
    for name, value in values.items():
        section, key = name.split(".")
        default = getattr(getattr(defaults, section), key, value)
        if value != (list(default) if isinstance(default, tuple) else default):
            yield "--set"
            yield f"{name}={toml_value(value)}"


def toml_value(value: Any) -> str:
    """A setting's value as --set takes it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(entry) for entry in value)}]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
