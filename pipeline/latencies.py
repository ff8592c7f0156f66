"""Times what a run exported, form beside form, and holds it to the device of a latency budget."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from deploy.device import device_facts, usable_cores
from deploy.measure import one_frame
from deploy.runners import Runner
from deploy.timing import time_interleaved

SECONDS = 15.0  # for all forms together, about
ROUNDS = (5, 50)
WARM_UP = 2

Size = tuple[int, int]


def latency_rows(
    forms: Mapping[str, Runner], lr_size: Size, on_round: Callable[[int, int], None] | None = None
) -> list[dict[str, Any]]:
    """One row of JSON values for each form, "<runtime> <precision>", timed in turns on a random frame of `lr_size`."""
    work = {name: one_frame(runner, lr_size) for name, runner in forms.items()}
    once = time_interleaved(work, rounds=1, warmup=1)
    round_seconds = sum(timing.median_ms for timing in once.values()) / 1e3
    rounds = int(min(max(SECONDS / round_seconds, ROUNDS[0]), ROUNDS[1]))
    timings = time_interleaved(work, rounds, WARM_UP, on_round)
    rows = []
    for name, timing in timings.items():
        runtime, _, precision = name.rpartition(" ")
        facts = device_facts(runtime)
        row = {
            "candidate": name,
            "runtime": runtime,
            "precision": precision,
            "device": facts.get("gpu", facts["cpu"]),
            "lr_size": [*lr_size],
            "threads": usable_cores(),
        }
        rows.append({**row, **asdict(timing)})
    return rows
