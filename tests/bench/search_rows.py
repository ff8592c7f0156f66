"""Runs the rows that search: within MACs, and within the latency that a peer has on this device."""

import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch

from deploy.openers import exported_precision, open_candidate
from pipeline.architecture import Activation, Architecture, Color
from pipeline.backends import Precision, candidate_model
from pipeline.budget import Budget, Device
from pipeline.config import SearchSettings, TrainSettings
from pipeline.export import export
from pipeline.manifest import hash_file
from pipeline.network import load_network, network_from_architecture
from pipeline.optimizer import rate_factor
from pipeline.profile import DRIFT, DeviceProfile
from pipeline.quantise import frames_from_pairs
from pipeline.search import search
from pipeline.target import target_of_budget
from pipeline.training import Progress, Recipe
from tests.bench.board import LR_SIZE, PIXELS, Row
from tests.bench.board_file import search_version
from tests.bench.figures import Data, NotRun, Results, of_edge, scored, with_mean
from tests.bench.peer_latency import profiles_of_this_device
from tests.bench.peers import peer_from_name
from tests.bench.trainer import Look, Schedule, Trainer, scores_of_frames


def ours(row: Row, data: Data, run: Path, look: Look) -> dict[str, Any]:
    """run: where an interrupted search finds its checkpoint again."""
    budget = Budget(LR_SIZE, macs=row.macs * PIXELS)
    return _searched(row, recipe_of(row, "rgb", data), budget, None, data, run, look)


def ours_at_peer(
    row: Row, data: Data, known: Results, profiles: Sequence[Path], run: Path, look: Look
) -> dict[str, Any]:
    """A search of the peer's colour within its time, scored as exported.

    In "best" that is its time in what is fastest for the peer, and ours run in what is fastest for the calibration.
    Raises NotRun where the peer was not timed on this device in these, there is no profile, or the machine is busy.
    """
    times = known.get(f"latency/{row.peer}/time")
    if times is None:
        raise NotRun(f"it needs latency/{row.peer}/time")
    latency_ms: dict[str, float] = times["latency_ms"]
    color = peer_from_name(row.peer, 2).color
    here = profiles_of_this_device(color, profiles)
    peer_candidate = candidate = row.runtime
    if row.runtime == "best":
        peer_candidate = min(latency_ms, key=latency_ms.__getitem__)
        candidate = min(here, key=lambda one: here[one].calibration.timing.median_ms)
    for one in (peer_candidate, candidate):
        if one not in here or times["profiles"].get(one) != here[one].name:
            raise NotRun(f"{row.peer} was not timed in {one} with a profile that is given and of this device")
    profile, peer_ms = here[candidate], latency_ms[peer_candidate]
    files = {path.stem: path for path in profiles}
    budget = Budget(LR_SIZE, latency_ms=peer_ms, profile=str(files[profile.name]))
    target = target_of_budget(budget, 2, color, profile.activation, 1, lambda _: None)
    assert target is not None
    if target.drift is not None and target.drift > 1 + DRIFT:  # finalists would seem slower than they are
        raise NotRun(f"this machine is busy: {profile.name}'s calibration takes {target.drift:.2f} times what it took")
    found = _searched(row, recipe_of(row, color, data, profile.activation), budget, target.device, data, run, look)
    told = {"profile": profile.name, "candidate": candidate, "peer_candidate": peer_candidate, "peer_ms": peer_ms}
    quality = {"float_psnr_y": found["psnr_y"], "psnr_y": _as_exported(run, profile, data)}
    return {**told, "drift": target.drift, **found, **quality}


def _as_exported(run: Path, profile: DeviceProfile, data: Data) -> dict[str, float]:
    """As `scored`, of the model that the profile's runtime runs."""
    precision = cast(Precision, exported_precision(profile.runtime, profile.precision))
    export(run, {precision}, frames=frames_from_pairs(data.pairs, profile.color, 1))
    model = run / "export" / candidate_model(profile.runtime, profile.precision)
    with open_candidate(model, profile.runtime, profile.precision, profile.threads) as runner:
        return with_mean(scores_of_frames(runner.infer, profile.color, 2, data.benchmarks))


def recipe_of(row: Row, color: Color, data: Data, profiled: Activation | None = None) -> Recipe:
    """The defaults of the product, with the steps, images and precision of the board. profiled: by `activation_of`."""
    return Recipe(
        space="edge",
        scale=2,
        color=color,
        relaxation=row.relaxation,
        steps=row.steps,
        batch=data.batch,
        patch=data.patch,
        rate=TrainSettings().rate,
        seed=row.seed,
        activation=SearchSettings().activation_of(profiled),
        precision=data.source.precision,
        device=data.source.device,
    )


def trained_alone(row: Row, architecture: Architecture, data: Data, look: Look) -> Trainer:
    """A network in the start and by the recipe of the search, without one."""
    torch.manual_seed(row.seed)
    recipe = recipe_of(row, "rgb", data)
    source = data.source
    rate = recipe.rate * rate_factor(architecture)
    schedule = Schedule(row.steps, data.batch, data.patch, rate, row.seed, source.precision, source.device)
    trainer = Trainer(network_from_architecture(architecture), "rgb", 2, data.pairs, schedule)
    trainer.advance(row.steps, look)
    return trainer


def of_search(run: Path, report: dict[str, Any], row: Row, recipe: Recipe, data: Data) -> dict[str, Any]:
    """The figures of a finished search in `run`."""
    weights = run / "search" / "weights.safetensors"
    network = load_network(weights)
    return {
        **of_edge(network.architecture, row.macs),
        "network": network.architecture.to_dict(),
        "rate": recipe.rate * rate_factor(network.architecture),
        "share": report["share"],
        "latency_ms": report["cost"]["latency_ms"],
        "gap_db": report["cut_gap_db"],
        "weights": hash_file(weights),
        "precision": report["precision"],
        "step_ms": 1e3 * report["step_seconds"]["train"],
        "search_step_ms": 1e3 * report["step_seconds"]["search"],
        "step_ms_on_the_way": _step_ms_on_the_way(run / "search" / "history.jsonl"),
        "psnr_y": scored(network, recipe.color, data),
    }


def _searched(
    row: Row, recipe: Recipe, budget: Budget, device: Device | None, data: Data, run: Path, look: Look
) -> dict[str, Any]:
    begun = time.perf_counter()
    steps: list[int] = []

    def told(at: Progress) -> None:
        steps.append(at.step)
        look(at.step, at.loss)

    inputs = {**data.hashes, "search": search_version()}  # another version of the search does not go on from it
    report = search(run, recipe, budget, data.pairs, inputs=inputs, device=device, on_progress=told)
    # What a search took before it was interrupted is not known in full, and is not guessed
    seconds = time.perf_counter() - begun if steps[0] == 1 else None
    return {**of_search(run, report, row, recipe, data), "seconds": seconds}


def _step_ms_on_the_way(history: Path) -> list[tuple[float, float]]:
    """(radius, milliseconds of a step since the entry before) for every second entry, until one network is left."""
    entries = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    searched = [entry for entry in entries if entry["phase"] == "search"][::2]
    return [
        (now["radius"], 1e3 * (now["seconds"] - before["seconds"]) / (now["step"] - before["step"]))
        for before, now in pairwise(searched)
    ]
