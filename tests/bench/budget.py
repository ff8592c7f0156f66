"""Whether searches keep latency budgets on this device, and how much of each they use."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from pipeline.architecture import architecture_from_json, summary
from pipeline.budget import Budget, Device
from pipeline.config import Settings, load_settings
from pipeline.errors import BudgetMissed
from pipeline.latency import latency_model_from_profile
from pipeline.profile import DeviceProfile, profile_from_toml, profile_path
from pipeline.runs import report_of
from pipeline.space import EdgeSpace
from pipeline.stages import export_run, precisions_of, search_run
from pipeline.target import target_of_budget
from pipeline.terminal import note

BUDGETS, MOST_MS = 10, 100.0
ENOUGH = 0.9  # share of a budget that the search should use, in the median
FLOOR = 1.1  # the tightest budget over what is predicted for the fastest network

# What counts here is the network and its latency, not its quality: a search of few and small steps ends the same way.
SHORT = ("search.steps=40", "train.batch=1", "train.patch=16", "data.train=scikit-image:train")


@dataclass(frozen=True)
class Row:
    """latencies in milliseconds; measured_ms of the exported model, after the search, scaled by the calibration.

    drift: calibration then over that of the profile. What can be None is so where the search ends with BudgetMissed.
    """

    profile: str
    budget_ms: float
    predicted_ms: float | None
    finalists: int
    measured_ms: float | None
    drift: float | None
    share: float | None
    met: bool
    architecture: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.budget", description=__doc__)
    parser.add_argument("profiles", nargs="+", help="of this device: names in profiles/, or files")
    parser.add_argument("--budgets", type=int, default=BUDGETS, help="for each profile (default: %(default)s)")
    given = parser.parse_args()
    rows = [row for name in given.profiles for row in rows_of_profile(name, given.budgets)]
    table = Table(
        Column("profile", overflow="fold"), "budget ms", "predicted", "finalists", "measured", "drift", "share", "met"
    )
    for row in rows:
        predicted, measured, drift = (
            "" if figure is None else f"{figure:.2f}" for figure in (row.predicted_ms, row.measured_ms, row.drift)
        )
        figures = (f"{row.budget_ms:.1f}", predicted, str(row.finalists), measured, drift)
        table.add_row(row.profile, *figures, f"{row.share:.1%}" if row.share else "", "yes" if row.met else "NO")
    Console().print(table)
    used = median([row.share for row in rows if row.share] or [0.0])
    passed = all(row.met for row in rows) and used >= ENOUGH
    print(
        json.dumps(
            {
                "rows": [asdict(row) for row in rows],
                "met": sum(row.met for row in rows),
                "of": len(rows),
                "median_share": used,
                "profiles": {name: origin(profile_from_toml(profile_path(name))) for name in given.profiles},
                "passed": passed,
            }
        )
    )


def origin(profile: DeviceProfile) -> dict[str, Any]:
    """What a profile is of: this device, as all that is measured here goes by the profiles of it."""
    names = ("device", "versions", "threads", "lr_size", "created")
    return {name: getattr(profile, name) for name in names}


def rows_of_profile(name: str, budgets: int) -> Iterator[Row]:
    profile = profile_from_toml(profile_path(name))
    height, width = profile.lr_size
    model = latency_model_from_profile(profile)
    most = Budget(profile.lr_size, latency_ms=MOST_MS, profile=name)
    device = Device(model.predict_ms)
    space = EdgeSpace(profile.scale, profile.color, most, profile.activation, profile.unshuffle, device=device)
    floor = FLOOR * model.predict_ms(space.cheapest())
    for budget_ms in np.geomspace(floor, MOST_MS, budgets):
        chosen = {
            "budget.profile": name,
            "budget.latency_ms": f"{budget_ms:.2f}",
            "budget.lr_size": f"[{height}, {width}]",
            "task.scale": profile.scale,
            "task.color": profile.color,
            "search.activation": profile.activation,
            "search.unshuffle": profile.unshuffle,
        }
        settings = load_settings(None, [*SHORT, *(f"{key}={value}" for key, value in chosen.items())])
        with TemporaryDirectory() as folder:
            yield row_of_budget(settings, Path(folder) / "run")


def row_of_budget(settings: Settings, run: Path) -> Row:
    """Searches, exports, and times the exported model beside the calibration of the profile, as `verify` does."""
    budget, task, search = settings.budget.bounds, settings.task, settings.search
    assert budget.latency_ms is not None
    try:
        search_run(run, settings)
    except BudgetMissed as error:
        note(error.message)
        return Row(str(budget.profile), budget.latency_ms, None, 0, None, None, None, False, "")
    export_run(run, precisions_of(settings))
    target = target_of_budget(budget, task.scale, task.color, search.activation, search.unshuffle, note)
    assert target is not None
    if target.differences:
        raise SystemExit(f"{budget.profile} is not of this device: {'; '.join(target.differences)}")
    network = architecture_from_json((run / "search" / "architecture.json").read_text(encoding="utf-8"))
    judged = target.judge(network, run, budget)
    share = judged["measured_ms"] / budget.latency_ms
    finalists = len(report_of(run, "search")["finalists"])
    latencies = (budget.latency_ms, judged["predicted_ms"], finalists, judged["measured_ms"], judged["drift"])
    return Row(str(budget.profile), *latencies, share, share <= 1.0, summary(network))


if __name__ == "__main__":
    main()
