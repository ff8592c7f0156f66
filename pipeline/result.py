"""Makes a device profile of what `deploy.measure` found on a device."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any

from deploy.bundle import Bundle, bundle_from_dict, open_bundle
from deploy.measure import SCHEMA
from deploy.openers import exported_precision
from deploy.timing import STEADY, Timing
from pipeline.architecture import architecture_from_dict
from pipeline.backends import deploy_errors
from pipeline.errors import ConfigError, StaleArtifact
from pipeline.profile import DECIMALS, DeviceProfile, Row, scaled
from pipeline.workload import (
    calibration_architecture,
    exported_versions,
    model_from_architecture,
    task_from_architecture,
)

AGAIN = "write a bundle with `sr-pipeline profile --bundle FILE`, measure it, and import its result"


def read_result(path: Path, bundle: Path | None = None) -> dict[str, Any]:
    """What `python -m deploy.measure` wrote at `path`. bundle: the zip or folder that it has to be a result of.

    Raises ConfigError where there is no file, StaleArtifact where it is damaged, of another schema, or of other models
    than the bundle or this version of sr-pipeline has.
    """
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (schema := result["schema"]) != SCHEMA:
            raise StaleArtifact(f"{path} has schema {schema}, this version reads schema {SCHEMA}", AGAIN)
        found = _bundle(result)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", "name the result.json of a device") from error
    except ValueError as error:
        raise StaleArtifact(f"{path} is no result of `python -m deploy.measure`: it is not JSON", AGAIN) from error
    except (KeyError, TypeError) as error:
        message = f"{path} is no result of `python -m deploy.measure`: it does not hold what they hold"
        raise StaleArtifact(message, AGAIN) from error
    if bundle is not None:
        with deploy_errors(), open_bundle(bundle) as (_, expected):
            if found.sha256 != expected.sha256:
                raise StaleArtifact(f"{path} is the result of another bundle than {bundle}", AGAIN)
    calibration = architecture_from_dict(found.calibration.architecture)
    exported = model_from_architecture(calibration, found.runtime, found.precision)
    if hashlib.sha256(exported).hexdigest() != found.calibration.sha256:
        raise StaleArtifact(f"{path} is of models that this version of sr-pipeline exports differently", AGAIN)
    return result


def profile_from_result(name: str, result: Mapping[str, Any]) -> DeviceProfile:
    """The profile of the device that a result is of.

    Times are scaled to the usual calibration, the median over all groups, by that of their own group. Of the groups
    that a model is in the quickest counts, of those beside a steady calibration if there are any: what slows that more
    than the model makes the model look quick.
    Raises StaleArtifact where the result is damaged.
    """
    try:
        bundle = _bundle(result)
        calibration = architecture_from_dict(bundle.calibration.architecture)
        architectures = {model.file: architecture_from_dict(model.architecture) for model in bundle.models}
        calibrations = [
            _joined([Row(calibration, Timing(**one)).timing for one in group["calibrations"]], fmean)
            for group in result["groups"]
        ]
        usual = median(timing.median_ms for timing in calibrations)
        steady = STEADY * min(timing.median_ms for timing in calibrations)
        timings: dict[str, list[tuple[bool, Timing]]] = {}
        for group, beside in zip(result["groups"], calibrations, strict=True):
            for file, timing in group["models"].items():
                found = scaled(Timing(**timing), usual / beside.median_ms)
                timings.setdefault(file, []).append((beside.median_ms > steady, found))
        quickest = {file: min(found, key=lambda one: (one[0], one[1].median_ms))[1] for file, found in timings.items()}
        rows = [Row(architectures[file], timing) for file, timing in quickest.items()]
        task = task_from_architecture(calibration, bundle.lr_size)
        if calibration != calibration_architecture(task):
            raise ValueError("it has another calibration workload")
        with deploy_errors():
            exported_precision(result["runtime"], result["precision"])
        datetime.fromisoformat(result["created"])
        if not result["device"].get("cpu"):
            raise ValueError("it does not say which device it is of")
        return DeviceProfile(
            name=name,
            runtime=str(result["runtime"]),
            precision=str(result["precision"]),
            lr_size=task.lr_size,
            threads=int(result["threads"]),
            scale=task.scale,
            color=task.color,
            activation=task.activation,
            unshuffle=task.unshuffle,
            device={str(key): str(value) for key, value in result["device"].items()},
            versions={str(key): str(value) for key, value in result["versions"].items()}
            | exported_versions(str(result["precision"])),
            created=str(result["created"]),
            calibration=Row(calibration, _joined(calibrations, median)),
            rows=tuple(rows),
        )
    except (AttributeError, ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise StaleArtifact(f"the result of the device is damaged: {error}", AGAIN) from error


def _bundle(result: Mapping[str, Any]) -> Bundle:
    with deploy_errors():
        return bundle_from_dict(result["bundle"])


def _joined(timings: list[Timing], average: Callable[[Iterable[float]], float]) -> Timing:
    """The average of each quantile over timings of one workload."""
    quantiles = zip(*((one.median_ms, one.p10_ms, one.p90_ms, one.p99_ms) for one in timings), strict=True)
    median_ms, p10_ms, p90_ms, p99_ms = (round(average(values), DECIMALS) for values in quantiles)
    return Timing(median_ms, p10_ms, p90_ms, p99_ms, sum(one.runs for one in timings))
