"""The scoreboard of searches: its rows, what it makes of results, and a quick run of it."""

import json
import resource
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
import torch

from deploy.timing import Timing
from pipeline.profile import DeviceProfile, profile_from_toml, profile_path
from tests.bench import peer_latency, search_quality, search_rows
from tests.bench.board import (
    GRID,
    GRID_SHARE,
    PEER_RATES,
    RECIPES,
    RIVALS,
    SEEDS,
    SHORT,
    SUITED,
    Row,
    hand_designed,
    macs_per_pixel,
    rows,
)
from tests.bench.board_file import (
    append,
    code_of,
    elsewhere,
    known_from_results,
    older,
    read_results,
    rounded,
    search_version,
)
from tests.bench.board_picture import FASTEST, picture_of_board
from tests.bench.board_tables import GAIN, PEER_GAIN, decided, hand_bar, hand_missing, markdown, targets
from tests.bench.contest import Place, best_recipe, best_shape, run_row
from tests.bench.figures import TRAINED, NotRun, Source, read_data, settings_of_board
from tests.bench.peer_latency import latencies_of_peer
from tests.bench.search_rows import ours_at_peer

LINE = {"schema": 1, "name": "macs-8K/ours/seed0", "kind": "ours", "steps": 6000, "trained_on": [*TRAINED]}


def result(mean: float, **fields: Any) -> dict[str, Any]:
    return {
        "psnr_y": {"Set14": mean, "B100": mean, "mean": mean},
        "watched_psnr_y": mean,
        "share": 0.95,
        "macs": 15_000.0,
        "seconds": 120.0,
        "step_ms": 20.0,
        "kind": "ours",
        "steps": 6000,
        "weights": "a",
        "architecture": "edge",
        "memory_mib": 500.0,
        "step_ms_on_the_way": [(0.1, 30.0), (0.9, 22.0)],
        **fields,
    }


def board(gain: float, spread: float = 0.0, ratio: float = 1.4, **fields: Any) -> dict[str, dict[str, Any]]:
    """All hand-designed networks at 32 dB and less, ours `gain` above the best of them."""
    found = {}
    for macs, shapes in GRID.items():
        section = f"macs-{macs // 1000}K"
        for seed in SEEDS:
            for worse, (width, depth) in enumerate(shapes):
                found[f"{section}/hand/{width}x{depth}/seed{seed}"] = result(32 - 0.01 * worse, kind="hand")
            found[f"{section}/ours/seed{seed}"] = result(32 + gain + spread * (seed - 1) / 2, **fields)
        costs = {"kind": "cost", "search": result(32 + gain), "alone": result(32.0), "ratio": ratio}
        found[f"cost/{macs // 1000}K/seed0"] = costs
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
            assert GRID_SHARE * macs <= macs_per_pixel(network) <= macs
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
        (board(0.06, share=1.01), "32K: least share", False),
        (board(0.06, ratio=1.49), "64K: time over", True),
        (board(0.06, ratio=1.51), "64K: time over", False),
        (board(0.06, weights="b"), "16K: the same seed twice", False),
        (board(0.06), "FSRCNN, best", None),
        ({}, "in the mean", None),
    ],
)
def test_targets_follow_from_rows(known: dict[str, dict[str, Any]], name: str, verdict: bool | None) -> None:
    assert reached(known, name) is verdict


def test_a_bar_with_a_missing_seed_is_no_verdict() -> None:
    known = board(GAIN)
    del known["macs-64K/hand/34x7/seed2"]
    assert reached(known, "64K: dB over the best") is reached(known, "in the mean") is None


