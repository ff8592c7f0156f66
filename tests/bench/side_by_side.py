"""A search beside the training of the network that it delivers, each in a process of its own, turn about.

A machine that is slower for a minute is so for both, and the peak memory of each is its own.
"""

import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from deploy.probe import memory_mib
from pipeline.architecture import architecture_from_dict
from pipeline.budget import Budget
from pipeline.errors import PipelineError
from pipeline.search import search
from tests.bench.board import LR_SIZE, PIXELS, Row
from tests.bench.figures import Data, NotRun, Results, Source, of_edge, of_training, read_data
from tests.bench.search_rows import of_search, recipe_of, trained_alone
from tests.bench.trainer import Look

TURN = 50  # steps

Figures = dict[str, Any]
Job = Callable[[Data, Look], Callable[[], Figures]]  # works, and returns what makes figures of it off the clock


def cost_of_search(row: Row, source: Source, known: Results, look: Look) -> Figures:
    """ "search" and "alone": figures of each, with "seconds" and "memory_mib"; "ratio" of their seconds.

    Searches with the seed and budget of an earlier row, whose network is trained alone. Raises NotRun without it,
    or where this one ends with another network.
    """
    name = f"macs-{row.macs // 1000}K/ours/seed{row.seed}"
    if "network" not in known.get(name, {}):
        raise NotRun(f"it needs {name}" if name not in known else f"it needs {name} with its network: run it --again")
    jobs = {"search": partial(_search, row), "alone": partial(_train, row, known[name]["network"])}
    found = turn_about(jobs, source, look)
    if found["search"]["id"] != found["alone"]["id"]:
        raise NotRun(f"this search ended with another network than {name}: run that one --again on this machine")
    seconds = {name: figures["seconds"] for name, figures in found.items()}
    return {**found, "ratio": seconds["search"] / seconds["alone"], "seconds": sum(seconds.values())}


def _search(row: Row, data: Data, look: Look) -> Callable[[], Figures]:
    folder = tempfile.TemporaryDirectory()
    run = Path(folder.name)
    budget = Budget(LR_SIZE, macs=row.macs * PIXELS)
    recipe = recipe_of(row, "rgb", data)
    report = search(run, recipe, budget, data.pairs, inputs={}, on_progress=lambda at: look(at.step, at.loss))

    def figures() -> Figures:
        with folder:
            return of_search(run, report, row, recipe, data)

    return figures


def _train(row: Row, network: dict[str, Any], data: Data, look: Look) -> Callable[[], Figures]:
    architecture = architecture_from_dict(network)
    trainer = trained_alone(row, architecture, data, look)
    return lambda: {**of_edge(architecture, row.macs), **of_training(trainer, data)}


def turn_about(jobs: Mapping[str, Job], source: Source, look: Look) -> dict[str, Figures]:
    """The figures of all jobs, with their seconds and peak memory. Raises NotRun where one cannot go on."""
    with ExitStack() as stack:
        ends = {name: _started(job, source, stack) for name, job in jobs.items()}
        for name, end in ends.items():
            _heard(name, end)  # images are read before any clock runs
        steps = dict.fromkeys(jobs, 0)
        found: dict[str, Figures] = {}
        while len(found) < len(jobs):
            for name in [name for name in jobs if name not in found]:
                ends[name].send("go on")
                said = _heard(name, ends[name])
                if "step" in said:
                    steps[name] = said["step"]
                    look(sum(steps.values()) // len(jobs), said["loss"])
                else:
                    found[name] = said
    return {name: found[name] for name in jobs}


def count_memory_anew() -> None:
    """The peak of this process is that of what follows, where Linux lets it begin again."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _started(job: Job, source: Source, stack: ExitStack) -> "Connection[Any, Any]":
    context = get_context("spawn")  # a fork of what has computed with several threads can wait for ever
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(job, source, there), daemon=True)
    process.start()
    there.close()
    stack.callback(_ended, process)
    return here


def _ended(process: BaseProcess) -> None:
    process.terminate()
    process.join()


def _heard(name: str, end: "Connection[Any, Any]") -> dict[str, Any]:
    try:
        said: dict[str, Any] = end.recv()
    except EOFError as error:
        raise NotRun(f"the process of {name} ended early") from error
    if "error" in said:
        raise NotRun(f"{name}: {said['error']}")
    return said


class _Clock:
    """Time of the turns of this process. look: gives the turn back every `TURN` steps."""

    def __init__(self, end: "Connection[Any, Any]") -> None:
        self.end, self.seconds = end, 0.0
        self.begin()

    def begin(self) -> None:
        self.end.recv()
        self.begun = time.perf_counter()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self.begun

    def look(self, step: int, loss: float) -> None:
        if step % TURN == 0:
            self.stop()
            self.end.send({"step": step, "loss": loss})
            self.begin()


def _work(job: Job, source: Source, end: "Connection[Any, Any]") -> None:
    """In a process of its own: says when images are read, then works a turn each time it is told to go on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever began it ends it
    data = read_data(source)
    end.send({})
    count_memory_anew()
    clock = _Clock(end)
    try:
        figures = job(data, clock.look)
        clock.stop()
        peak = memory_mib("VmHWM")
        end.send({**figures(), "seconds": clock.seconds, "memory_mib": peak})
    except PipelineError as error:
        end.send({"error": str(error)})
