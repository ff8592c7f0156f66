"""Times all that a run exported, form beside form, and what each takes to start."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.device import device_facts, usable_cores
from deploy.measure import one_frame
from deploy.openers import CANDIDATES
from deploy.probe import measure_model_apart
from deploy.runners import Runner
from deploy.timing import time_interleaved
from pipeline.backends import candidate_model, deploy_errors

SECONDS = 15.0  # for all forms together, about
ROUNDS = (5, 50)
STARTED = ("load_ms", "first_ms", "peak_memory_mib", "model_bytes")

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Progress:
    """doing: what was measured last: an image, or the latency of a form."""

    done: int
    total: int
    doing: str


def time_forms(
    forms: Mapping[str, Runner], export: Path, lr_size: Size, on_progress: Callable[[Progress], None] | None = None
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """One row of JSON values for each form, "<runtime> <precision>", on a random frame of `lr_size`; and its layers.

    All are timed in turns in this process. What a model of the folder `export` takes to start, its memory and the time
    of its layers come from a process of its own; there are none for what is no ONNX model. A size that the network
    does not take is rounded up, as `deploy.upscale` fills a frame up. Raises BackendMissing.
    """
    if not forms:
        return [], {}
    multiple = max(runner.metadata.multiple for runner in forms.values())
    lr_size = (-(-lr_size[0] // multiple) * multiple, -(-lr_size[1] // multiple) * multiple)
    work = {name: one_frame(runner, lr_size) for name, runner in forms.items()}
    with deploy_errors():  # an engine may be for frames of other sizes
        round_seconds = sum(timing.median_ms for timing in time_interleaved(work, rounds=1, warmup=1).values()) / 1e3
    rounds = int(min(max(SECONDS / round_seconds, ROUNDS[0]), ROUNDS[1]))

    def tell(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(Progress(done, total, "latency, all forms in turns"))

    timings = time_interleaved(work, rounds, on_round=tell)
    rows, layers = [], {}
    for name, timing in timings.items():
        runtime, _, precision = name.rpartition(" ")
        started = dict.fromkeys(STARTED)
        if (runtime, precision) in CANDIDATES:
            with deploy_errors():
                path = export / candidate_model(runtime, precision)
                alone = measure_model_apart(path, runtime, precision, lr_size, usable_cores(), ROUNDS[0])
            started = {figure: alone[figure] for figure in STARTED}
            layers[name] = alone["layers"]
        facts = device_facts(runtime)
        row = {
            "candidate": name,
            "runtime": runtime,
            "precision": precision,
            "device": facts.get("gpu", facts["cpu"]),
            "lr_size": [*lr_size],
            "threads": usable_cores(),
        }
        rows.append({**row, **asdict(timing), **started})
    return rows, layers
