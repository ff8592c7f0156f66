"""The settings of a run, read once from pipeline.toml and the command line into frozen values."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pipeline.architecture import Activation, Color, Space, Variant
from pipeline.budget import Budget
from pipeline.errors import ConfigError
from pipeline.rules import Rule, choice, count, file_name, folders, number, or_none, size, switch, text, whole

Relaxation = Literal["sorted", "sparsestmax", "sparsemax", "softmax", "gumbel", "sigmoid"]
Scale = Literal[2, 3, 4]
Unshuffle = Literal[1, 2]
TrainPrecision = Literal["auto", "fp32", "bf16"]
TrainDevice = Literal["auto", "cpu", "cuda"]

MACS = 3_700_000_000  # about 16,000 for each LR pixel of 360x640


def setting(default: Any, rule: Rule) -> Any:
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True, slots=True)
class RunSettings:
    name: str = setting("default", file_name())


@dataclass(frozen=True, slots=True)
class TaskSettings:
    scale: Scale = setting(2, choice(Scale))
    color: Color = setting("rgb", choice(Color))


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Names of folders; "scikit-image:train" and "scikit-image:test" are the embedded photographs."""

    train: tuple[str, ...] = setting(("scikit-image:train",), folders())
    benchmarks: tuple[str, ...] = setting(("scikit-image:test",), folders())
    skip_broken: bool = setting(False, switch())


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """Upper bounds; None leaves a quantity free. lr_size: (height, width) of the frame that they are stated for.

    macs: "auto" is MACS, and no bound where latency is bounded.
    """

    macs: int | Literal["auto"] | None = setting("auto", count(auto=True))
    params: int | None = setting(None, count())
    latency_ms: float | None = setting(None, or_none(number(0, above=True)))
    profile: str | None = setting(None, or_none(text()))
    lr_size: tuple[int, int] = setting((360, 640), size())

    @property
    def bounds(self) -> Budget:
        macs = self.macs
        if macs == "auto":
            macs = MACS if self.latency_ms is None else None
        return Budget(self.lr_size, macs, self.params, self.latency_ms, self.profile)


@dataclass(frozen=True, slots=True)
class SearchSettings:
    space: Space = setting("edge", choice(Space))
    steps: int = setting(6000, whole(2))  # one to search, one to train
    relaxation: Relaxation = setting("sorted", choice(Relaxation))
    seed: int = setting(0, whole(0, 2**32 - 1))
    activation: Activation | Literal["auto"] = setting("auto", choice(Literal["auto", Activation]))
    unshuffle: Unshuffle = setting(1, choice(Unshuffle))
    variant: Variant = setting("b", choice(Variant))

    def activation_of(self, profiled: Activation | None) -> Activation:
        """ "auto" is that of the device profile where milliseconds count, and ACON, which has no MACs, elsewhere.

        profiled: of the networks in the profile of a latency budget, None without one.
        """
        return (profiled or "acon") if self.activation == "auto" else self.activation


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """patch: side of an LR patch in pixels. rate: peak learning rate; `edge` networks wider than 16 channels have 3/4.

    teacher: a file or a run, "" for none.
    """

    batch: int = setting(16, whole(1))
    patch: int = setting(48, whole(8))
    rate: float = setting(4e-3, number(0, above=True))
    teacher: str = setting("", text())
    teacher_weight: float = setting(0.5, number(0, 1))
    precision: TrainPrecision = setting("auto", choice(TrainPrecision))
    device: TrainDevice = setting("auto", choice(TrainDevice))


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """Thresholds in dB. Parity compares float outputs with a peak of 1; quality is PSNR-Y against ground truth."""

    parity_db: float = setting(90.0, number(0))
    fp16_parity_db: float = setting(50.0, number(0))
    bf16_parity_db: float = setting(50.0, number(0))
    int8_parity_db: float = setting(30.0, number(0))
    mean_quality_drop_db: float = setting(0.001, number(0))
    fp16_mean_quality_drop_db: float = setting(0.001, number(0))
    bf16_mean_quality_drop_db: float = setting(0.005, number(0))
    int8_mean_quality_drop_db: float = setting(0.03, number(0))
    max_quality_drop_db: float = setting(0.001, number(0))
    fp16_max_quality_drop_db: float = setting(0.01, number(0))
    bf16_max_quality_drop_db: float = setting(0.03, number(0))
    int8_max_quality_drop_db: float = setting(0.15, number(0))
    min_gain_over_bicubic_db: float = setting(0.0, number())
    latency: bool = setting(True, switch())

    @property
    def thresholds(self) -> dict[str, float]:
        """All but `latency`."""
        return {name: value for name, value in asdict(self).items() if name != "latency"}


