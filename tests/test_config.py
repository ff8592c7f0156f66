import itertools
import re
import tomllib
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from pipeline.architecture import Activation
from pipeline.budget import Budget
from pipeline.config import Settings, load_settings
from pipeline.errors import ConfigError

SHIPPED = Path(__file__).parents[1] / "pipeline.toml"
LATENCY = ("budget.latency_ms=25", "budget.profile=board")


def value_of(settings: Settings, name: str) -> Any:
    section, key = name.split(".")
    return getattr(getattr(settings, section), key)


def test_shipped_file_holds_every_default() -> None:
    assert load_settings(SHIPPED) == load_settings() == Settings()
    table = tomllib.loads(SHIPPED.read_text())
    for section in fields(Settings):
        keys = {key.name for key in fields(getattr(Settings(), section.name))}
        assert table[section.name].keys() == keys


def test_shipped_file_comments_every_section_and_key_group() -> None:
    lines = SHIPPED.read_text().splitlines()
    assert max(map(len, lines)) <= 120
    for before, line in itertools.pairwise(lines):
        if re.match(r"\w+ = ", line):
            assert before.startswith("#") or re.match(r"\w+ = ", before), line


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("task.scale=4", 4),
        ("task.color=y", "y"),
        ('task.color="y"', "y"),
        ("data.train=photos", ("photos",)),
        ('data.train=["a", "b c"]', ("a", "b c")),
        ("data.benchmarks=../a=b", ("../a=b",)),
        ("data.skip_broken=true", True),
        ("budget.macs=3.7G", 3_700_000_000),
        ("budget.macs=3.7e9", 3_700_000_000),
        ("budget.macs=3_686_400_000", 3_686_400_000),
        ("budget.macs=16k", 16_000),
        ("budget.params=1.5M", 1_500_000),
        ("budget.params=none", None),
        ("budget.latency_ms=none", None),
        ("budget.lr_size=[180, 320]", (180, 320)),
        ("search.relaxation=sparsemax", "sparsemax"),
        ("search.seed=7", 7),
        ("train.rate=1", 1.0),
        ("train.teacher=runs/large", "runs/large"),
        ("verify.min_gain_over_bicubic_db=-1.5", -1.5),
        ("run.name=set5-x2.a", "set5-x2.a"),
        ("run.name=2024", "2024"),
        ("data.train=2024-05-01", ("2024-05-01",)),
        ("data.train=./photos/", ("photos",)),
        ('data.train=["photos/", "more//photos"]', ("photos", "more/photos")),
        (" search.steps = 10 ", 10),
    ],
)
def test_override(override: str, expected: object) -> None:
    value = value_of(load_settings(None, [override]), override.partition("=")[0].strip())
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("task.scale=5", "task.scale: 5; expected 2, 3 or 4"),
        ("task.scale=2.0", "task.scale: 2.0; expected 2, 3 or 4"),
        ("task.scale=true", "task.scale: True; expected 2, 3 or 4"),
        ("task.color=bgr", "task.color: 'bgr'; expected rgb or y"),
        ("data.train=[]", "data.train: []; expected a list of folders"),
        ("data.train=[1]", "data.train: [1]; expected a list of folders"),
        ('data.train=["photos", "photos/"]', "expected a list of folders, each once"),
        ("data.skip_broken=1", "data.skip_broken: 1; expected true or false"),
        ("budget.macs=0", "budget.macs: 0; expected a positive number"),
        ("budget.macs=-3G", "budget.macs: '-3G'; expected a positive number"),
        ("budget.macs=3.7T", "budget.macs: '3.7T'; expected a positive number"),
        ("budget.macs=inf", "budget.macs: inf; expected a positive number"),
        ("budget.macs=nan", "budget.macs: nan; expected a positive number"),
        ("budget.macs=true", "budget.macs: True; expected a positive number"),
        ("budget.macs=none", 'budget: macs, params and latency_ms are all "none"; expected a bound on at least one'),
        ("budget.latency_ms=25", "latency_ms without a profile; expected budget.profile"),
        ("budget.profile=nope", 'profile without latency_ms; expected budget.latency_ms, or "none" as budget.profile'),
        ("budget.latency_ms=0", 'budget.latency_ms: 0; expected a number above 0, or "none"'),
        ("budget.profile=[7]", 'budget.profile: [7]; expected a text in quotes, or "none"'),
        ("budget.lr_size=[360]", "budget.lr_size: [360]; expected [height, width] in pixels"),
        ("budget.lr_size=[360, 0]", "budget.lr_size: [360, 0]; expected [height, width] in pixels"),
        ("budget.lr_size=360", "budget.lr_size: 360; expected [height, width] in pixels"),
        ("search.steps=1", "search.steps: 1; expected a whole number, 2 or more"),
        ("search.steps=many", "search.steps: 'many'; expected a whole number, 2 or more"),
        ("search.seed=-1", "search.seed: -1; expected a whole number from 0 to 4294967295"),
        ("train.rate=0", "train.rate: 0; expected a number above 0"),
        (f"train.rate=1{'0' * 400}", "expected a number above 0"),
        ("train.teacher=[5]", "train.teacher: [5]; expected a text"),
        ("train.teacher_weight=1.5", "train.teacher_weight: 1.5; expected a number from 0 to 1"),
        ("verify.parity_db=-1", "verify.parity_db: -1; expected a number, 0 or more"),
        ("verify.min_gain_over_bicubic_db=inf", "verify.min_gain_over_bicubic_db: inf; expected a number"),
        ("train.teacher_weight=true", "train.teacher_weight: True; expected a number from 0 to 1"),
        ("run.name=../elsewhere", "run.name: '../elsewhere'; expected a name of letters"),
        ("search.stesp=1", "search.stesp: unknown key; did you mean search.steps?"),
        ("train.steps=1", "train.steps: unknown key; did you mean search.steps?"),
        ("budget.energy=1", "budget.energy: unknown key; expected one of budget.macs, budget.params,"),
        ("serch.steps=1", "serch: unknown section; did you mean search?"),
        ("search.steps", "--set search.steps: no setting; expected section.key=value"),
        ("steps=1", "--set steps=1: no setting; expected section.key=value"),
        ("search.steps=1\nseed = 2", "search.steps: '1\\nseed = 2'; expected a whole number"),
    ],
)
def test_mistake_is_named_with_what_was_expected(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, [override])
    assert expected in caught.value.message
    assert len(caught.value.message.splitlines()) == 1
    assert "--set" in caught.value.hint


