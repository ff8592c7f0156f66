"""Times the models of a bundle on this device, in small groups beside a calibration workload.

Each model is in two groups, one turn over all models apart: a neighbour on the same cores may slow wide kernels by half
for as long as a group lasts, and the calibration not at all.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle import Bundle, Model, open_bundle
from deploy.device import device_facts, runtime_versions, usable_cores
from deploy.files import check_writable, write_at_once
from deploy.openers import PRECISIONS, RUNTIMES, open_candidate, positive_int
from deploy.runners import DeployError, Frame, Runner, in_one_line
from deploy.timing import Timing, time_beside

SCHEMA = 1
MINUTES = 8.0
GROUP = 12  # models that are timed in turns, with the calibration between
TIMES = 2  # groups that each model is in
ROUNDS = (8, 10)  # of a group at least, and calls of each model that count, as time allows
SLOWEST_MS = 200.0  # a model that takes longer is left out
TRIALS = 2  # runs that show how long a model takes
HOPELESS = 4.0  # and so is, unseen, a model with so many times the MACs of one that was left out


class TooSlow(DeployError):
    """No model of the bundle could be timed here."""


@dataclass(frozen=True, slots=True)
class Progress:
    """done: of `total` timings. ms: median of the latest. seconds_left: a guess, and never above the limit."""

    done: int
    total: int
    ms: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Setting:
    """What a bundle is measured in. lr_size: (height, width). threads: of one operator."""

    runtime: str
    precision: str
    lr_size: tuple[int, int]
    threads: int

    def open(self, path: Path, stack: ExitStack) -> tuple[Callable[[], object], float]:
        """What runs one random frame through the model until `stack` ends, and the milliseconds of a quick run.

        The first run prepares; of the next, the quickest counts, since one alone may have met with a disturbance.
        """
        runner = stack.enter_context(open_candidate(path, self.runtime, self.precision, self.threads))
        infer = one_frame(runner, self.lr_size)
        infer()
        seconds = []
        for _ in range(TRIALS):
            start = time.perf_counter()
            infer()
            seconds.append(time.perf_counter() - start)
        return infer, min(seconds) * 1e3


def one_frame(runner: Runner, lr_size: tuple[int, int]) -> Callable[[], Frame]:
    """Runs a random LR frame of `lr_size`, (height, width), through the model; always the same one.

    Raises DeployError where the model takes no frames of this size.
    """
    height, width = lr_size
    if any(side % runner.metadata.multiple for side in lr_size):
        multiple = runner.metadata.multiple
        raise DeployError(f"a frame of {height}x{width} does not suit the model, which takes multiples of {multiple}")
    channels = 3 if runner.metadata.color == "rgb" else 1
    frame = np.random.default_rng(0).random((1, channels, *lr_size), np.float32)
    return lambda: runner.infer(frame)


def measure_bundle(
    folder: Path,
    bundle: Bundle,
    setting: Setting,
    seconds: float,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """What this device makes of a `bundle` whose files lie in `folder`; every value is one of JSON.

    "groups" lists the timings of a few models by file, and that of the calibration beside them; "skipped" says why the
    others were not timed. seconds: after which no group begins.
    Raises RuntimeMissing, ModelUnreadable, TooSlow, and DeployError where a model takes no frames of this size.
    """
    deadline = time.monotonic() + seconds
    facts = {"device": device_facts(setting.runtime), "versions": runtime_versions(setting.runtime)}
    waiting = list(bundle.models) * TIMES
    total = len(waiting)
    groups: list[dict[str, Any]] = []
    quick_ms = math.inf  # of the calibration, in the quickest group
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        calibration, _ = setting.open(folder / bundle.calibration.file, stack)
        while waiting and (left := deadline - time.monotonic()) > 0:
            size = min(GROUP, len({model.file for model in waiting}))  # none twice: each turn has the same order
            here, waiting = waiting[:size], waiting[size:]
            share = left / (1 + len(waiting) / size)
            beside, timings, slow = _time_group(folder, here, setting, calibration, share, quick_ms)
            skipped |= {file: f"takes {ms:.0f} ms" for file, ms in slow.items()}
            hopeless = min((HOPELESS * model.macs for model in here if model.file in slow), default=math.inf)
            skipped |= {model.file: "has too many MACs" for model in waiting if model.macs > hopeless}
            waiting = [model for model in waiting if model.file not in skipped]
            if beside is None:
                continue
            quick_ms = min(quick_ms, beside.median_ms)
            rows = {file: asdict(timing) for file, timing in timings.items()}
            groups.append({"calibrations": [asdict(beside)], "models": rows})
            if on_progress is not None:
                done, left = total - len(waiting), max(deadline - time.monotonic(), 0)
                guess = (seconds - left) / done * len(waiting)
                latest_ms = [*timings.values()][-1].median_ms
                on_progress(Progress(done, total, latest_ms, min(left, guess)))
    timed = {file for group in groups for file in group["models"]}
    skipped |= {model.file: "no time was left" for model in waiting}
    if not groups and waiting:
        raise TooSlow("no time was left for the first models")
    if not groups:
        height, width = bundle.lr_size
        raise TooSlow(f"no model takes less than {SLOWEST_MS:g} ms for a frame of {height}x{width}")
    return {
        "schema": SCHEMA,
        "bundle": bundle.to_dict(),
        "runtime": setting.runtime,
        "precision": setting.precision,
        "threads": setting.threads,
        **facts,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "groups": groups,
        "skipped": {file: why for file, why in skipped.items() if file not in timed},
    }


def _time_group(
    folder: Path,
    models: Sequence[Model],
    setting: Setting,
    calibration: Callable[[], object],
    seconds: float,
    quick_ms: float,
) -> tuple[Timing | None, dict[str, Timing], dict[str, float]]:
    """Timings of the calibration, None where no model is fast enough, and of models; and the ms of those too slow."""
    deadline = time.monotonic() + seconds
    work: dict[str, Callable[[], object]] = {}
    slow: dict[str, float] = {}
    with ExitStack() as stack:
        for model in models:
            infer, ms = setting.open(folder / model.file, stack)
            if ms > SLOWEST_MS:
                slow[model.file] = ms
            else:
                work[model.file] = infer
        if not work:
            return None, {}, slow
        return *time_beside(calibration, work, ROUNDS, deadline - time.monotonic(), quick_ms), slow


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures one bundle. Ends with a line on stderr and exit code 1 where it cannot."""
    parser = argparse.ArgumentParser(prog="python -m deploy.measure", description="Time the models of a bundle here.")
    parser.add_argument("bundle", type=Path, help="what `sr-pipeline profile --bundle` wrote, as a zip or unpacked")
    parser.add_argument("-o", "--output", type=Path, default=Path("result.json"), help="(default: %(default)s)")
    parser.add_argument("--runtime", choices=RUNTIMES, help="(default: what the bundle was made for)")
    parser.add_argument("--precision", choices=PRECISIONS, help="(default: what the bundle was made for)")
    parser.add_argument(
        "--threads", type=positive_int, default=usable_cores(), help="of one operator (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time limit (default: %(default)g)")
    given = parser.parse_args(arguments)
    try:
        check_writable(given.output)
        with open_bundle(given.bundle) as (folder, bundle):
            runtime, precision = given.runtime or bundle.runtime, given.precision or bundle.precision
            setting = Setting(runtime, precision, bundle.lr_size, given.threads)
            result = measure_bundle(folder, bundle, setting, 60 * given.minutes, _tell)
            write_at_once(given.output, (json.dumps(result, indent=1) + "\n").encode())
    except DeployError as error:
        raise SystemExit(in_one_line(error)) from error


def _tell(at: Progress) -> None:
    sys.stderr.write(f"{at.done}/{at.total} timings, the latest {at.ms:.1f} ms, about {at.seconds_left:.0f} s left\n")


if __name__ == "__main__":
    main()
