"""Drives each stage with the settings: reads what it needs, shows its progress, and skips what is current."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from pipeline.config import Settings
from pipeline.data import load_pairs
from pipeline.distill import teacher_file
from pipeline.errors import StaleArtifact
from pipeline.export import export, export_work
from pipeline.images import hash_folders
from pipeline.manifest import claim, hash_file, is_current, read_manifest
from pipeline.onnx_graph import Precision
from pipeline.runs import facts_from_run
from pipeline.search import search
from pipeline.terminal import ProgressBar, note, search_figures
from pipeline.training import Recipe, settings_of, space_from_recipe
from pipeline.verdict import Thresholds
from pipeline.verify import verify, verify_work

SMALLEST = 16  # LR pixels on a side of a benchmark image: SSIM needs a window of 11 inside the border


def search_run(run: Path, settings: Settings) -> None:
    """Writes RUN/search. Raises ConfigError, InfeasibleBudget, DataError, StaleArtifact."""
    task, train = settings.task, settings.train
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
        activation=settings.search.activation,
        unshuffle=settings.search.unshuffle,
        variant=settings.search.variant,
        teacher=train.teacher,
        teacher_weight=train.teacher_weight,
    )
    budget, folders = settings.budget.bounds, settings.data.train
    inputs = hash_folders(folders, task.scale)
    if train.teacher:
        inputs["teacher"] = hash_file(teacher_file(Path(train.teacher)))
    if is_current(run / "search", inputs=inputs, settings=settings_of(recipe, budget), seed=recipe.seed):
        note(f"search: {run} is current")
        return
    space_from_recipe(recipe, budget)  # an infeasible budget is refused before the images are decoded
    claim(run / "search")
    with ProgressBar("images") as bar:
        pairs = load_pairs(folders, task.scale, skip_broken=settings.data.skip_broken, progress=bar)
    note(f"search: {recipe.steps} steps on {len(pairs)} photograph{'s' if len(pairs) > 1 else ''}, into {run}")
    with ProgressBar("search") as bar:
        search(
            run,
            recipe,
            budget,
            pairs,
            inputs=inputs,
            on_progress=lambda at: bar(at.step, at.steps, search_figures(at), at.phase),
        )


def export_run(run: Path, precisions: set[Precision]) -> None:
    """Writes RUN/export in `precisions` and in those it was exported in before. Raises ConfigError, StaleArtifact."""
    with suppress(StaleArtifact):
        precisions = precisions | set(read_manifest(run / "export").settings["precisions"])
    if is_current(run / "export", **export_work(run, precisions)):
        note(f"export: {run} is current")
        return
    claim(run / "export")
    export(run, precisions)


def verify_run(run: Path, settings: Settings) -> None:
    """Writes RUN/verify, whatever the verdict. Raises ConfigError, StaleArtifact, BackendMissing, DataError."""
    folders, scale = settings.data.benchmarks, facts_from_run(run)["architecture"]["scale"]
    budget, thresholds = settings.budget.bounds, Thresholds(**asdict(settings.verify))
    inputs = hash_folders(folders, scale)
    if is_current(run / "verify", **verify_work(run, budget, thresholds, inputs=inputs)):
        note(f"verify: {run} is current")
        return
    claim(run / "verify")
    pairs = {
        name: load_pairs([folder], scale, skip_broken=settings.data.skip_broken, minimum=SMALLEST)
        for name, folder in _short_names(folders).items()
    }
    with ProgressBar("verify") as bar:
        verify(run, pairs, budget, thresholds, inputs=inputs, on_progress=lambda at: bar(at.done, at.total, at.image))


def _short_names(folders: Sequence[str]) -> dict[str, str]:
    """Name -> folder: "Set5" for "data/Set5" and for "data/Set5/HR", unless two would be called the same."""
    names = [Path(folder).parent.name if Path(folder).name == "HR" else Path(folder).name for folder in folders]
    return dict(zip(names if len({*names}) == len(folders) and all(names) else folders, folders, strict=True))