def test_all_mistakes_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('data = 3\n[task]\nscale = "two"\ncolour = "y"\n[search]\nsteps = 0\n')
    with pytest.raises(ConfigError) as caught:
        load_settings(path, ["train.batch=none", "data.train=photos"])
    expected = (
        "several settings are wrong:",
        "data: 3; expected a section, as [data]",
        "task.scale: 'two'; expected 2, 3 or 4",
        "task.colour: unknown key; did you mean task.color?",
        "search.steps: 0; expected a whole number, 2 or more",
        "train.batch: 'none'; expected a whole number, 1 or more",
    )
    assert [line.strip() for line in caught.value.message.splitlines()] == list(expected)
    assert str(path) in caught.value.hint


def test_file_then_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[search]\nsteps = 10\nseed = 3\n")
    settings = load_settings(path, ["search.steps=20", "search.steps=30"])
    assert (settings.search.steps, settings.search.seed) == (30, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"[task\nscale = 2", "is not TOML"), (b"\xff\xfe", "is not TOML")],
)
def test_unreadable_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(path)
    assert caught.value.hint


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().search.steps = 3  # type: ignore[misc]


def test_bounds_are_the_budget() -> None:
    settings = load_settings(None, ["budget.macs=1G", "budget.params=20K", "budget.lr_size=[10, 20]"])
    assert settings.budget.bounds == Budget((10, 20), macs=10**9, params=20_000)


@pytest.mark.parametrize(("macs", "bound"), [((), None), (("budget.macs=auto",), None), (("budget.macs=1G",), 10**9)])
def test_a_latency_stands_alone_unless_macs_are_bounded_too(macs: tuple[str, ...], bound: int | None) -> None:
    budget = load_settings(None, [*LATENCY, *macs]).budget.bounds
    assert budget == Budget((360, 640), macs=bound, latency_ms=25.0, profile="board")


@pytest.mark.parametrize(
    ("asked", "profiled", "activation"),
    [
        ("auto", None, "acon"),
        ("auto", "relu", "relu"),
        ("auto", "leaky_relu", "leaky_relu"),
        ("relu", None, "relu"),
        ("prelu", "relu", "prelu"),
    ],
)
def test_activation_is_that_of_the_profile_unless_it_is_named(
    asked: str, profiled: Activation | None, activation: str
) -> None:
    assert load_settings(None, [f"search.activation={asked}"]).search.activation_of(profiled) == activation
