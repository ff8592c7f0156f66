"""Whether the search beats hand-designed networks at equal cost, and published ones at equal latency.

Every row of the board is trained on the same images, with the same steps, patches and evaluation, and is appended to
the file of results when it is done; the same command goes on with the next one. From the project's root:
python -m tests.bench.search_quality --only 'macs-16K/*' --minutes 60
"""

import argparse
import json
import os
import time
from collections.abc import Sequence, Set
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from deploy.probe import memory_mib
from pipeline.autocast import bf16_pays, bf16_supported
from pipeline.errors import PipelineError
from pipeline.manifest import atomic_path
from pipeline.profile import FOLDER, profile_path
from pipeline.torch_runner import Device
from tests.bench.board import NOT_OF_OURS, STEPS, Row, rows
from tests.bench.board_file import (
    RESULTS,
    SCHEMA,
    append,
    known_from_results,
    read_results,
    search_version,
    stale,
)
from tests.bench.board_picture import picture_of_board
from tests.bench.board_tables import decided, markdown, owed, targets
from tests.bench.contest import Place, run_row
from tests.bench.figures import TRAINED, Data, NotRun, Results, Source, of_machine, read_data, settings_of_board
from tests.bench.side_by_side import count_memory_anew
from tests.bench.trainer import Look

QUICK_STEPS = 24
QUICK_ROWS = ("macs-8K/*", "latency/FSRCNN/pilot/*", "latency/FSRCNN/peer/seed0")
INTERRUPTED = 130
console = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser, given = _given(arguments)
    board = rows(given.steps)
    chosen = [row for row in board if any(fnmatchcase(row.name, pattern) for pattern in given.only)]
    for pattern in given.only:
        if not any(fnmatchcase(row.name, pattern) for row in board):
            parser.error(f"no row is named {pattern}; --list names all")
    known = _known(given)
    old = {*stale(known)}
    again = {row.name for row in board} if given.again else old if given.stale else set[str]()
    if given.list:
        for row in chosen:
            ran = "stale" if row.name in old else "done"
            state = ran if row.name in known else "decided" if decided(row.name, known) else ""
            print(f"{state:7}  {row.name}")
        return
    waiting = [row for row in chosen if row.name in again or row.name not in known]
    for needed in ("benchmarks", *given.train) if waiting and not given.quick else ():
        if not (given.data / needed).is_dir():
            parser.error(f"no folder {needed} in {given.data}; name that of the research images with --data or SR_DATA")
    not_run: dict[str, str] = {}
    complete = not waiting or run_rows(waiting, again, given, _source(parser, given, known), known, not_run)
    tables = markdown(board, known, not_run)
    for path, text in ((given.markdown, tables), (given.picture, picture_of_board(known))):
        if path is not None:
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    print(tables)
    found, left = targets(known), stale(known)
    missing = [row.name for row in board if owed(row.name, known)]
    passed = not missing and not left and all(target["reached"] for target in found)
    told = {"targets": found, "missing": missing, "stale": left, "not_run": not_run, "passed": passed}
    print(json.dumps({"rows": known, **told}))
    if not complete:
        raise SystemExit(INTERRUPTED)


def _given(arguments: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.search_quality", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="rows, as in 'macs-16K/hand/*'")
    parser.add_argument("--again", action="store_true", help="run rows that are done or decided; the newer line counts")
    parser.add_argument("--stale", action="store_true", help="run those again too that --list calls stale")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no row after so many")
    parser.add_argument("--steps", type=int, help=f"of a training, pilots in proportion (default: {STEPS})")
    parser.add_argument("--results", type=Path, help=f"JSON, a row a line (default: {RESULTS})")
    parser.add_argument("--markdown", type=Path, help="write the tables there too")
    parser.add_argument("--picture", type=Path, help="write PSNR against MACs and latency there, as SVG")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SR_DATA", "../shared/data")))
    parser.add_argument(
        "--train", nargs="+", default=TRAINED, metavar="FOLDER", help="in --data (default: %(default)s)"
    )
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"), help="of training (default: that of the rows there, or the faster one)"
    )
    parser.add_argument("--device", choices=get_args(Device), default="cpu", help="to train on (default: %(default)s)")
    parser.add_argument("--profile", nargs="+", metavar="NAME", help="of this device (default: all in profiles/)")
    parser.add_argument("--work", type=Path, default=Path("runs/search_quality"), help="where searches can go on")
    parser.add_argument(
        "--list",
        action="store_true",
        help="name the rows and end; decided: by their first seed; stale: of another version or device",
    )
    parser.add_argument("--quick", action="store_true", help="a few small steps of a few rows on embedded photographs")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no CUDA device")
    if given.steps is not None and given.steps < 1:
        parser.error(f"--steps is at least 1, not {given.steps}")
    given.only = given.only or (QUICK_ROWS if given.quick else ["*"])
    given.steps = given.steps or (QUICK_STEPS if given.quick else STEPS)
    given.work = given.work / "quick" if given.quick else given.work
    given.results = given.results or (given.work / "rows.jsonl" if given.quick else RESULTS)
    given.profile = [profile_path(name) for name in given.profile] if given.profile else sorted(FOLDER.glob("*.toml"))
    for path in given.profile:
        if not path.is_file():
            parser.error(f"no device profile at {path}")
    return parser, given