def test_with_hindsight_the_best_shape_and_the_best_pilot_count() -> None:
    known = board(0.0) | {f"macs-8K/pilot/16x4/{name}": result(30 + at) for at, name in enumerate(RECIPES)}
    assert hand_bar(8_000, known) == (GRID[8_000][0], 32.0)
    assert best_shape(8_000, known) == GRID[8_000][0]
    assert best_recipe(8_000, (16, 4), known) == [*RECIPES][-1]
    with pytest.raises(NotRun):
        best_recipe(8_000, (8, 13), known)
    del known["macs-8K/hand/12x6/seed2"]
    assert hand_bar(8_000, known) == (GRID[8_000][0], 32.0)
    with pytest.raises(NotRun, match=r"^it needs macs-8K/hand/12x6/seed2$"):
        best_shape(8_000, known)
    assert hand_bar(8_000, {}) is None


def test_a_shape_far_behind_needs_no_further_seeds() -> None:
    known = board(0.0)
    for seed in (1, 2):
        del known[f"macs-8K/hand/16x4/seed{seed}"]
    known["macs-8K/hand/16x4/seed0"] = result(32.0 - SHORT - 0.001)
    assert decided("macs-8K/hand/16x4/seed1", known)
    assert not decided("macs-8K/hand/16x4/seed0", known)
    assert not decided("macs-16K/hand/16x8/seed1", known)
    assert best_shape(8_000, known) == GRID[8_000][0]
    known["macs-8K/hand/16x4/seed0"] = result(32.0 - SHORT + 0.001)
    assert hand_missing(8_000, known) == ["macs-8K/hand/16x4/seed1", "macs-8K/hand/16x4/seed2"]


@pytest.mark.parametrize("kind", RIVALS)
def test_a_rival_far_behind_the_search_needs_no_further_seeds(kind: str) -> None:
    known = board(0.06)
    assert not decided(f"macs-8K/{kind}/seed1", known)
    known[f"macs-8K/{kind}/seed0"] = result(32.06 - SHORT - 0.001, kind=kind)
    assert decided(f"macs-8K/{kind}/seed1", known)
    assert not decided(f"macs-8K/{kind}/seed0", known)
    assert not decided("macs-8K/plain/seed1", known)
    known[f"macs-8K/{kind}/seed0"] = result(32.06 - SHORT + 0.001, kind=kind)
    assert not decided(f"macs-8K/{kind}/seed1", known)


@pytest.mark.parametrize(("gain", "enough"), [(PEER_GAIN - SHORT - 0.001, True), (PEER_GAIN - SHORT + 0.001, False)])
def test_a_search_far_from_what_it_is_asked_to_gain_over_a_peer_needs_no_further_seeds(
    gain: float, enough: bool
) -> None:
    known = latencies()
    for seed in (1, 2):
        del known[f"latency/ESPCN/ours best/seed{seed}"]
    known["latency/ESPCN/ours best/seed0"]["psnr_y"] = result(31.5 + gain)["psnr_y"]
    assert decided("latency/ESPCN/ours best/seed1", known) is enough
    assert not decided("latency/ESPCN/peer/seed1", known)
    assert reached(known, "ESPCN, best") is (False if enough else None)


def test_the_same_seed_is_owed_the_same_weights_on_one_machine_in_one_version() -> None:
    told: dict[str, Any] = {"threads": 1, "torch": "2.9", "precision": "bf16", "date": "2026-11-24T10:00"}
    told["trained_on"] = ["a"]
    one, other = ({**told, "device": {"cpu": cpu, "features": "AVX"}} for cpu in ("one", "another"))
    known = board(0.06, weights="b", **one)
    for changes, verdict in ((one, False), (other, None), ({**one, "search_version": "another"}, None)):
        known["cost/8K/seed0"] |= changes
        assert reached(known, "8K: the same seed twice") is verdict
    known["cost/8K/seed0"]["search"] = {**known["cost/8K/seed0"]["search"], "weights": "b"}
    assert reached(known, "8K: the same seed twice")


