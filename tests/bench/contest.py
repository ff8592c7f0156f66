"""Runs one row of the scoreboard: trains what it names, and measures it on the benchmarks."""

import hashlib
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from torch import nn

from pipeline.architecture import Architecture, Color, summary
from pipeline.budget import Budget, cost_from_architecture
from pipeline.data import Pair
from pipeline.errors import PipelineError
from pipeline.measure import is_this_device, measure_model
from pipeline.network import load_network
from pipeline.profile import DeviceProfile, profile_from_toml
from pipeline.search import search
from pipeline.space import EdgeSpace
from pipeline.target import target_of_budget
from pipeline.training import Recipe as SearchRecipe
from tests.bench.board import GRID, LR_SIZE, PIXELS, PLAIN, RECIPES, Row, hand_designed
from tests.bench.peer_export import cost_from_peer, onnx_from_peer
from tests.bench.peers import peer_from_name
from tests.bench.trainer import Look, Schedule, Trainer, scores, started

Results = Mapping[str, Mapping[str, Any]]  # name of a finished row -> what is known of it
RANDOM = 4  # networks that random search draws
TRIAL = 1 / 8  # of the steps, which each of them is given; with the winner's own steps 1.5 times those of one network
RUNGS = ((1 / 12, 3), (1 / 6, 1))  # successive halving: steps up to which all are trained, and how many go on


class NotRun(Exception):
    """Why a row cannot run here or now."""


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """pairs: to train on. benchmarks: set -> pairs. batch, patch: of a step. hashes: name -> SHA-256 of images."""

    pairs: Sequence[Pair]
    benchmarks: Mapping[str, Sequence[Pair]]
    batch: int
    patch: int
    hashes: Mapping[str, str]


def run_row(row: Row, data: Data, known: Results, work: Path, look: Look) -> dict[str, Any]:
    """JSON values: quality, cost, time and what they are of. known: rows that this one builds on.

    work: a folder in which an interrupted search finds its checkpoint again.
    Raises NotRun where a row before it is missing, or the device of a latency budget has no profile.
    """
    match row.kind:
        case "pilot" | "hand" | "plain" | "long hand":
            return _hand(row, data, known, look)
        case "random" | "halving":
            return _rival(row, data, known, look)
        case "peer pilot" | "peer":
            return _peer(row, data, known, look)
        case _:
            return _ours(row, data, work, look)


def best_recipe(macs: int, shape: tuple[int, int], known: Results) -> str:
    """The recipe whose pilot is best on the images held out of training. Raises NotRun without pilots."""
    prefix = f"macs-{macs // 1000}K/pilot/{shape[0]}x{shape[1]}/"
    return _best(prefix, known, "watched_psnr_y")


def best_shape(macs: int, known: Results) -> tuple[int, int]:
    """The hand-designed shape that is best on the test sets, with hindsight. Raises NotRun."""
    means = {}
    for width, depth in GRID[macs]:
        prefix = f"macs-{macs // 1000}K/hand/{width}x{depth}/"
        found = [row["psnr_y"]["mean"] for name, row in known.items() if name.startswith(prefix)]
        if found:
            means[width, depth] = fmean(found)
    if not means:
        raise NotRun("no hand-designed network of this budget is trained yet")
    return max(means, key=means.__getitem__)


def _best(prefix: str, known: Results, figure: str) -> str:
    found = {name.removeprefix(prefix): row[figure] for name, row in known.items() if name.startswith(prefix)}
    if not found:
        raise NotRun(f"it needs {prefix}*")
    return max(found, key=found.__getitem__)


def _schedule(row: Row, data: Data, rate: float) -> Schedule:
    return Schedule(row.steps, data.batch, data.patch, rate, row.seed)


