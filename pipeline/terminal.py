"""What a person sees: progress while a stage works, and one table of what a run is."""

import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column, Table
from rich.text import Text

from pipeline.architecture import summary
from pipeline.budget import short

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.profile import DeviceProfile, Row
    from pipeline.training import Progress

PAUSE = 10.0  # seconds between lines of progress where a bar cannot be drawn
WIDTH = 110  # columns where there is no terminal
MOST_IMAGES = 12  # sets with more are shown by their mean


def console(*, stderr: bool) -> Console:
    """Shows text as it is: names of files may look like markup."""
    found = Console(stderr=stderr, highlight=False, markup=False)
    if not found.is_terminal:
        found.width = WIDTH
    return found


def note(line: str) -> None:
    """One line on stderr."""
    console(stderr=True).print(line, soft_wrap=True)


class ProgressBar:
    """A bar on stderr in a terminal; elsewhere a line now and then. It begins with the first call.

    label: of the work, as long as a call names no other.
    """

    def __init__(self, label: str) -> None:
        self._console = console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(20, table_column=Column(no_wrap=True)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[figures]}", markup=False, table_column=Column()),  # wraps in a narrow terminal
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._label = label
        self._task = self._bar.add_task(label, figures="", start=False)
        self._started = False
        self._noted = time.monotonic()

    def __call__(self, done: int, total: int, figures: str = "", label: str = "") -> None:
        label = label or self._label
        if not self._started:  # what goes on after an interrupt begins in the middle
            self._bar.reset(self._task, total=total, completed=done, description=label, figures=figures)
            self._bar.start()
            self._started = True
        self._bar.update(self._task, description=label, completed=done, total=total, figures=figures)
        if self._console.is_terminal or (done < total and time.monotonic() - self._noted < PAUSE):
            return
        self._noted = time.monotonic()
        remaining = self._bar.tasks[0].time_remaining
        note(f"{label} {done}/{total}  {figures}" + (f"  {remaining:.0f} s left" if remaining else ""))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def search_figures(progress: "Progress") -> str:
    """Every figure but the loss is of the network that would be delivered at that moment."""
    latency = "" if progress.latency_ms is None else f"{progress.latency_ms:.2f} ms  "
    if latency and progress.phase == "search":
        latency = f"about {latency}"  # what the profile predicts
    return (
        f"loss {progress.loss:.4f}  {progress.psnr_y:.2f} dB  {short(progress.macs)} MACs  "
        f"{short(progress.params)} params  {latency}{progress.share:.0%} of the budget"
    )


def run_table(facts: Mapping[str, Any]) -> Table:
    """What `pipeline.runs.facts_from_run` tells of a run, one fact a row."""
    cost, budget = facts["cost"], facts["budget"]
    height, width = budget["lr_size"]
    rows: dict[str, RenderableType] = {
        "run": Text(f"{facts['run']}, seed {facts['seed']}"),
        "architecture": Text(f"{facts['summary']} ({facts['architecture_id']})"),
        "params": _cost_line(cost["params"], budget["params"], ""),
        "MACs": _cost_line(cost["macs"], budget["macs"], f" at {height}x{width}"),
    }
    if cost.get("latency_ms") is not None:  # reports of earlier versions have none
        rows["latency"] = _latency_line(cost["latency_ms"], budget, measured=facts["latency_measured"])
    for stage, state in facts["stages"].items():
        rows[stage] = _state_line(state)
    if facts["passed"] is not None:
        rows["quality"] = _quality_table(facts["quality"], facts["total"], facts["deployed"])
        rows["parity"] = _parity_table(facts["parity"])
        if facts.get("latency"):
            rows["times"] = _times_table(facts["latency"])
        if facts.get("not_run"):
            rows["not run"] = Text("\n".join(_not_run_lines(facts["not_run"])))
        word = ("passed", "bold green") if facts["passed"] else ("FAILED", "bold red")
        rows["verdict"] = Text.assemble(word, *(f"\n{failure['message']}" for failure in facts["failures"]))
    table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1))
    for name, value in rows.items():
        table.add_row(Text(name, "bold"), value)
    return table


