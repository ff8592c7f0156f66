"""Whether the search beats hand-designed networks at equal cost, and published ones at equal latency.

Every row of the board is trained on the same images, with the same steps, patches and evaluation, and is appended to
the file of results when it is done; the same command goes on with the next one. From the project's root:
python -m tests.bench.search_quality --only 'macs-16K/*' --minutes 60
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from deploy.device import device_facts, usable_cores
from deploy.probe import memory_mib
from pipeline.autocast import bf16_pays
from pipeline.data import load_pairs
from pipeline.errors import PipelineError
from pipeline.images import hash_folders
from pipeline.manifest import atomic_path
from tests.bench.board import Row, rows
from tests.bench.board_tables import markdown, targets
from tests.bench.contest import Data, NotRun, run_row
from tests.bench.trainer import Look

RESULTS = Path("tests/bench/results/search_quality.jsonl")
SCHEMA = 1
TRAINED, MEASURED = ("train/BSDS200", "train/T91"), ("Set5", "Set14", "B100")
QUICK = {"steps": 24, "batch": 2, "patch": 16}
console = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.search_quality", description=__doc__)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="rows, as in 'macs-16K/hand/*'")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no row after so many")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON, a row a line (default: %(default)s)")
    parser.add_argument("--markdown", type=Path, help="write the tables there too")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SR_DATA", "../shared/data")))
    parser.add_argument("--work", type=Path, default=Path("runs/search_quality"), help="where searches can go on")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--quick", action="store_true", help="a few small steps on embedded photographs")
    given = parser.parse_args(arguments)
    chosen = [row for row in rows() if any(fnmatchcase(row.name, pattern) for pattern in given.only)]
    if not chosen:
        parser.error(f"no row is named {' or '.join(given.only)}; --list names all")
    known = read_results(given.results)
    if given.list:
        for row in chosen:
            print(f"{'done' if row.name in known else '    '}  {row.name}")
        return
    if not given.quick and not (given.data / "benchmarks").is_dir():
        parser.error(f"no research images in {given.data}; name their folder with --data or SR_DATA")
    not_run: dict[str, str] = {}
    if waiting := [row for row in chosen if row.name not in known]:
        run_rows(waiting, read_data(given.data, quick=given.quick), given, known, not_run)
    tables = markdown(rows(), known, not_run)
    if given.markdown is not None:
        with atomic_path(given.markdown) as temporary:
            temporary.write_text(tables, encoding="utf-8")
    print(tables)
    found = targets(known)
    missing = [row.name for row in rows() if row.name not in known]
    passed = not missing and all(target["reached"] for target in found)
    print(json.dumps({"rows": known, "targets": found, "missing": missing, "not_run": not_run, "passed": passed}))


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Name -> figures. Ends with what to do where a line is none of this board, or of another version of it."""
    found: dict[str, dict[str, Any]] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if row["schema"] != SCHEMA:
                raise ValueError(f"schema {row['schema']}, not {SCHEMA}")
            found[row["name"]] = row
        except (ValueError, KeyError, TypeError) as error:
            raise SystemExit(f"{path}, line {number}: {error}; remove the line to have its row run again") from error
    return found


def read_data(folder: Path, *, quick: bool) -> Data:
    if quick:
        pairs = load_pairs(["scikit-image:test"], 2)
        small = [replace(pair, lr=pair.lr[:48, :48], hr=pair.hr[:96, :96]) for pair in pairs]
        return Data(small, {"Set14": small[:1], "B100": small[1:2]}, QUICK["batch"], QUICK["patch"], {})
    folders = [folder / name for name in TRAINED]
    with console.status("reading images"):
        benchmarks = {name: load_pairs([folder / "benchmarks" / name], 2) for name in MEASURED}
        hashes = hash_folders(folders, 2)
        return Data(load_pairs(folders, 2), benchmarks, 16, 48, hashes)


def run_rows(
    waiting: Sequence[Row],
    data: Data,
    given: argparse.Namespace,
    known: dict[str, dict[str, Any]],
    not_run: dict[str, str],
) -> None:
    """Runs rows and appends each to the results; `known` and `not_run` are filled."""
    deadline = time.monotonic() + 60 * given.minutes
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        board = bar.add_task("rows", total=len(waiting), loss="")
        for row in waiting:
            if time.monotonic() > deadline:
                break
            row = replace(row, steps=QUICK["steps"]) if given.quick else row
            task = bar.add_task(row.name, total=row.steps, loss="")
            _count_memory_anew()
            try:
                found = run_row(row, data, known, given.work, _look(bar, task))
            except (NotRun, PipelineError) as error:
                not_run[row.name] = str(error)
            else:
                known[row.name] = {**_facts(row), **found, "memory_mib": memory_mib("VmHWM")}
                _append(given.results, known[row.name])
                bar.console.print(f"{row.name}: {found['psnr_y']['mean']:.3f} dB, {found['seconds']:.0f} s")
            bar.remove_task(task)
            bar.advance(board)


def _count_memory_anew() -> None:
    """The peak of this process is that of a row, where Linux lets it begin again."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _look(bar: Progress, task: TaskID) -> Look:
    return lambda step, loss: bar.update(task, completed=step, loss=f"loss {loss:.4f}")


def _facts(row: Row) -> dict[str, Any]:
    told = {"budget" if name == "macs" else name: value for name, value in asdict(row).items() if value}
    return {
        "schema": SCHEMA,
        **told,
        "seed": row.seed,
        "trained_on": [*TRAINED],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_facts("onnxruntime"),
        "threads": usable_cores(),
        "precision": "bf16" if bf16_pays() else "fp32",
        "torch": torch.__version__,
    }


def _append(path: Path, row: Mapping[str, Any]) -> None:
    """Adds a line, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    with atomic_path(path) as temporary:
        temporary.write_text(before + json.dumps(row) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