def test_tables_say_what_has_not_run() -> None:
    text = markdown(rows(), board(0.06), {"macs-8K/plain/seed0": "no reason"})
    assert "## macs-16K" in text
    assert "| ours | edge | 3 | 6000 |" in text
    assert "| 16K | 120 s | 120 s | 1.40 | 500 MiB | 500 MiB | 30.0 ms | 22.0 ms | 20.0 ms | 32.060 | 32.000 |" in text
    assert "not run: macs-8K/plain/seed0: no reason" in text
    assert "| macs-8K: dB over the best hand-designed network | at least 0 | 0.060 | 3 | reached |" in text
    assert "14 of 35 targets have no figure, as rows of theirs have not run" in text
    assert "macs-16K pilot 45, macs-16K unsearched 3, macs-16K plain 3, macs-16K random 3, macs-16K halving 3" in text
    assert "version of the product trained: macs-8K hand 21, macs-8K ours 3, cost cost 4, macs-16K" in text


def test_tables_say_on_what_rows_were_trained() -> None:
    device = {"cpu": "A processor", "features": "AVX-512"}
    told: dict[str, Any] = {"device": device, "torch": "2.9", "precision": "fp32", "date": "2026-11-24T10:00"}
    told["trained_on"] = ["a", "b"]
    known = board(0.06, **told, threads=2)
    known["macs-8K/ours/seed0"]["threads"] = 1
    text = markdown(rows(), known, {})
    trained = "(AVX-512), PyTorch 2.9 in fp32, trained on a and b"
    assert f"\n\nA processor, 1 thread {trained}: 1 rows, 2026-11-24 to 2026-11-24.\n" in text
    assert f"\n\nA processor, 2 threads {trained}: 11 rows, " in text


def latencies() -> dict[str, dict[str, Any]]:
    found = {f"latency/ESPCN/peer/seed{seed}": result(31.5, kind="peer", architecture="ESPCN") for seed in SEEDS}
    ours: dict[str, Any] = {"peer": "ESPCN", "profile": "desk", "peer_ms": 38.0, "latency_ms": 36.0}
    ours |= {"candidate": "openvino int8", "peer_candidate": "openvino bf16"}
    found |= {f"latency/ESPCN/ours best/seed{seed}": result(31.9, kind="ours at peer", **ours) for seed in SEEDS}
    times = {"onnxruntime fp32": 60.0, "openvino bf16": 38.0}
    profiles = dict.fromkeys(times, "desk")
    found["latency/ESPCN/time"] = {**LINE, "kind": "time", "peer": "ESPCN", "latency_ms": times, "profiles": profiles}
    found["latency/hand 16K/time"] = {**LINE, "kind": "time", "latency_ms": {"openvino bf16": 22.0}}
    return found


def test_latency_is_compared_in_one_runtime() -> None:
    known = board(0.06) | latencies()
    assert reached(known, "ESPCN, best") is True
    assert reached(known, "ESPCN, onnxruntime fp32") is None
    text = markdown(rows(), known, {})
    assert "| ESPCN | 60.0 | 38.0 |" in text
    assert "36.0 ms in openvino int8 of 38.0 in openvino bf16" in text


def test_what_ran_on_another_device_than_its_peer_is_to_be_run_again() -> None:
    known = latencies()
    assert elsewhere(known) == []
    known["latency/ESPCN/ours best/seed1"]["profile"] = "board"
    assert elsewhere(known) == ["latency/ESPCN/ours best/seed1"]
    assert "again with `--stale`, 1 rows, run on another device" in markdown(rows(), known, {})
    assert fromstring(picture_of_board(known)).findall(".//{*}circle[@class='ours']")
    for seed in SEEDS:
        known[f"latency/ESPCN/ours best/seed{seed}"]["profile"] = "board"
    assert not fromstring(picture_of_board(known)).findall(".//{*}circle[@class='ours']")
    del known["latency/ESPCN/time"]
    assert len(elsewhere(known)) == len(SEEDS)