def profile_table(profile: "DeviceProfile", path: "Path") -> Table:
    """What a device profile holds, one fact a row."""
    of, height_width = profile, f"{profile.lr_size[0]}x{profile.lr_size[1]}"
    times = sorted(row.timing.median_ms for row in of.rows)
    spreads = sorted((row.timing.p90_ms - row.timing.p10_ms) / row.timing.median_ms for row in of.rows)
    extremes = [next(row for row in of.rows if row.timing.median_ms == ms) for ms in (times[0], times[-1])]
    rows = {
        "device": ", ".join(f"{name} {value}" for name, value in of.device.items() if value),
        "runtime": f"{of.candidate}, {of.threads} threads; "
        + ", ".join(f"{name} {text}" for name, text in of.versions.items()),
        "frame": f"x{of.scale} {of.color}, LR {height_width}",
        "calibration": _row_line(of.calibration),
        "networks": f"{len(of.rows)}, {times[len(times) // 2]:.1f} ms in the median",
        "fastest": _row_line(extremes[0]),
        "slowest": _row_line(extremes[1]),
        "spread": f"p10 to p90 is {spreads[len(spreads) // 2]:.1%} of the median time in the middle of the networks, "
        f"{spreads[-1]:.1%} at most",
        "file": str(path),
    }
    table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1))
    for name, value in rows.items():
        table.add_row(Text(name, "bold"), Text(value))
    return table


def _row_line(row: "Row") -> str:
    timing = row.timing
    return f"{timing.median_ms:.2f} ms ({timing.p10_ms:.2f} to {timing.p90_ms:.2f}): {summary(row.architecture)}"


def _cost_line(used: int, bound: int | None, where: str) -> Text:
    limit = "no bound" if bound is None else f"{used / bound:.1%} of the budget of {short(bound)}"
    return Text(f"{short(used)}{where}, {limit}")


def _latency_line(used: float, budget: Mapping[str, Any], *, measured: bool) -> Text:
    bound = budget["latency_ms"]
    limit = "no bound" if bound is None else f"{used / bound:.1%} of the budget of {bound:g} ms on {budget['profile']}"
    return Text(f"{used:.2f} ms {'measured' if measured else 'predicted'}, {limit}")


def _state_line(state: Mapping[str, Any]) -> Text:
    if state["stale"]:
        return Text(f"stale: {state['stale']}", "yellow")
    if not state["finished"]:
        return Text("not yet", "dim")
    folders = dict.fromkeys(f"{name.partition('/')[0]}{'/' if '/' in name else ''}" for name in state["outputs"])
    return Text(f"{', '.join(folders)} ({state['finished']})")


def _quality_table(sets: Mapping[str, Mapping[str, Any]], total: Mapping[str, Any], deployed: str) -> Table:
    table = _figures_table("", "bicubic\ndB", "ours\ndB", "\ngain", "bicubic\nSSIM", "ours\nSSIM")
    table.title, table.title_justify = f"luma PSNR and SSIM of {deployed} against the photographs", "left"
    for name, means in sets.items():
        images = means["images"]
        if 1 < len(images) <= MOST_IMAGES:
            for image in images:
                table.add_row(f"  {image['name']}", *_quality_cells(image))
        table.add_row(f"{name}, mean of {len(images)}", *_quality_cells(means), style="bold")
    if len(sets) > 1:
        table.add_row(f"all, mean of {total['photographs']}", *_quality_cells(total), style="bold")
    return table


def _quality_cells(figures: Mapping[str, float]) -> Iterable[str]:
    yield f"{figures['bicubic_psnr_y']:.2f}"
    yield f"{figures['psnr_y']:.2f}"
    yield f"{figures['psnr_y'] - figures['bicubic_psnr_y']:+.2f}"
    yield f"{figures['bicubic_ssim_y']:.4f}"
    yield f"{figures['ssim_y']:.4f}"


def _parity_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Each form on its worst photograph, which the report names; narrow enough for 80 columns."""
    table = _figures_table("", "worst\ndB", "\nneeded", "dB lost:\nmean, most", "")
    table.title, table.title_justify = "float outputs beside those of the training form", "left"
    for row in rows:
        table.add_row(
            row["candidate"],
            f"{row['psnr_between_db']:.1f}",
            f"{row['tolerance']:g}",
            f"{row['mean_drop_db']:z.4f}, {row['worst_drop_db']:z.4f}",
            Text("passed", "green") if row["passed"] else Text("FAILED", "bold red"),
        )
    return table


def _times_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Milliseconds of the network alone, each form on the device that runs it."""
    height, width = rows[0]["lr_size"]
    frame = f"{height}x{width}\n{rows[0]['threads']} CPU threads"
    table = _figures_table(frame, "median\nms", "p90\nms", "p99\nms")
    for row in rows:
        table.add_row(row["candidate"], *(f"{row[name]:.2f}" for name in ("median_ms", "p90_ms", "p99_ms")))
    return table


def _not_run_lines(rows: Iterable[Mapping[str, str]]) -> Iterable[str]:
    """One line for each reason, with all that it keeps from running."""
    candidates: dict[str, list[str]] = {}
    for row in rows:
        candidates.setdefault(row["reason"], []).append(row["candidate"])
    for reason, names in candidates.items():
        yield f"{', '.join(names)}: not run: {reason}"


def _figures_table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title_style="dim")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
