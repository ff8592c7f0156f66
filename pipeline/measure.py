"""Measures this machine for a device profile, and against one: its calibration now, and single networks."""

import math
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from deploy.device import device_facts, runtime_versions
from deploy.measure import SLOWEST_MS, Progress, Setting, measure_bundle
from deploy.timing import Timing, time_beside
from pipeline.architecture import Architecture
from pipeline.backends import deploy_errors
from pipeline.budget import cost_from_architecture
from pipeline.draw import draw_architectures
from pipeline.profile import DRIFT, DeviceProfile, scaled
from pipeline.result import profile_from_result
from pipeline.workload import (
    Task,
    calibration_architecture,
    exported_versions,
    model_from_architecture,
    write_workload,
)

SEED, NETWORKS = 0, 160
ROUNDS, SECONDS = (10, 15), 20.0  # rounds, calls that count, and how long they are waited for on a busy machine
REPEATS = 3
HERE = ("gpu", "cpu", "cores", "features")  # facts that make a device


def drawn_architectures(task: Task, macs: float) -> list[Architecture]:
    """The networks of a profile: spread over the `edge` space up to `macs` for one LR frame. Always the same."""
    return draw_architectures(
        NETWORKS,
        SEED,
        scale=task.scale,
        color=task.color,
        lr_size=task.lr_size,
        macs=(1, macs),
        activation=task.activation,
        unshuffle=task.unshuffle,
    )


def measure_device(
    name: str,
    task: Task,
    runtime: str,
    precision: str,
    threads: int,
    seconds: float,
    on_written: Callable[[int, int], None] | None = None,
    on_measured: Callable[[Progress], None] | None = None,
) -> DeviceProfile:
    """The profile of this machine. seconds: in all, about.

    on_written, on_measured: told of the models as they are made, and then timed.
    Raises BackendMissing; ConfigError where nothing of the space is fast enough.
    """
    deadline = time.monotonic() + seconds
    setting = Setting(runtime, precision, task.lr_size, threads)
    calibration = calibration_architecture(task)
    with deploy_errors(), tempfile.TemporaryDirectory() as folder:
        usual_ms, _ = _calibration_and(setting, calibration, math.inf)
        reach = cost_from_architecture(calibration, task.lr_size).macs * max(SLOWEST_MS / usual_ms, 1)
        drawn = drawn_architectures(task, reach)
        bundle = write_workload(Path(folder), task, drawn, runtime, precision, on_written)
        result = measure_bundle(Path(folder), bundle, setting, deadline - time.monotonic(), on_measured)
    return profile_from_result(name, result)


def measure_drift(profile: DeviceProfile) -> float:
    """Time of the calibration on this machine now, over that in the profile. Raises BackendMissing."""
    calibration = profile.calibration
    now_ms, _ = _calibration_and(_setting(profile), calibration.architecture, calibration.timing.median_ms)
    return now_ms / calibration.timing.median_ms


def measure_architecture(profile: DeviceProfile, architecture: Architecture) -> Timing:
    """Time of a network here, as it was on the machine of the profile: scaled by the calibration, timed beside it.

    The middle one of `REPEATS` timings; the slowest where that is `DRIFT` above it: a runtime may take one of two times
    for the same network, by where its memory came to lie, and a budget has to hold for both. Raises BackendMissing.
    """
    repeats = _repeats(profile, model_from_architecture(architecture, profile.runtime, profile.precision))
    middle, slowest = repeats[REPEATS // 2], repeats[-1]
    return slowest if slowest.median_ms > (1 + DRIFT) * middle.median_ms else middle


def measure_model(profile: DeviceProfile, model: bytes) -> Timing:
    """The same for an exported model: the middle one of `REPEATS` timings, as a busy machine disturbs now and then one.

    Raises BackendMissing, StaleArtifact where it is no model.
    """
    return _repeats(profile, model)[REPEATS // 2]


def _repeats(profile: DeviceProfile, model: bytes) -> list[Timing]:
    """`REPEATS` timings, each of a newly opened model and scaled by the calibration beside it, the fastest first.

    A machine that did not come back to the calibration's time in the profile is not waited for again.
    """
    calibration, usual_ms = profile.calibration.architecture, profile.calibration.timing.median_ms
    repeats, quick_ms = [], usual_ms
    for _ in range(REPEATS):
        now_ms, timing = _calibration_and(_setting(profile), calibration, quick_ms, model)
        repeats.append(scaled(timing, usual_ms / now_ms))
        quick_ms = max(usual_ms, now_ms)
    return sorted(repeats, key=lambda timing: timing.median_ms)


def is_this_device(profile: DeviceProfile) -> list[str]:
    """What differs between the profile's device and this machine, one line each; nothing where it is the same one.

    Compared are processor, usable cores, features and GPU, the version of the runtime, and that of the exported
    graphs. Raises BackendMissing.
    """
    with deploy_errors():
        facts, versions = device_facts(profile.runtime), runtime_versions(profile.runtime)
    package = profile.runtime.partition(" ")[0]
    pairs = {name: (profile.device.get(name), facts.get(name)) for name in HERE}
    pairs[package] = (profile.versions.get(package), versions[package])
    exported = exported_versions(profile.precision)
    pairs |= {name: (profile.versions.get(name), text) for name, text in exported.items()}
    return [f"{name} is {here}, was {was}" for name, (was, here) in pairs.items() if was != here]


def _setting(profile: DeviceProfile) -> Setting:
    return Setting(profile.runtime, profile.precision, profile.lr_size, profile.threads)


def _calibration_and(
    setting: Setting, calibration: Architecture, usual_ms: float, other: bytes | None = None
) -> tuple[float, Timing]:
    """Milliseconds of the calibration, and the timing of another model, or of the calibration once more.

    usual_ms: of the calibration when the machine is quiet, which a busy one is given time to come back to.
    """
    with deploy_errors(), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        opened = []
        model = model_from_architecture(calibration, setting.runtime, setting.precision)
        for at, content in enumerate([model] if other is None else [model, other]):
            path = Path(folder) / f"{at}.onnx"
            path.write_bytes(content)
            opened.append(setting.open(path, stack)[0])
        beside, timings = time_beside(opened[0], {"last": opened[-1]}, ROUNDS, SECONDS, usual_ms)
        return beside.median_ms, timings["last"]
