"""Drives each stage with the settings: reads what it needs, shows its progress, and skips what is current."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from deploy.engine_facts import Flavour, Shapes
from deploy.openers import exported_precision
from deploy.runners import Frame
from deploy.upscale import TILE
from pipeline.architecture import Architecture, architecture_from_dict
from pipeline.autocast import bf16_supported
from pipeline.backends import OPENVINO_INT8, Precision, candidate_model, deploy_errors, engine_fits
from pipeline.budget import Budget
from pipeline.command_lines import CALIBRATION, TEACHER, calibrated_on, folders_from_manifest
from pipeline.config import Settings
from pipeline.data import load_pairs
from pipeline.distill import teacher_file
from pipeline.errors import BackendMissing, ConfigError, StaleArtifact
from pipeline.export import export, export_work
from pipeline.images import hash_folders
from pipeline.manifest import check_outputs, claim, hash_file, is_current, read_manifest
from pipeline.model_facts import margin_from_architecture
from pipeline.profile import DRIFT, profile_path
from pipeline.quantise import frames_from_pairs, quantisers
from pipeline.runs import budget_of_run, facts_from_run, report_of
from pipeline.search import search
from pipeline.target import differences_here, profile_of_budget, target_of_budget
from pipeline.terminal import ProgressBar, note, search_figures
from pipeline.torch_runner import device_named
from pipeline.training import Recipe, settings_of, space_from_recipe
from pipeline.verdict import Thresholds, too_slow
from pipeline.verify import verify, verify_work

SMALLEST = 16  # LR pixels on a side of a benchmark image: SSIM needs a window of 11 inside the border
DEFAULT: tuple[Precision, ...] = ("fp32", "fp16")
PROFILE = "profile.toml"  # of the device, in the manifest


def search_run(run: Path, settings: Settings) -> None:
    """Writes RUN/search. Raises ConfigError, InfeasibleBudget, BackendMissing, DataError, StaleArtifact."""
    task, train, budget = settings.task, settings.train, settings.budget.bounds
    profile = profile_of_budget(budget)
    recipe = Recipe(
        space=settings.search.space,
        scale=task.scale,
        color=task.color,
        relaxation=settings.search.relaxation,
        steps=settings.search.steps,
        batch=train.batch,
        patch=train.patch,
        rate=train.rate,
        seed=settings.search.seed,
        activation=settings.search.activation_of(None if profile is None else profile.activation),
        unshuffle=settings.search.unshuffle,
        variant=settings.search.variant,
        teacher=train.teacher,
        teacher_weight=train.teacher_weight,
        precision=train.precision,
        device=train.device,
        skip_broken=settings.data.skip_broken,
    )
    folders = settings.data.train
    inputs = hash_folders(folders, task.scale) | _profile_hash(budget)
    if train.teacher:
        inputs[TEACHER] = hash_file(teacher_file(Path(train.teacher)))
    if is_current(run / "search", inputs=inputs, settings=settings_of(recipe, budget), seed=recipe.seed):
        note(f"search: {run} is current")
        return
    precisions_of(settings)  # what cannot be exported here is not searched for
    target = target_of_budget(budget, recipe.scale, recipe.color, recipe.activation, recipe.unshuffle, note)
    device = None if target is None else target.device
    space_from_recipe(recipe, budget, device)  # an infeasible budget is refused before the images are decoded,
    computed_on = device_named(recipe.device)  # and a GPU that is absent
    if recipe.precision == "bf16" and not bf16_supported(computed_on):
        note(
            "warning: train.precision is bf16, which this device emulates: a step takes many times as long as in fp32; "
            "auto chooses what is faster"
        )
    claim(run / "search")
    with ProgressBar("images") as bar:
        pairs = load_pairs(folders, task.scale, skip_broken=recipe.skip_broken, progress=bar)
    note(f"search: {recipe.steps} steps on {len(pairs)} photograph{'s' if len(pairs) > 1 else ''}, into {run}")
    with ProgressBar("search") as bar:
        report = search(
            run,
            recipe,
            budget,
            pairs,
            inputs=inputs,
            device=device,
            tell=lambda line: note(f"search: {line}"),
            on_progress=lambda at: bar(at.step, at.steps, search_figures(at), at.phase),
        )
    _note_misprediction(report, budget)


def _note_misprediction(report: Mapping[str, Any], budget: Budget) -> None:
    """Tells the user where the delivered network, as timed, is far from what the profile lets expect of it."""
    for finalist in report["finalists"]:
        ratio = finalist["measured_ms"] / finalist["predicted_ms"]
        if finalist["architecture_id"] == report["architecture_id"] and abs(ratio - 1) > DRIFT:
            note(
                f"warning: the network takes {ratio:.2f} times what {budget.profile} lets expect. It keeps the budget, "
                "but was chosen by prices that this device does not have now: search again while nothing else runs, or "
                "measure the profile again, for a better one"
            )


def export_run(
    run: Path,
    precisions: set[Precision],
    flavours: Collection[Flavour] = (),
    calibration: Sequence[str] = (),
    timing_cache: Path | None = None,
) -> None:
    """Writes RUN/export in fp32, in `precisions` and with engines of `flavours`, and what it was exported in before.

    An engine of another version of its runtime, or for another GPU than is here, is built again.
    calibration: folders with images for int8; without any, those of the earlier export, or of the search.
    timing_cache: as `export` takes it. Raises ConfigError, StaleArtifact, DataError, BackendMissing.
    """
    earlier: dict[str, Any] = {}
    calibrated: list[str] = []
    with suppress(StaleArtifact):
        manifest = read_manifest(run / "export")
        earlier, calibrated = manifest.settings, calibrated_on(manifest)
    architecture = architecture_from_dict(facts_from_run(run)["architecture"])
    shapes = _shapes(architecture, budget_of_run(run).lr_size)
    precisions = {"fp32", *precisions, *earlier.get("precisions", [])}
    if calibration and "int8" not in precisions:
        raise ConfigError(f"--calibration {calibration[0]}: nothing is exported in INT8", "add --precision int8")
    engines = dict.fromkeys([*earlier.get("engines", {}), *flavours], shapes)
    folders: Sequence[str] = ()
    if "int8" in precisions:
        folders = calibration or calibrated or folders_from_manifest(check_outputs(run / "search"))
    hashes = hash_folders(folders, architecture.scale)
    read = {f"{CALIBRATION}{name}": found for name, found in hashes.items()}
    work = export_work(run, precisions, engines=engines, inputs=read)
    if is_current(run / "export", **work) and all(map(engine_fits, (run / "export").glob("*.engine"))):
        note(f"export: {run} is current")
        return
    claim(run / "export")
    frames: list[Frame] = []
    if folders:
        with ProgressBar("calibration images") as bar:
            pairs = load_pairs(folders, architecture.scale, skip_broken=True, minimum=SMALLEST, progress=bar)
        frames = frames_from_pairs(pairs, architecture.color, architecture.unshuffle)
        if "nncf" not in quantisers():
            note(
                "export: no INT8 model for OpenVINO, because nncf is not installed: pip install 'sr-pipeline[openvino]'"
            )
    export(run, precisions, engines=engines, timing_cache=timing_cache, frames=frames, inputs=read)


def precisions_of(settings: Settings) -> set[Precision]:
    """What a run is exported in: fp32 and fp16, and what the profile of a latency budget needs.

    Raises ConfigError where there is no such profile, BackendMissing where its model cannot be made here.
    """
    precisions = {*DEFAULT}
    if (profile := profile_of_budget(settings.budget.bounds)) is not None:
        with deploy_errors():
            precisions.add(cast(Precision, exported_precision(profile.runtime, profile.precision)))
        if candidate_model(profile.runtime, profile.precision) == OPENVINO_INT8 and "nncf" not in quantisers():
            raise BackendMissing(
                f"nncf is not installed, which makes the model of profile {profile.name} ({profile.candidate})",
                "pip install 'sr-pipeline[openvino]'",
            )
    return precisions


def _profile_hash(budget: Budget) -> dict[str, str]:
    """What a stage reads of the device, for its manifest; there is such a profile."""
    if budget.latency_ms is None or budget.profile is None:
        return {}
    return {PROFILE: hash_file(profile_path(budget.profile))}


def _shapes(architecture: Architecture, lr_size: tuple[int, int]) -> Shapes:
    """Frames that an engine takes: best at the budget's size, from the smallest up to a tile with its margins.

    A size that the network does not take is rounded up.
    """
    least = architecture.unshuffle
    largest = TILE + 2 * margin_from_architecture(architecture)
    height, width = (-(-side // least) * least for side in lr_size)
    return Shapes((1, least, least), (1, height, width), (1, max(height, largest), max(width, largest)))


def verify_run(run: Path, settings: Settings) -> None:
    """Writes RUN/verify, whatever the verdict. Raises ConfigError, StaleArtifact, BackendMissing, DataError."""
    folders, network = settings.data.benchmarks, architecture_from_dict(facts_from_run(run)["architecture"])
    budget, thresholds = settings.budget.bounds, Thresholds(**settings.verify.thresholds)
    scale, timed = network.scale, settings.verify.latency
    skip_broken = settings.data.skip_broken
    profile = profile_of_budget(budget)  # one that is missing or damaged is refused before anything is done
    measured = profile is not None and not differences_here(profile)
    inputs = hash_folders(folders, scale) | _profile_hash(budget)
    work = verify_work(run, budget, thresholds, inputs=inputs, timed=timed, measured=measured, skip_broken=skip_broken)
    if is_current(run / "verify", **work):
        if not too_slow(report_of(run, "verify")):
            note(f"verify: {run} is current")
            return
        note("verify: the network was too slow, and is measured again")
    claim(run / "verify")
    target = target_of_budget(budget, scale, network.color, network.activation, network.unshuffle, note)
    pairs = {
        name: load_pairs([folder], scale, skip_broken=skip_broken, minimum=SMALLEST)
        for name, folder in _short_names(folders).items()
    }
    with ProgressBar("verify") as bar:
        verify(
            run,
            pairs,
            budget,
            thresholds,
            inputs=inputs,
            target=target,
            timed=timed,
            skip_broken=skip_broken,
            on_progress=lambda at: bar(at.done, at.total, at.doing),
        )


def _short_names(folders: Sequence[str]) -> dict[str, str]:
    """Name -> folder: "Set5" for "data/Set5" and for "data/Set5/HR", unless two would be called the same."""
    names = [Path(folder).parent.name if Path(folder).name == "HR" else Path(folder).name for folder in folders]
    return dict(zip(names if len({*names}) == len(folders) and all(names) else folders, folders, strict=True))