def _hand(row: Row, data: Data, known: Results, look: Look) -> dict[str, Any]:
    shape = row.shape or best_shape(row.macs, known)
    name = row.recipe or best_recipe(row.macs, shape, known)
    recipe = replace(PLAIN, residual=RECIPES[name].residual) if row.kind == "plain" else RECIPES[name]
    architecture = hand_designed(row.macs, shape, residual=recipe.residual)
    network = started(architecture, recipe.start, row.seed, plain=recipe.plain)
    trainer = Trainer(network, "rgb", 2, data.pairs, _schedule(row, data, recipe.rate))
    trainer.advance(row.steps, look)
    told = {"recipe": "plain" if recipe.plain else name, "shape": [*shape]}
    return {**told, **_of_edge(architecture, row.macs), **_of_training(trainer, data)}


def _rival(row: Row, data: Data, known: Results, look: Look) -> dict[str, Any]:
    """Several networks begin on one schedule, and the best of them, on held-out images, goes on to its end."""
    if row.kind == "random":
        space = EdgeSpace(2, "rgb", Budget(LR_SIZE, macs=row.macs * PIXELS))
        rng = np.random.default_rng([row.seed, 4])
        drawn = [space.fit([rng.random(options) for options in space.options]) for _ in range(RANDOM)]
        recipes = [RECIPES["identity"]] * RANDOM
        architectures = [space.architecture(genes) for genes in drawn]
        rungs: Sequence[tuple[float, int]] = ((TRIAL, 1),)
    else:
        recipes = [RECIPES[best_recipe(row.macs, shape, known)] for shape in GRID[row.macs]]
        architectures = [
            hand_designed(row.macs, shape, residual=recipe.residual)
            for shape, recipe in zip(GRID[row.macs], recipes, strict=True)
        ]
        rungs = RUNGS
    trainers = {}
    for architecture, recipe in zip(architectures, recipes, strict=True):
        network = started(architecture, recipe.start, row.seed, plain=False)
        trainers[architecture] = Trainer(network, "rgb", 2, data.pairs, _schedule(row, data, recipe.rate))
    begun, candidates, everyone = time.perf_counter(), len(trainers), [*trainers.values()]
    for share, left in rungs:
        for trainer in trainers.values():
            trainer.advance(round(share * row.steps) - trainer.step, look)
        best = sorted(trainers, key=lambda one: trainers[one].psnr_y(), reverse=True)[:left]
        trainers = {architecture: trainers[architecture] for architecture in best}
    ((architecture, trainer),) = trainers.items()
    trainer.advance(row.steps, look)
    told = {"candidates": candidates, "steps_in_all": sum(one.step for one in everyone)}
    found = {**told, **_of_edge(architecture, row.macs), **_of_training(trainer, data)}
    return {**found, "seconds": time.perf_counter() - begun}


def _peer(row: Row, data: Data, known: Results, look: Look) -> dict[str, Any]:
    import torch

    rate = row.rate or float(_best(f"latency/{row.peer}/pilot/", known, "watched_psnr_y"))
    torch.manual_seed(row.seed)
    peer = peer_from_name(row.peer, 2)
    trainer = Trainer(peer, peer.color, 2, data.pairs, _schedule(row, data, rate))
    trainer.advance(row.steps, look)
    cost = cost_from_peer(peer, LR_SIZE)
    told = {"architecture": row.peer, "color": peer.color, "rate": rate}
    return {**told, "macs": cost.macs / PIXELS, "params": cost.params, **_of_training(trainer, data)}