def _known(given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The rows that are in the file of results."""
    settings = settings_of_board(given.train, quick=given.quick)
    return known_from_results(rows(given.steps), read_results(given.results), settings)


def _source(parser: argparse.ArgumentParser, given: argparse.Namespace, known: Results) -> Source:
    """With the precision of the rows that are there, so that no row differs from another by a measurement."""
    there = {row["precision"] for row in known.values() if not row["kind"].startswith("peer")}
    if not given.precision and there == {"bf16"} and not bf16_supported(given.device):
        parser.error(
            f"{given.results} is of bf16, which this device emulates: --precision fp32 and another file with --results "
            "begin a board anew, --precision bf16 goes on with this one, ten times slower"
        )
    precision = given.precision or (there.pop() if len(there) == 1 else "bf16" if bf16_pays(given.device) else "fp32")
    trained = tuple(given.train)
    return Source(given.data, trained, "bf16" if precision == "bf16" else "fp32", given.quick, given.device)


def run_rows(
    waiting: Sequence[Row],
    again: Set[str],
    given: argparse.Namespace,
    source: Source,
    known: dict[str, dict[str, Any]],
    not_run: dict[str, str],
) -> bool:
    """Runs rows and appends each to the results; `known` and `not_run` are filled. False where it was interrupted.

    again: names of the rows that run even where they are done or decided.
    """
    deadline = time.monotonic() + 60 * given.minutes
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        all_rows = bar.add_task("reading images", total=len(waiting), loss="")
        try:
            data = read_data(source)
            bar.update(all_rows, description="rows")
            for row in waiting:
                if time.monotonic() > deadline:
                    break
                known |= _known(given)  # others may run rows too
                if not (row.name in again or owed(row.name, known)):
                    bar.advance(all_rows)
                    continue
                task = bar.add_task(row.name, total=row.steps, loss="")
                count_memory_anew()
                try:
                    found = run_row(row, data, known, Place(given.work, given.profile), _look(bar, task))
                except (NotRun, PipelineError) as error:
                    not_run[row.name] = str(error)
                else:
                    known[row.name] = {**_facts(row, data), **found, "memory_mib": memory_mib("VmHWM")}
                    append(given.results, known[row.name])
                    bar.console.print(f"{row.name}: {_in_short(found)}")
                bar.remove_task(task)
                bar.advance(all_rows)
        except KeyboardInterrupt:
            bar.console.print("interrupted: the same command goes on")
            return False
    return True


def _look(bar: Progress, task: TaskID) -> Look:
    return lambda step, loss: bar.update(task, completed=step, loss=f"loss {loss:.4f}")


def _in_short(found: dict[str, Any]) -> str:
    if "psnr_y" in found:
        return f"{found['psnr_y']['mean']:.3f} dB"
    if "ratio" in found:
        return f"{found['ratio']:.2f} times the time of training alone"
    return ", ".join(f"{candidate} {ms:.1f} ms" for candidate, ms in found["latency_ms"].items())


def _facts(row: Row, data: Data) -> dict[str, Any]:
    told = {"budget" if name == "macs" else name: value for name, value in asdict(row).items() if value}
    return {
        "schema": SCHEMA,
        **told,
        "seed": row.seed,
        **data.settings,
        "images": len(data.pairs),
        **of_machine(data.source.device),
        "precision": data.source.precision,
        **({} if row.kind in NOT_OF_OURS else {"search_version": search_version()}),
    }


if __name__ == "__main__":
    main()