@dataclass(frozen=True, slots=True)
class Settings:
    """One field per section of pipeline.toml."""

    run: RunSettings = field(default_factory=RunSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    data: DataSettings = field(default_factory=DataSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    verify: VerifySettings = field(default_factory=VerifySettings)


def load_settings(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Defaults, then the file at `path`, then `overrides` such as "search.steps=2000".

    The value of an override is TOML; what is not TOML is taken as bare text. Raises one ConfigError that lists all
    mistakes, each as "section.key: value; expected ...".
    """
    problems: list[str] = []
    table = _table_from_file(Path(path)) if path is not None else {}
    for override in overrides:
        _apply(override, table, problems)
    settings = _settings_from_table(table, problems)
    if problems:
        message = problems[0] if len(problems) == 1 else "\n  ".join(["several settings are wrong:", *problems])
        where = "--set" if path is None else f"{path} or --set"
        raise ConfigError(message, f"correct {where}; the comments of pipeline.toml explain every setting")
    return settings


def _table_from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", "name a settings file with -c FILE") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        hint = "text values need quotes, and sections are written [section]"
        raise ConfigError(f"{path} is not TOML: {error}", hint) from error


def _apply(override: str, table: dict[str, Any], problems: list[str]) -> None:
    name, equals, value = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        problems.append(f"--set {override}: no setting; expected section.key=value, as search.steps=2000")
        return
    if not isinstance(table.setdefault(section, {}), dict):
        return  # the file's mistake, reported with the file
    text = value.strip()
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    read = parsed["value"] if parsed.keys() == {"value"} else text
    rule = _rules().get(f"{section}.{key}")
    # A folder may be called 2024, which TOML reads as a number, or 2024-05-01, a date.
    is_name = rule and not isinstance(read, list | dict) and not rule.accepts(read) and rule.accepts(text)
    table[section][key] = text if is_name else read


def _sections() -> dict[str, Any]:
    return {section.name: section.default_factory for section in fields(Settings)}


@cache
def _rules() -> Mapping[str, Rule]:
    return {
        f"{name}.{key.name}": key.metadata["rule"] for name, section in _sections().items() for key in fields(section)
    }


def _settings_from_table(table: Mapping[str, Any], problems: list[str]) -> Settings:
    """The settings of a parsed file, defaults where a value is wrong; one line in `problems` for each mistake."""
    sections, rules = _sections(), _rules()
    values: dict[str, dict[str, Any]] = {name: {} for name in sections}
    for section, keys in table.items():
        if section not in sections:
            problems.append(f"{section}: unknown section; {_nearest(section, sections)}")
            continue
        if not isinstance(keys, dict):
            problems.append(f"{section}: {keys!r}; expected a section, as [{section}]")
            continue
        for key, value in keys.items():
            name = f"{section}.{key}"
            if name not in rules:
                problems.append(f"{name}: unknown key; {_nearest(name, rules)}")
                continue
            try:
                values[section][key] = rules[name].read(value)
            except (ValueError, OverflowError):
                problems.append(f"{name}: {value!r}; expected {rules[name].expected}")
    settings = Settings(**{name: section(**values[name]) for name, section in sections.items()})
    budget = settings.budget.bounds
    if budget.macs is None and budget.params is None and budget.latency_ms is None:
        problems.append('budget: macs, params and latency_ms are all "none"; expected a bound on at least one of them')
    if budget.latency_ms is not None and budget.profile is None:
        problems.append("budget: latency_ms without a profile; expected budget.profile, the device that it is meant on")
    if budget.latency_ms is None and budget.profile is not None:
        problems.append('budget: profile without latency_ms; expected budget.latency_ms, or "none" as budget.profile')
    return settings


def _nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was most likely meant, by its last part; without a guess, the names to choose from."""
    section, _, last = name.rpartition(".")
    names = {other.rpartition(".")[2]: other for other in known}
    if guesses := get_close_matches(last, names, n=1):
        return f"did you mean {names[guesses[0]]}?"
    return f"expected one of {', '.join(other for other in names.values() if other.startswith(section))}"