def _ours(row: Row, data: Data, work: Path, look: Look) -> dict[str, Any]:
    color: Color = peer_from_name(row.peer, 2).color if row.peer else "rgb"
    told: dict[str, Any] = {}
    budget, device = Budget(LR_SIZE, macs=row.macs * PIXELS), None
    if row.peer:
        profile, latency_ms = _latency_of_peer(row.peer, row.runtime, color)
        told = {"profile": profile.name, "candidate": profile.candidate, "peer_ms": latency_ms}
        budget = Budget(LR_SIZE, latency_ms=latency_ms, profile=f"profiles/{profile.name}.toml")
        target = target_of_budget(budget, 2, color, "relu", 1, lambda _: None)
        assert target is not None
        device = target.device
    recipe = SearchRecipe("edge", 2, color, row.relaxation, row.steps, data.batch, data.patch, rate=4e-3, seed=row.seed)
    run, begun = work / row.name.replace("/", "-"), time.perf_counter()
    report = search(
        run,
        recipe,
        budget,
        data.pairs,
        inputs=data.hashes,
        device=device,
        on_progress=lambda at: look(at.step, at.loss),
    )
    seconds = time.perf_counter() - begun
    network = load_network(run / "search" / "weights.safetensors")
    found = {
        **told,
        **_of_edge(network.architecture, row.macs),
        "share": report["share"],
        "latency_ms": report["cost"]["latency_ms"],
        "gap_db": report["cut_gap_db"],
        "weights": hashlib.sha256((run / "search" / "weights.safetensors").read_bytes()).hexdigest(),
        "watched_psnr_y": report["psnr_y"],
        "precision": report["precision"],
        "step_ms": 1e3 * report["step_seconds"]["train"],
        "search_step_ms": 1e3 * report["step_seconds"]["search"],
        "step_ms_on_the_way": _step_ms_on_the_way(run / "search" / "history.jsonl"),
        "seconds": seconds,
    }
    return {**found, "psnr_y": _scored(network, color, data)}


def _step_ms_on_the_way(history: Path) -> list[tuple[float, float]]:
    """(radius, milliseconds of a step since the entry before) for every second entry, until one network is left."""
    entries = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    searched = [entry for entry in entries if entry["phase"] == "search"][::2]
    return [
        (now["radius"], 1e3 * (now["seconds"] - before["seconds"]) / (now["step"] - before["step"]))
        for before, now in pairwise(searched)
    ]


def _latency_of_peer(peer_name: str, runtime: str, color: Color) -> tuple[DeviceProfile, float]:
    """The profile of this device for a peer's colour, and what the peer takes on it, scaled by its calibration, in ms.

    runtime: "onnxruntime fp32", or "best": the fastest of all that are profiled. Raises NotRun.
    """
    here = []
    for path in sorted(Path("profiles").glob("*.toml")):
        profile = profile_from_toml(path)
        task = profile.calibration.architecture
        fits = (task.scale, task.color, profile.lr_size) == (2, color, LR_SIZE) and profile.precision != "int8"
        try:
            if fits and not is_this_device(profile):
                here.append(profile)
        except PipelineError:
            continue
    wanted = [profile for profile in here if runtime in ("best", profile.candidate)]
    if not wanted:
        raise NotRun(f"no profile of this device for {color} networks in {runtime}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peer.onnx"
        onnx_from_peer(peer_from_name(peer_name, 2), path)
        timed = [(measure_model(profile, path.read_bytes()).median_ms, profile) for profile in wanted]
    latency_ms, profile = min(timed, key=lambda pair: pair[0])
    return profile, latency_ms


def _of_edge(architecture: Architecture, macs: int) -> dict[str, Any]:
    cost = cost_from_architecture(architecture, LR_SIZE)
    spent = cost.macs / PIXELS
    told = {"architecture": summary(architecture), "id": architecture.id, "macs": spent, "params": cost.params}
    return {**told, "share": spent / macs} if macs else told


def _of_training(trainer: Trainer, data: Data) -> dict[str, Any]:
    return {
        "watched_psnr_y": trainer.psnr_y(),
        "step_ms": trainer.step_ms,
        "seconds": sum(trainer.seconds),
        "psnr_y": _scored(trainer.network, trainer.color, data),
    }


def _scored(network: nn.Module, color: Color, data: Data) -> dict[str, float]:
    """Set -> PSNR-Y, and "mean", which the targets are about: of Set14 and B100, each set counting once."""
    found = scores(network, color, 2, data.benchmarks)
    counted = [found[name] for name in ("Set14", "B100") if name in found]
    return {**found, "mean": fmean(counted or found.values())}
