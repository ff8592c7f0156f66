"""The search stage: searches and trains one network within a budget, and records how."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.budget import Budget, Device
from pipeline.data import Pair
from pipeline.errors import ConfigError
from pipeline.manifest import atomic_path, write_json, write_manifest
from pipeline.network import save_network
from pipeline.training import SETTLE, Progress, Recipe, Training, settings_of

CHECKPOINT_SECONDS = 20.0


def search(
    run: Path,
    recipe: Recipe,
    budget: Budget,
    pairs: Sequence[Pair],
    *,
    inputs: Mapping[str, str],
    device: Device | None = None,
    tell: Callable[[str], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Searches and trains one network within `budget`, writes RUN/search, and returns its report.

    An interrupted search goes on from its checkpoint where recipe, budget and inputs are the same, to the same weights.
    inputs: name -> SHA-256 of what `pairs` were read from. device: what a bound on latency is held to. tell: takes a
    line on what became of a checkpoint.
    Raises InfeasibleBudget, UnpricedOp and BackendMissing before any training, ConfigError for an unfit teacher or a
    GPU of too little memory, DataError where images are smaller than a patch, BudgetMissed where all finalists are
    slower on the device than the budget.
    """
    folder = run / "search"
    try:
        training = Training(recipe, budget, pairs, device)
        told = training.resume(folder / "checkpoint.safetensors", inputs)
        if told is not None and tell is not None:
            tell(told)
        saved = time.monotonic()
        while training.step < recipe.steps:
            progress = training.advance()
            if on_progress is not None:
                on_progress(progress)
            # Right before a move of the radius, which is what the distributions follow from.
            if training.step % SETTLE == 0 and time.monotonic() - saved > CHECKPOINT_SECONDS:
                training.save(folder / "checkpoint.safetensors", inputs)
                saved = time.monotonic()
    except torch.OutOfMemoryError as error:
        hint = "lower train.batch or train.patch, or set train.device = cpu"
        raise ConfigError("the search does not fit into the memory of the GPU", hint) from error
    report = training.report()
    network = training.network
    assert network is not None
    save_network(folder / "weights.safetensors", network)
    write_json(folder / "architecture.json", network.architecture.to_dict())
    rows = [json.dumps(row, allow_nan=False) for row in training.history]
    with atomic_path(folder / "history.jsonl") as temporary:
        temporary.write_text("\n".join(rows) + "\n", encoding="utf-8")
    write_json(folder / "report.json", report)
    write_manifest(
        folder,
        inputs=inputs,
        settings=settings_of(recipe, budget),
        seed=recipe.seed,
        outputs=["weights.safetensors", "architecture.json", "history.jsonl", "report.json"],
    )
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return report
