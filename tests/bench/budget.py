"""Whether searches keep latency budgets on this device, and how much of each they use."""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.budget import Budget, Cost, Device
from pipeline.config import Settings, load_settings
from pipeline.errors import InfeasibleBudget
from pipeline.runs import report_of
from pipeline.space import EdgeSpace
from pipeline.stages import export_run, search_run, verify_run
from pipeline.target import device_of_budget

BUDGETS, MOST_MS = 10, 100.0
LEAST_SHARE = 0.9
ABOVE_FLOOR = 1.1  # the tightest budget over the fastest network: what lies in between can hardly be told apart

# What matters here is the network and its latency, not its quality: a search of few and small steps ends in the same way.
SHORT = ("search.steps=50", "train.batch=1", "train.patch=16", "data.train=scikit-image:train")
console = Console(stderr=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.budget", description=__doc__)
    parser.add_argument("profiles", nargs="+", help="names in profiles/, or files")
    rows = [row for profile in parser.parse_args().profiles for row in rows_of_profile(profile)]
    table = Table("profile", "budget ms", "predicted ms", "finalists", "measured ms", "share", "met")
    for row in rows:
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    shares = [row["share"] for row in rows]
    figures = {
        "rows": rows,
        "met": sum(row["met"] for row in rows),
        "median_share": median(shares),
        "passed": all(row["met"] for row in rows) and median(shares) >= LEAST_SHARE,
    }
    print(json.dumps(figures))
