"""The verify stage: runs every form of a run's network on photographs, and draws what they look like."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from typing import Any, get_args

from deploy.device import usable_cores
from deploy.engine_facts import Flavour
from deploy.openers import Backend
from deploy.resample import upscale as bicubic
from deploy.runners import Runner
from pipeline.backends import (
    OPENVINO_INT8,
    Precision,
    deploy_errors,
    engine_model_name,
    engine_name,
    model_name,
    open_engine,
    open_model,
)
from pipeline.budget import Budget, Cost, cost_from_architecture
from pipeline.comparison import Example, draw_comparison, write_crops
from pipeline.data import Pair
from pipeline.errors import BackendMissing, DataError, StaleArtifact
from pipeline.forms import measure, odd_crop, outputs_and_image
from pipeline.latencies import Progress, time_forms
from pipeline.manifest import MODELS, atomic_path, check_outputs, claim, write_json, write_manifest
from pipeline.network import Network, fvcore_cost, load_network
from pipeline.target import Target
from pipeline.torch_runner import Computed, TorchRunner
from pipeline.verdict import Photograph, Thresholds, report_from_measurements

WEIGHTS, PLAIN = "search/weights.safetensors", "export/plain.safetensors"
EXAMPLES = 4  # photographs in the comparison
TF32 = ("onnxruntime cuda fp32", "onnxruntime tensorrt fp32")  # forms of fp32 that have their products so
TRACED = (24, 32)  # LR size of the frame that fvcore traces

# Where else an exported model of a precision is run, beside onnxruntime on the CPU; a test holds it to CANDIDATES.
FURTHER: dict[Precision, dict[str, Backend]] = {
    "fp32": {
        "openvino fp32": "openvino f32",
        "openvino bf16": "openvino bf16",
        "openvino fp16": "openvino f16",
        "onnxruntime cuda fp32": "onnxruntime cuda",
        "onnxruntime tensorrt fp32": "onnxruntime tensorrt",
    },
    "fp16": {"onnxruntime cuda fp16": "onnxruntime cuda", "onnxruntime tensorrt fp16": "onnxruntime tensorrt"},
    "int8": {},
}
RUNTIMES = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx")  # names of their packages

Benchmarks = Mapping[str, Sequence[Pair]]


def verify(
    run: Path,
    benchmarks: Benchmarks,
    budget: Budget,
    thresholds: Thresholds,
    *,
    inputs: Mapping[str, str],
    target: Target | None = None,
    timed: bool = True,
    skip_broken: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Writes RUN/verify with report.json, comparison.png and crops/; returns the report, whatever the verdict in it.

    The training form is the reference. Beside it run, on all photographs and in each set on one that is cropped to odd
    sides where none has such: the plain form, on an NVIDIA GPU as well, every exported model in onnxruntime on the CPU
    and as `FURTHER` says, and every engine. What cannot run here stands in the report's "not_run" with its reason, and
    nothing in its place; only onnxruntime is never spared. `pipeline.verdict.error_from_report` says what a report ends
    with.
    Unless `timed` is False, all exported forms that run here are timed in turns on a frame of the budget's LR size, and
    started once more in a process of their own. Where the budget bounds latency, the form of its profile is also timed
    beside the profile's calibration, and the verdict goes by that. The quality that is reported is of that form where
    it runs here, else of the first in onnxruntime.
    benchmarks: name of a set -> its pairs. inputs: name -> SHA-256 of what was read. target: of a latency budget.
    skip_broken: whether images that cannot be read are left out of the benchmarks.
    Raises ConfigError where there is no run, its export lacks the form of the target, or nothing can be written,
    StaleArtifact where search or export is unfinished or was changed since, BackendMissing, DataError for an empty set.
    """
    measured = target is not None and not target.differences
    work = verify_work(run, budget, thresholds, inputs=inputs, timed=timed, measured=measured, skip_broken=skip_broken)
    empty = [name for name, pairs in benchmarks.items() if not pairs]
    if empty or not benchmarks:
        raise DataError(f"no images in {', '.join(empty) or 'data.benchmarks'}", "name folders with photographs")
    folder = run / "verify"
    claim(folder)
    plain = load_network(run / PLAIN)
    with deploy_errors(), ExitStack() as stack:
        forms, not_run = _forms(run, plain, stack)
        cost = _cost(plain, budget.lr_size)
        judged: dict[str, Any] | None = None
        if target is not None:
            judged = target.judge(plain.architecture, run, budget)
            cost = replace(cost, latency_ms=judged["latency_ms"])
        photographs = _measure_all(benchmarks, forms, on_progress)
        exported = _exported(forms) if timed else {}
        latency, layers = time_forms(exported, run / "export", budget.lr_size, on_progress)
        deployed = next(name for name in forms if name.startswith("onnx"))
        if target is not None and target.profile.candidate in forms:
            deployed = target.profile.candidate
        report = report_from_measurements(
            plain.architecture,
            cost,
            budget,
            photographs,
            {name: "tf32" if name in TF32 else runner.metadata.precision for name, runner in forms.items()},
            deployed,
            thresholds,
            not_run,
            predicted=judged is not None and judged["measured_ms"] is None,
        )
        report |= {"latency": latency, "layers": layers, "profile": judged}
        examples = _examples(benchmarks, photographs, deployed, forms[deployed])
    (folder / "manifest.json").unlink(missing_ok=True)
    rmtree(folder / "crops", ignore_errors=True)
    report["examples"] = write_crops(folder / "crops", examples)
    write_json(folder / "report.json", report)
    with atomic_path(folder / "comparison.png") as temporary:
        draw_comparison(examples, report["architecture"]).save(temporary)
    crops = [f"crops/{name}" for example in report["examples"] for name in example["files"].values()]
    write_manifest(folder, **work, outputs=["report.json", "comparison.png", *crops])
    return report


