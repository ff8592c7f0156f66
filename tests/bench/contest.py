"""Runs one row of the scoreboard: trains what it names, and measures it on the benchmarks."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.budget import Budget
from pipeline.config import SearchSettings
from pipeline.optimizer import rate_factor
from pipeline.space import EdgeSpace
from pipeline.training import supernet_from_recipe
from tests.bench.board import GRID, LR_SIZE, PEER_RATES, PIXELS, PLAIN, RECIPES, RIVALS, Row, hand_designed, recipes_at
from tests.bench.board_tables import hand_bar, hand_missing
from tests.bench.figures import Data, NotRun, Results, of_edge, of_training
from tests.bench.peer_export import cost_from_peer
from tests.bench.peer_latency import latencies_of_network, latencies_of_peer
from tests.bench.peers import WITHOUT_SKIP, peer_from_name
from tests.bench.search_rows import ours, ours_at_peer, recipe_of, trained_alone
from tests.bench.side_by_side import cost_of_search
from tests.bench.trainer import Look, Schedule, Trainer, started

RANDOM = 4  # networks that random search draws
TRIAL = 1 / 6  # of the steps, which each of them is given; with the rest of the winner's 1.5 times those of one network
RUNGS = ((1 / 12, 3), (1 / 6, 1))  # successive halving: steps up to which all are trained, and how many go on


@dataclass(frozen=True, slots=True)
class Place:
    """work: a folder in which an interrupted search finds its checkpoint again. profiles: files of device profiles."""

    work: Path
    profiles: Sequence[Path]


def run_row(row: Row, data: Data, known: Results, place: Place, look: Look) -> dict[str, Any]:
    """JSON values: quality, cost, time and what they are of. known: rows that this one builds on.

    Raises NotRun where a row before it is missing, or the device of a latency budget has no profile.
    """
    run = place.work / row.name.replace("/", "-")
    match row.kind:
        case "pilot" | "hand" | "plain" | "long hand":
            return _hand(row, data, known, look)
        case "unsearched":
            return _unsearched(row, data, look)
        case kind if kind in RIVALS:
            return _rival(row, data, known, look)
        case "peer pilot" | "peer":
            return _peer(row, data, known, look)
        case "time":
            return _time(row, known, place.profiles)
        case "cost":
            return cost_of_search(row, data.source, known, look)
        case "ours at peer":
            return ours_at_peer(row, data, known, place.profiles, run, look)
        case _:
            return ours(row, data, run, look)


def best_recipe(macs: int, shape: tuple[int, int], known: Results) -> str:
    """The recipe whose pilot is best on the images held out of training. Raises NotRun without all pilots."""
    return _best(f"macs-{macs // 1000}K/pilot/{shape[0]}x{shape[1]}/", recipes_at(macs), known)


def best_shape(macs: int, known: Results) -> tuple[int, int]:
    """The hand-designed shape that is best on the test sets, with hindsight. Raises NotRun without the whole grid."""
    bar, missing = hand_bar(macs, known), hand_missing(macs, known)
    if bar is None or missing:
        raise NotRun(f"it needs {', '.join(missing)}")
    return bar[0]


def _best(prefix: str, options: Sequence[str], known: Results) -> str:
    found = _watched(prefix, options, known)
    return max(found, key=found.__getitem__)


def _watched(prefix: str, options: Sequence[str], known: Results) -> dict[str, float]:
    """Option -> PSNR-Y in dB of its pilot on the images held out of training."""
    found = _all([prefix + option for option in options], known)
    return {option: float(row["watched_psnr_y"]) for option, row in zip(options, found, strict=True)}


def _all(names: Sequence[str], known: Results) -> list[Mapping[str, Any]]:
    if missing := [name for name in names if name not in known]:
        raise NotRun(f"it needs {', '.join(missing)}")
    return [known[name] for name in names]


def _schedule(row: Row, data: Data, rate: float) -> Schedule:
    source = data.source
    return Schedule(row.steps, data.batch, data.patch, rate, row.seed, source.precision, source.device)


def _hand(row: Row, data: Data, known: Results, look: Look) -> dict[str, Any]:
    shape = row.shape or best_shape(row.macs, known)
    name = row.recipe or best_recipe(row.macs, shape, known)
    recipe = RECIPES[name]
    if row.kind == "plain":
        recipe = replace(PLAIN, residual=recipe.residual, rate=recipe.rate)
    architecture = hand_designed(row.macs, shape, residual=recipe.residual)
    network = started(architecture, recipe.start, row.seed, plain=recipe.plain)
    trainer = Trainer(network, "rgb", 2, data.pairs, _schedule(row, data, recipe.rate))
    trainer.advance(row.steps, look)
    told = {"recipe": "plain" if recipe.plain else name, "shape": [*shape]}
    return {**told, **of_edge(architecture, row.macs), **of_training(trainer, data)}


def _unsearched(row: Row, data: Data, look: Look) -> dict[str, Any]:
    """What the search would deliver without any evidence, in its own start: what the choice itself is worth."""
    recipe = recipe_of(row, "rgb", data)
    architecture = supernet_from_recipe(recipe, Budget(LR_SIZE, macs=row.macs * PIXELS)).delivered()
    trainer = trained_alone(row, architecture, data, look)
    return {**of_edge(architecture, row.macs), **of_training(trainer, data)}


def _rival(row: Row, data: Data, known: Results, look: Look) -> dict[str, Any]:
    """Several networks begin on one schedule, and the best of them, on held-out images, goes on to its end."""
    if row.kind == "random":
        activation = SearchSettings().activation_of(None)
        space = EdgeSpace(2, "rgb", Budget(LR_SIZE, macs=row.macs * PIXELS), activation)
        rng = np.random.default_rng([row.seed, 4])
        drawn = [space.fit([rng.random(options) for options in space.options]) for _ in range(RANDOM)]
        architectures = [space.architecture(genes) for genes in drawn]
        recipe = RECIPES["identity"]
        recipes = [replace(recipe, rate=recipe.rate * rate_factor(architecture)) for architecture in architectures]
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
    found = {**told, **of_edge(architecture, row.macs), **of_training(trainer, data)}
    return {**found, "seconds": time.perf_counter() - begun}


def _peer(row: Row, data: Data, known: Results, look: Look) -> dict[str, Any]:
    """Trained at the rate of its best pilot; where that ends below the pilot, as deep ones do, at that of the next."""
    pilots = {row.rate: -np.inf} if row.rate else _pilots(row.peer, known)
    failed: list[float] = []
    for rate in sorted(pilots, key=pilots.__getitem__, reverse=True):
        torch.manual_seed(row.seed)
        peer = peer_from_name(row.peer, 2)
        schedule = _schedule(row, data, rate)
        if row.peer in WITHOUT_SKIP:
            schedule = replace(schedule, precision="fp32")
        trainer = Trainer(peer, peer.color, 2, data.pairs, schedule)
        trainer.advance(row.steps, look)
        found = of_training(trainer, data)
        if found["watched_psnr_y"] >= pilots[rate]:
            break
        failed.append(rate)
    else:
        raise NotRun(f"{row.peer} ended below its pilots at every rate")
    cost = cost_from_peer(peer, LR_SIZE)
    told = {"architecture": row.peer, "color": peer.color, "rate": rate, "failed_rates": failed}
    return {**told, "precision": schedule.precision, "macs": cost.macs / PIXELS, "params": cost.params, **found}


def _pilots(peer: str, known: Results) -> dict[float, float]:
    """Rate -> PSNR-Y in dB of its pilot on the images held out of training."""
    found = _watched(f"latency/{peer}/pilot/", [f"{rate:g}" for rate in PEER_RATES], known)
    return {float(rate): value for rate, value in found.items()}


def _time(row: Row, known: Results, profiles: Sequence[Path]) -> dict[str, Any]:
    """What a peer takes here, or the best hand-designed network of a budget."""
    if row.peer:
        return latencies_of_peer(row.peer, profiles)
    shape = best_shape(row.macs, known)
    network = hand_designed(row.macs, shape, residual=RECIPES[best_recipe(row.macs, shape, known)].residual)
    return {"shape": [*shape], "latency_ms": latencies_of_network(network, profiles)}