def test_the_picture_shows_all_that_has_run() -> None:
    svg = fromstring(picture_of_board(board(0.06) | latencies()))
    titles = [text.text for text in svg.findall(".//{*}text") if text.get("class") == "title"]
    assert titles == ["against MACs", "against latency in onnxruntime fp32", f"against latency in {FASTEST}"]
    circles = [[one.get("class") for one in chart.findall(".//{*}circle")] for chart in svg.findall("{*}svg")]
    hand = sum(len(shapes) for shapes in GRID.values())
    assert [chart.count("ours") for chart in circles] == [len(GRID), 0, 1]
    assert [chart.count("peer") for chart in circles] == [hand + 1, 1, 2]
    labels = [[text.text for text in chart.findall(".//{*}text")] for chart in svg.findall("{*}svg")]
    assert [chart.count("10x17") for chart in labels] == [1, 0, 1]  # the best of 16K
    assert fromstring(picture_of_board({})).findall(".//{*}circle") == []


@pytest.fixture
def of_two_runtimes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Profiles of luma networks that are taken to be of this device, but for timing."""
    paths = [profile_path(f"xeon-2c-{name}-y") for name in ("onnxruntime-fp32", "openvino-int8")]
    here = {profile.candidate: profile for profile in map(profile_from_toml, paths)}
    monkeypatch.setattr(search_rows, "profiles_of_this_device", lambda color, _: here if color == "y" else {})
    monkeypatch.setattr("pipeline.target.is_this_device", lambda _: ["timing takes minutes"])
    return paths


def timed_peer(**latency_ms: float) -> dict[str, dict[str, Any]]:
    """runtime_precision -> ms of ESPCN."""
    times = {name.replace("_", " "): ms for name, ms in latency_ms.items()}
    profiles = {name: f"xeon-2c-{name.replace(' ', '-')}-y" for name in times}
    return {"latency/ESPCN/time": {"latency_ms": times, "profiles": profiles}}


def test_ours_are_timed_and_scored_in_what_is_fastest_for_them(of_two_runtimes: list[Path], tmp_path: Path) -> None:
    data = read_data(Source(Path(), (), "fp32", quick=True))
    row = Row("", "ours at peer", steps=8, peer="ESPCN", runtime="best")
    known = timed_peer(onnxruntime_fp32=20.0, openvino_int8=30.0)
    found = ours_at_peer(row, data, known, of_two_runtimes, tmp_path / "best", lambda *_: None)
    assert (found["candidate"], found["peer_candidate"]) == ("openvino int8", "onnxruntime fp32")
    assert 0 < found["latency_ms"] <= found["peer_ms"] == 20.0
    assert found["psnr_y"] != found["float_psnr_y"]
    assert found["psnr_y"]["mean"] == pytest.approx(found["float_psnr_y"]["mean"], abs=0.1)
    row = replace(row, runtime="onnxruntime fp32")
    found = ours_at_peer(row, data, known, of_two_runtimes, tmp_path / "named", lambda *_: None)
    assert found["candidate"] == found["peer_candidate"] == "onnxruntime fp32"
    assert found["psnr_y"]["mean"] == pytest.approx(found["float_psnr_y"]["mean"], abs=1e-3)


def test_ours_keep_to_profiles_that_the_peer_was_timed_with(of_two_runtimes: list[Path], tmp_path: Path) -> None:
    data: Any = None
    row = Row("", "ours at peer", peer="ESPCN", runtime="best")
    with pytest.raises(NotRun, match="it needs latency/ESPCN/time"):
        ours_at_peer(row, data, {}, of_two_runtimes, tmp_path, print)
    with pytest.raises(NotRun, match="ESPCN was not timed in openvino int8 with a profile"):
        ours_at_peer(row, data, timed_peer(onnxruntime_fp32=20.0), of_two_runtimes, tmp_path, print)
    known = timed_peer(openvino_int8=20.0)
    known["latency/ESPCN/time"]["profiles"] = {"openvino int8": "another"}
    with pytest.raises(NotRun, match="ESPCN was not timed in openvino int8 with a profile"):
        ours_at_peer(row, data, known, of_two_runtimes, tmp_path, print)


def test_a_peer_is_timed_with_the_profiles_of_this_device_and_its_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["epyc-2c-openvino-int8", "epyc-2c-onnxruntime-fp32", "xeon-2c-onnxruntime-fp32"]
    sizes: dict[str, int] = {}

    def timed(profile: DeviceProfile, model: bytes) -> Timing:
        sizes[profile.candidate] = len(model)
        return Timing(10.0, 10.0, 10.0, 10.0, 1)

    monkeypatch.setattr(peer_latency, "is_this_device", lambda one: ["another"] if "xeon" in one.name else [])
    monkeypatch.setattr(peer_latency, "measure_model", timed)
    found = latencies_of_peer("QuickSRNet-Small", [profile_path(name) for name in names])
    assert found["latency_ms"] == {"openvino int8": 10.0, "onnxruntime fp32": 10.0}
    assert found["profiles"] == {"openvino int8": names[0], "onnxruntime fp32": names[1]}
    assert sizes["openvino int8"] < sizes["onnxruntime fp32"] / 2
    with pytest.raises(NotRun, match="no profile of this device for y networks"):
        latencies_of_peer("ESPCN", [profile_path(name) for name in names])


def test_a_quick_board_runs_goes_on_and_is_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--work", str(tmp_path)]
    written = ["--markdown", str(tmp_path / "RESULTS.md"), "--picture", str(tmp_path / "board.svg")]
    search_quality.main([*arguments, *written])
    tables, _, last = capsys.readouterr().out.rstrip().rpartition("\n")
    found = json.loads(last)
    kinds = {row["kind"] for row in found["rows"].values()}
    assert kinds == {"pilot", "ours", "hand", "unsearched", "plain", "random", "halving", "peer pilot", "peer"}
    assert not found["not_run"]
    assert not [name for name in found["missing"] if name.startswith("macs-8K")]
    assert {row["steps"] for row in found["rows"].values()} == {6, 24}
    assert not found["passed"]
    assert not found["stale"]
    assert found["rows"]["macs-8K/ours/seed0"]["share"] <= 1.0
    assert all(0 < row["psnr_y"]["mean"] < 60 and row["memory_mib"] > 0 for row in found["rows"].values())
    assert all(row["psnr_y"]["mean"] > 15 for row in found["rows"].values() if row["kind"] in ("hand", "ours"))
    assert all(row["trained_on"] == ["scikit-image:test"] for row in found["rows"].values())
    assert (tmp_path / "RESULTS.md").read_text() == tables.rstrip() + "\n"
    assert (tmp_path / "board.svg").read_text().startswith("<svg")
    results = tmp_path / "quick" / "rows.jsonl"
    lines = results.read_text().splitlines()
    search_quality.main(arguments)
    assert results.read_text().splitlines() == lines
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == found["rows"]
    search_quality.main([*arguments, "--again", "--only", "macs-8K/hand/16x4/seed0"])
    again = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]["macs-8K/hand/16x4/seed0"]
    assert len(results.read_text().splitlines()) == len(lines) + 1
    assert again["psnr_y"] == found["rows"]["macs-8K/hand/16x4/seed0"]["psnr_y"]
    append(results, {**again, "search_version": "another"})
    search_quality.main([*arguments, "--list", "--only", "macs-8K/hand/16x4/seed0"])
    assert capsys.readouterr().out.split() == ["stale", "macs-8K/hand/16x4/seed0"]
    search_quality.main([*arguments, "--stale"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["stale"] == []
    assert len(results.read_text().splitlines()) == len(lines) + 3
    search_quality.main([*arguments, "--only", "cost/8K/*"])
    row = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]["cost/8K/seed0"]
    assert row["search"]["weights"] == found["rows"]["macs-8K/ours/seed0"]["weights"]
    assert row["alone"]["id"] == row["search"]["id"]
    assert row["ratio"] == pytest.approx(row["search"]["seconds"] / row["alone"]["seconds"])
    assert all(row[name]["memory_mib"] > 50 for name in ("search", "alone"))


def test_a_row_without_what_it_builds_on_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["macs-8K/hand/8x13/seed0", "macs-8K/plain/seed0", "cost/8K/seed0", "latency/FSRCNN/ours best/seed0"]
    search_quality.main(["--quick", "--work", str(tmp_path), "--only", *names])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["not_run"]
    assert set(found) == {*names}
    assert found["macs-8K/hand/8x13/seed0"].startswith(
        "it needs macs-8K/pilot/8x13/identity, macs-8K/pilot/8x13/residual"
    )
    assert found["macs-8K/plain/seed0"].startswith("it needs macs-8K/hand/7x17/seed0")
    assert found["cost/8K/seed0"] == "it needs macs-8K/ours/seed0"
    assert found["latency/FSRCNN/ours best/seed0"] == "it needs latency/FSRCNN/time"
    assert not (tmp_path / "quick" / "rows.jsonl").exists()


def test_a_peer_that_ends_below_its_pilot_is_trained_at_the_next_rate() -> None:
    data = read_data(Source(Path(), (), "fp32", quick=True))
    row = Row("latency/ESPCN/peer/seed0", "peer", steps=2, peer="ESPCN")
    pilots = dict(zip(PEER_RATES, (2.0, 1.0, 99.0, 0.0), strict=True))
    known = {f"latency/ESPCN/pilot/{rate:g}": {"watched_psnr_y": psnr_y} for rate, psnr_y in pilots.items()}
    place = Place(Path(), [])
    with pytest.raises(NotRun, match=r"^it needs latency/ESPCN/pilot/0\.004$"):
        run_row(row, data, dict([*known.items()][:3]), place, print)
    found = run_row(row, data, known, place, print)
    assert (found["rate"], found["failed_rates"]) == (PEER_RATES[0], [PEER_RATES[2]])
    failing = {name: {"watched_psnr_y": 99.0} for name in known}
    with pytest.raises(NotRun, match="below its pilots at every rate"):
        run_row(row, data, failing, place, print)


def test_an_interrupted_board_keeps_what_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def row_or_end(row: Row, *_: object) -> dict[str, Any]:
        if row.kind == "ours":
            raise KeyboardInterrupt
        return result(30.0)

    monkeypatch.setattr(search_quality, "run_row", row_or_end)
    with pytest.raises(SystemExit) as error:
        search_quality.main(["--quick", "--work", str(tmp_path)])
    assert error.value.code == 130
    done = [f"macs-8K/pilot/{width}x{depth}/{recipe}" for width, depth in GRID[8_000] for recipe in SUITED]
    assert [*json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]] == done
    assert len((tmp_path / "quick" / "rows.jsonl").read_text().splitlines()) == len(done)


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ({}, True),
        ({"batch": 16, "patch": 48}, True),
        ({"steps": 24}, False),
        ({"trained_on": ["scikit-image:test"]}, False),
        ({"patch": 16}, False),
        ({"name": "macs-9K/ours/seed0"}, False),
    ],
)
def test_rows_of_other_settings_do_not_count(tmp_path: Path, changed: dict[str, Any], counts: bool) -> None:
    path = tmp_path / "rows.jsonl"
    append(path, {**LINE, **changed})
    known = known_from_results(rows(), read_results(path), settings_of_board(TRAINED, quick=False))
    assert (len(known) == 1) is counts


def test_rows_of_another_search_are_named() -> None:
    known = {"a": {**LINE, "search_version": search_version()}, "b": {**LINE, "search_version": "other"}, "c": LINE}
    assert older(known) == ["b", "c"]
    assert older({"a": {**LINE, "kind": "hand"}, "b": {**LINE, "kind": "peer"}}) == ["a"]
    names = ["latency/ECBSR-M4C16/ours best/seed0", "macs-64K/ours/seed0"]
    same = {"kind": "ours", "search_version": "df775b1c0ecd"}
    assert older(dict.fromkeys(names, same)) == names[1:]


def test_peers_without_a_skip_are_not_trained_in_bfloat16() -> None:
    made = {"kind": "peer", "precision": "bf16"}
    known = {"a": made | {"peer": "ESPCN"}, "b": made | {"peer": "SESR-M5"}}
    assert rounded(known | {"c": made | {"peer": "ESPCN", "precision": "fp32"}}) == ["a"]


def test_the_version_of_a_search_is_of_what_it_does() -> None:
    written = 'def f(a: int) -> str:\n    """Says a."""\n    return f"{a + 1} b"\n'
    other = '# why\ndef f(\n    a: int,\n) -> str:\n    """Says\n\n    it."""  # so\n\n    return f"{a + 1} b"\n'
    assert code_of(written) == code_of(other)
    assert code_of(written) != code_of(written.replace("1", "2"))
    assert len(search_version()) == 12


def test_pilots_are_shorter_in_proportion() -> None:
    steps = {row.name: row.steps for row in rows(600)}
    assert steps["macs-16K/pilot/16x8/half"] == 150
    assert steps["macs-16K/ours/seed0"] == 600
    assert steps["macs-16K-long/ours/seed0"] == 2000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "macs-9K/*"], "no row is named macs-9K/*; --list names all"),
        (["--only", "macs-8K/*", "typo/*"], "no row is named typo/*"),
        (["--data", "nowhere"], "no folder benchmarks in nowhere; name that of the research images with --data"),
        (["--steps", "0"], "--steps is at least 1, not 0"),
        pytest.param(
            ["--device", "cuda"],
            "PyTorch finds no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
        (["--profile", "nothing"], "no device profile at profiles/nothing.toml"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        search_quality.main([*arguments, "--results", "no.jsonl"])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_a_board_in_bf16_is_not_gone_on_with_where_that_is_emulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search_quality, "bf16_supported", lambda _device: False)
    path = tmp_path / "rows.jsonl"
    append(path, {**LINE, "precision": "bf16"})
    for folder in ("benchmarks", *TRAINED):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(SystemExit) as error:
        search_quality.main(["--results", str(path), "--data", str(tmp_path), "--only", "macs-16K/*"])
    assert error.value.code == 2
    assert "is of bf16, which this device emulates: --precision fp32" in capsys.readouterr().err


def test_a_damaged_line_of_results_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append(path, LINE)
    for line, reason in (('{"schema": 0}', "schema 0, not 1"), ('{"schema": 1}', "no 'name'"), ("{", "Expecting")):
        path.write_text(path.read_text().splitlines()[0] + f"\n{line}\n")
        with pytest.raises(SystemExit, match=f"line 2: {reason}.*; remove the line"):
            read_results(path)


def test_lines_that_are_added_at_once_are_all_kept(tmp_path: Path) -> None:
    path, names = tmp_path / "new" / "rows.jsonl", [str(at) for at in range(400)]
    with ThreadPoolExecutor(8) as pool:
        for name in names:
            pool.submit(append, path, {**LINE, "name": name})
    assert sorted(row["name"] for row in read_results(path)) == sorted(names)


def test_line_that_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append(path, LINE)
    before, (soft, hard) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            append(path, LINE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before


def test_rows_can_be_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, made = tmp_path / "rows.jsonl", {"search_version": search_version()}
    append(path, {**LINE, **made})
    search_quality.main(["--list", "--only", "macs-8K/ours/*", "--results", str(path)])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["done", "macs-8K/ours/seed0"],
        ["macs-8K/ours/seed1"],
        ["macs-8K/ours/seed2"],
    ]
    for shape, psnr in (("8x13", 32.0), ("16x4", 31.0)):
        append(path, {**LINE, **result(psnr, kind="hand"), **made, "name": f"macs-8K/hand/{shape}/seed0"})
    search_quality.main(["--list", "--only", "macs-8K/hand/*x*4/seed?", "--results", str(path)])
    states = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert states == [["done", "macs-8K/hand/16x4/seed0"], *(["decided", f"macs-8K/hand/16x4/seed{n}"] for n in (1, 2))]