def verify_work(
    run: Path,
    budget: Budget,
    thresholds: Thresholds,
    *,
    inputs: Mapping[str, str],
    timed: bool = True,
    measured: bool = False,
    skip_broken: bool = False,
) -> dict[str, Any]:
    """What this verification reads and how it is set, as `manifest.is_current` takes them.

    measured: whether this machine is the device of a latency budget, so that it is not only predicted. Others: as
    `verify` takes them.
    Raises StaleArtifact where search or export is unfinished, was changed since, or the export is of another search.
    """
    outputs = {
        f"{stage}/{name}": recorded
        for stage in ("search", "export")
        for name, recorded in check_outputs(run / stage).outputs.items()
    }
    if check_outputs(run / "export").inputs.get(WEIGHTS) != outputs.get(WEIGHTS):
        raise StaleArtifact(f"{run}/export is of an earlier search", f"run `sr-pipeline export {run}`")
    read = {name: recorded for name, recorded in outputs.items() if name.endswith(MODELS)}
    return {
        "inputs": {**read, **inputs},
        "settings": {
            "budget": asdict(budget),
            "thresholds": asdict(thresholds),
            "timed": timed,
            "measured": measured,
            "skip_broken": skip_broken,
            "runtimes": [name for name in RUNTIMES if find_spec(name)],  # what can run at last, has to
        },
    }


def _exported(forms: Mapping[str, Runner]) -> dict[str, Runner]:
    """Without the two forms in PyTorch on this CPU."""
    return {name: runner for name, runner in forms.items() if not name.endswith(" form")}


