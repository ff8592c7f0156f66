"""The scoreboard of searches: its rows, what it makes of results, and a quick run of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import search_quality
from tests.bench.board import GRID, LEAST_SHARE, RECIPES, SEEDS, hand_designed, macs_per_pixel, rows
from tests.bench.board_tables import GAIN, hand_bar, markdown, targets
from tests.bench.contest import NotRun, best_recipe, best_shape

QUICK = ["--quick", "--only", "macs-8K/pilot/16x4/*", "macs-8K/hand/16x4/seed0", "macs-8K/ours/seed0"]


def result(mean: float, **fields: Any) -> dict[str, Any]:
    return {
        "psnr_y": {"Set14": mean, "B100": mean, "mean": mean},
        "watched_psnr_y": mean,
        "share": 0.95,
        "macs": 15_000.0,
        "seconds": 120.0,
        "step_ms": 20.0,
        "steps": 6000,
        "weights": "a",
        "architecture": "edge",
        **fields,
    }


def board(gain: float, spread: float = 0.0, **fields: Any) -> dict[str, dict[str, Any]]:
    """All hand-designed networks at 32 dB and less, ours `gain` above the best of them."""
    found = {}
    for macs, shapes in GRID.items():
        section = f"macs-{macs // 1000}K"
        for seed in SEEDS:
            for worse, (width, depth) in enumerate(shapes):
                found[f"{section}/hand/{width}x{depth}/seed{seed}"] = result(32 - 0.01 * worse)
            found[f"{section}/ours/seed{seed}"] = result(32 + gain + spread * (seed - 1) / 2, **fields)
        found[f"{section}/repeat/seed0"] = result(32 + gain)
    return found


def reached(known: dict[str, dict[str, Any]], name: str) -> bool | None:
    verdict: bool | None
    (verdict,) = {target["reached"] for target in targets(known) if name in target["name"]}
    return verdict


@pytest.mark.parametrize("macs", GRID)
def test_hand_designed_networks_use_their_budget(macs: int) -> None:
    assert len(set(GRID[macs])) >= 6
    for shape in GRID[macs]:
        for residual in (False, True):
            network = hand_designed(macs, shape, residual=residual)
            assert LEAST_SHARE * macs <= macs_per_pixel(network) <= macs
            assert 2 + sum(len(cell.ops) for cell in network.cells) == shape[1]


def test_rows_have_names_of_their_own() -> None:
    names = [row.name for row in rows()]
    assert len(set(names)) == len(names) > 250


@pytest.mark.parametrize(
    ("known", "name", "verdict"),
    [
        (board(0.06), "in the mean", True),
        (board(0.04), "in the mean", False),
        (board(-0.01), "8K: dB over the best", False),
        (board(0.06, spread=0.04), "16K: dB between seeds", True),
        (board(0.06, spread=0.06), "16K: dB between seeds", False),
        (board(0.06, share=0.89), "32K: least share", False),
        (board(0.06, share=1.01), "32K: least share", None),
        (board(0.06, seconds=179.0), "64K: time over", True),
        (board(0.06, seconds=181.0), "64K: time over", False),
        (board(0.06, weights="b"), "16K: the same seed twice", False),
        (board(0.06), "FSRCNN, best", None),
        ({}, "in the mean", None),
    ],
)
def test_targets_follow_from_rows(known: dict[str, dict[str, Any]], name: str, verdict: bool | None) -> None:
    assert reached(known, name) is verdict


def test_a_bar_with_a_missing_seed_is_no_verdict() -> None:
    known = board(GAIN)
    del known["macs-64K/hand/44x5/seed2"]
    assert reached(known, "64K: dB over the best") is reached(known, "in the mean") is None


def test_with_hindsight_the_best_shape_and_the_best_pilot_count() -> None:
    known = board(0.0) | {f"macs-8K/pilot/16x4/{name}": result(30 + at) for at, name in enumerate(RECIPES)}
    assert hand_bar(8_000, known) == ("8x13", 32.0)
    assert best_shape(8_000, known) == GRID[8_000][0]
    assert best_recipe(8_000, (16, 4), known) == [*RECIPES][-1]
    with pytest.raises(NotRun):
        best_recipe(8_000, (8, 13), known)


def test_tables_say_what_has_not_run() -> None:
    text = markdown(rows(), board(0.06), {"macs-8K/plain/seed0": "no reason"})
    assert "## macs-16K" in text
    assert "| ours | edge | 3 | 6000 |" in text
    assert "not run: macs-8K/plain/seed0: no reason" in text
    assert "14 of 35 targets wait for rows that have not run." in text


def test_a_quick_board_runs_goes_on_and_is_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*QUICK, "--results", str(tmp_path / "rows.jsonl"), "--work", str(tmp_path / "work")]
    search_quality.main([*arguments, "--markdown", str(tmp_path / "RESULTS.md")])
    tables, _, last = capsys.readouterr().out.rstrip().rpartition("\n")
    found = json.loads(last)
    assert set(found["rows"]) == {
        *(f"macs-8K/pilot/16x4/{recipe}" for recipe in RECIPES),
        "macs-8K/hand/16x4/seed0",
        "macs-8K/ours/seed0",
    }
    assert not found["passed"]
    assert found["rows"]["macs-8K/ours/seed0"]["share"] <= 1.0
    assert all(row["psnr_y"]["mean"] > 15 and row["memory_mib"] > 0 for row in found["rows"].values())
    assert (tmp_path / "RESULTS.md").read_text() == tables.rstrip() + "\n"
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    search_quality.main(arguments)
    assert (tmp_path / "rows.jsonl").read_text().splitlines() == lines
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == found["rows"]


def test_a_row_without_what_it_builds_on_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--only", "macs-8K/hand/8x13/seed0", "--results", str(tmp_path / "rows.jsonl")]
    search_quality.main(arguments)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["not_run"] == {"macs-8K/hand/8x13/seed0": "it needs macs-8K/pilot/8x13/*"}
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "macs-9K/*"], "no row is named macs-9K/*; --list names all"),
        (["--data", "nowhere", "--only", "*"], "no research images in nowhere"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        search_quality.main([*arguments, "--results", "no.jsonl"])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_a_damaged_line_of_results_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"schema": 1, "name": "macs-8K/ours/seed0"}\n{"schema": 0}\n')
    with pytest.raises(SystemExit, match="line 2: schema 0, not 1; remove the line"):
        search_quality.read_results(path)


def test_rows_can_be_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"schema": 1, "name": "macs-8K/ours/seed0"}\n')
    search_quality.main(["--list", "--only", "macs-8K/ours/*", "--results", str(path)])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["done", "macs-8K/ours/seed0"],
        ["macs-8K/ours/seed1"],
        ["macs-8K/ours/seed2"],
    ]
