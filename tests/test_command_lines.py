import shlex
from dataclasses import replace
from pathlib import Path

import click
import pytest

from pipeline.cli import commands
from pipeline.command_lines import command_lines
from pipeline.config import load_settings
from pipeline.manifest import Manifest, read_manifest


@pytest.fixture
def manifests(small_run: Path) -> dict[str, Manifest]:
    return {stage: read_manifest(small_run / "run" / stage) for stage in ("search", "export", "verify")}


def test_lines_have_the_settings_of_the_run(small_run: Path, manifests: dict[str, Manifest]) -> None:
    lines = [shlex.split(line) for line in command_lines("runs/a b", manifests)]
    assert [line[1] for line in lines] == ["search", "export", "verify"]
    for _, name, *arguments in lines:
        with click.Context(commands) as context:
            assert commands.commands[name].make_context(name, list(arguments), parent=context).params
    given = load_settings(small_run / "small.toml")
    search, verify = (load_settings(None, [word for word in line if "=" in word]) for line in (lines[0], lines[2]))
    decided = replace(given.search, activation=given.search.activation_of(None))  # what "auto" was
    assert (search.budget, search.search, search.train) == (given.budget, decided, given.train)
    assert (search.task, search.data.train) == (given.task, given.data.train)
    assert (verify.verify, verify.data.benchmarks) == (given.verify, given.data.benchmarks)
    assert lines[1] == ["sr-pipeline", "export", "runs/a b", "--precision", "fp16", "--precision", "fp32"]


def test_values_that_need_quotes(manifests: dict[str, Manifest]) -> None:
    search = manifests["search"]
    folder = 'photo"s \\ and $more'
    settings = search.settings | {
        "recipe": search.settings["recipe"] | {"teacher": "a run", "seed": 3, "device": "cpu", "skip_broken": True}
    }
    changed = replace(search, inputs={folder: "ab", "teacher": "ef", "train.teacher": "cd"}, settings=settings)
    (line,) = command_lines("run", {"search": changed})
    read = load_settings(None, [word for word in shlex.split(line) if "=" in word])
    assert (read.data.train, read.train.teacher, read.search.seed) == ((folder, "teacher"), "a run", 3)
    assert (read.train.device, read.data.skip_broken) == ("cpu", True)


def test_another_budget_of_the_verification_is_named(manifests: dict[str, Manifest]) -> None:
    verify = manifests["verify"]
    assert "budget." not in command_lines("run", manifests)[-1]
    budget = verify.settings["budget"] | {"macs": None, "params": 5000}
    changed = replace(verify, settings=verify.settings | {"budget": budget})
    line = command_lines("run", manifests | {"verify": changed})[-1]
    assert {"budget.macs=none", "budget.params=5000"} <= {*shlex.split(line)}


def test_calibration_and_engines_of_an_export(manifests: dict[str, Manifest]) -> None:
    export = manifests["export"]
    settings = export.settings | {"precisions": ["int8"], "engines": {"tensorrt-rtx": []}}
    changed = replace(export, settings=settings, inputs=export.inputs | {"calibration/my photos": "ab"})
    (line,) = command_lines("run", {"export": changed})
    assert line == "sr-pipeline export run --precision int8 --engine tensorrt-rtx --calibration 'my photos'"