def _forms(run: Path, plain: Network, stack: ExitStack) -> tuple[dict[str, Runner], dict[str, str]]:
    """The training form, the plain form, and all that runs an exported model; and what cannot run, with the reason."""
    folder = run / "export"
    outputs = check_outputs(folder).outputs
    models = {precision: folder / model_name(precision) for precision in FURTHER if model_name(precision) in outputs}
    forms: dict[str, Runner] = {
        "training form": stack.enter_context(TorchRunner(load_network(run / WEIGHTS))),
        "plain form": stack.enter_context(TorchRunner(plain)),
    }
    for precision, path in models.items():
        forms[f"onnxruntime {precision}"] = stack.enter_context(open_model(path, usable_cores()))
    openers: dict[str, Callable[[], Runner]] = {
        f"torch cuda {precision}": partial(TorchRunner, plain, "cuda", precision) for precision in get_args(Computed)
    }
    not_run: dict[str, str] = {}
    for precision, path in models.items():
        for name, backend in FURTHER[precision].items():
            openers[name] = partial(open_model, path, usable_cores(), backend)
        for flavour in get_args(Flavour):
            if (engine := engine_name(precision, flavour)) in outputs:
                openers[f"{flavour} {precision}"] = partial(
                    open_engine, folder / engine, outputs[engine_model_name(precision)]
                )
            else:
                not_run[f"{flavour} {precision}"] = "the export has no such engine: --engine of `sr-pipeline export`"
    if OPENVINO_INT8 in outputs:
        openers["openvino int8"] = partial(open_model, folder / OPENVINO_INT8, usable_cores(), "openvino f32")
    elif "int8" in models:
        not_run["openvino int8"] = (
            f"the export has no {OPENVINO_INT8}, which nncf makes: pip install 'sr-pipeline[openvino]' and export again"
        )
    for name, opened in openers.items():
        try:
            forms[name] = stack.enter_context(opened())
        except BackendMissing as error:
            not_run[name] = f"{error.message}: {error.hint}"
    if len({runner.metadata.architecture_id for runner in forms.values()}) > 1 or not models:
        raise StaleArtifact(f"{run}/export has no model of this network", f"run `sr-pipeline export {run}`")
    return forms, not_run


def _measure_all(
    benchmarks: Benchmarks, forms: Mapping[str, Runner], on_progress: Callable[[Progress], None] | None
) -> list[Photograph]:
    scale = next(iter(forms.values())).metadata.scale
    work = [(name, pair, False) for name, pairs in benchmarks.items() for pair in pairs]
    for name, pairs in benchmarks.items():
        if not any(pair.lr.shape[0] % 2 and pair.lr.shape[1] % 2 for pair in pairs):
            smallest = min(pairs, key=lambda pair: pair.lr.shape[0] * pair.lr.shape[1])
            work.append((name, odd_crop(smallest, scale), True))
    photographs = []
    for done, (name, pair, for_parity) in enumerate(work, start=1):
        photograph = replace(measure(pair, forms, name), for_parity=for_parity)
        photographs.append(photograph)
        if on_progress is not None:
            on_progress(Progress(done, len(work), photograph.label))
    return photographs


def _cost(plain: Network, lr_size: tuple[int, int]) -> Cost:
    """The closed formula at `lr_size`, after fvcore has counted the same as the formula on a small frame."""
    counted, expected = fvcore_cost(plain, TRACED), cost_from_architecture(plain.architecture, TRACED)
    if counted != expected:
        raise AssertionError(f"fvcore counts {counted} at LR {TRACED}, the closed formula {expected}")
    return cost_from_architecture(plain.architecture, lr_size)


def _examples(
    benchmarks: Benchmarks, photographs: Sequence[Photograph], deployed: str, runner: Runner
) -> list[Example]:
    """The photographs on which the deployed model gains most over bicubic; where it gains on none, loses least."""
    pairs = {(name, pair.name): pair for name, pairs in benchmarks.items() for pair in pairs}

    def gain(photograph: Photograph) -> float:
        return photograph.forms[deployed].psnr_y - photograph.bicubic_psnr_y

    examples = []
    scored = [photograph for photograph in photographs if not photograph.for_parity]
    gained = [photograph for photograph in scored if gain(photograph) > 0]
    for photograph in sorted(gained or scored, key=gain, reverse=True)[:EXAMPLES]:
        pair = pairs[photograph.benchmark, photograph.name]
        _, ours = outputs_and_image(runner, pair.lr)
        examples.append(
            Example(
                name=photograph.label,
                truth=pair.hr,
                bicubic=bicubic(pair.lr, runner.metadata.scale),
                ours=ours,
                bicubic_psnr_y=photograph.bicubic_psnr_y,
                psnr_y=photograph.forms[deployed].psnr_y,
            )
        )
    return examples
