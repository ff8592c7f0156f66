import re
from typing import Any

import pytest

from pipeline.terminal import MOST_IMAGES, ProgressBar, console, run_table, search_figures
from pipeline.training import Progress

FIGURES = {"psnr_y": 31.5, "bicubic_psnr_y": 31.0, "ssim_y": 0.91, "bicubic_ssim_y": 0.9}


def facts(**changes: Any) -> dict[str, Any]:
    stage = {"finished": "2026-01-01T00:00:00+00:00", "stale": None, "outputs": ["model.onnx"]}
    return {
        "run": "runs/a",
        "seed": 3,
        "summary": "edge x2 rgb: [conv3-8-conv3+] x2",
        "architecture_id": "abc",
        "cost": {"macs": 3_600_000_000, "params": 15_700},
        "budget": {"macs": 4_000_000_000, "params": None, "lr_size": [360, 640]},
        "stages": {"search": stage, "export": stage, "verify": stage},
        "passed": None,
    } | changes


def verdict(images: int, *, passed: bool) -> dict[str, Any]:
    row = {
        "candidate": "plain form",
        "tolerance": 90,
        "mean_drop_db": 0.025,
        "worst_drop_db": 0.25,
        "passed": passed,
        "worst_image": "Set/cup",
    }
    return {
        "deployed": "onnxruntime fp32",
        "quality": {"Set": {**FIGURES, "images": [{"name": f"photo{index}[x]", **FIGURES} for index in range(images)]}},
        "total": {**FIGURES, "photographs": 2 * images},
        "parity": [
            {**row, "psnr_between_db": 80.04, "max_abs": 0.0123},
            {**row, "psnr_between_db": 0, "max_abs": None},
        ],
        "latency": [
            {
                "candidate": "openvino bf16",
                "lr_size": [360, 640],
                "threads": 2,
                "median_ms": 12.346,
                "p90_ms": 13.0,
                "p99_ms": 20.0,
            }
        ],
        "failures": [] if passed else [{"kind": "parity", "message": "forms [differ]"}],
        "passed": passed,
    }


def drawn(values: dict[str, Any], columns: int | None = None) -> str:
    shown = console(stderr=False)
    shown.width = columns or shown.width
    with shown.capture() as captured:
        shown.print(run_table(values))
    return captured.get()


def test_table_of_an_unverified_run() -> None:
    stages = {
        "search": facts()["stages"]["search"],
        "export": {"finished": None, "stale": "it was changed", "outputs": []},
        "verify": {"finished": None, "stale": None, "outputs": []},
    }
    lines = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in drawn(facts(stages=stages)).strip().splitlines()]
    assert dict(lines) == {
        "run": "runs/a, seed 3",
        "architecture": "edge x2 rgb: [conv3-8-conv3+] x2 (abc)",
        "params": "15.7K, no bound",
        "MACs": "3.6G at 360x640, 90.0% of the budget of 4G",
        "search": "model.onnx (2026-01-01T00:00:00+00:00)",
        "export": "stale: it was changed",
        "verify": "not yet",
    }


@pytest.mark.parametrize(("images", "rows"), [(1, 0), (2, 2), (MOST_IMAGES, MOST_IMAGES), (MOST_IMAGES + 1, 0)])
def test_small_sets_are_shown_image_by_image(images: int, rows: int) -> None:
    text = drawn(facts(**verdict(images, passed=True)))
    assert text.count("photo") - text.count("photographs") == text.count("[x]") == rows
    assert re.search(rf"Set, mean of {images} +31.00 +31.50 +\+0.50 +0.9000 +0.9100", text)


def test_several_sets_have_a_mean_over_all() -> None:
    found = verdict(2, passed=True)
    found["quality"]["Other"] = found["quality"]["Set"]
    assert re.search(r"all, mean of 4 +31.00 +31.50", drawn(facts(**found)))
    assert "all, mean of" not in drawn(facts(**verdict(2, passed=True)))


@pytest.mark.parametrize("columns", [80, 140])
@pytest.mark.parametrize(("passed", "word"), [(True, "passed"), (False, "FAILED")])
def test_verdict_and_parity(passed: bool, word: str, columns: int) -> None:
    text = drawn(facts(**verdict(1, passed=passed)), columns)
    assert "…" not in text
    assert re.search(rf"plain form +80.0 +90 +0.0250, 0.2500 +{word}", text)
    assert re.search(rf"plain form +0.0 +90 +0.0250, 0.2500 +{word}", text)
    assert re.search(rf"verdict +{word}", text)
    assert ("forms [differ]" in text) is not passed
    assert re.search(r"360x640 .+\n +2 CPU threads .+\n +openvino bf16 +12.35 +13.00 +20.00", text)


def test_what_did_not_run_is_listed_by_its_reason() -> None:
    missing = [("a", "no GPU"), ("b", "not installed"), ("c", "no GPU")]
    not_run = [{"candidate": candidate, "reason": reason} for candidate, reason in missing]
    text = drawn(facts(**verdict(1, passed=True), not_run=not_run))
    assert "a, c: not run: no GPU" in text
    assert "b: not run: not installed" in text


def test_progress_is_a_line_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with ProgressBar("work") as bar:
        for done in range(1, 101):
            clock[0] += 0.25
            bar(done, 100, f"figure {done}", "" if done < 50 else "more")
    captured = capsys.readouterr()
    shown = [re.sub(r" +[\d.]+ s left", "", line) for line in captured.err.splitlines()]
    assert shown == ["work 40/100  figure 40", "more 80/100  figure 80", "more 100/100  figure 100"]
    assert re.search(r"80/100  figure 80  \d+ s left", captured.err)
    assert captured.out == ""


@pytest.mark.parametrize("columns", [120, 80])
def test_progress_is_a_bar_in_a_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    figures = "loss 0.0234  31.23 dB  3.6G MACs  15.7K params  97% of the budget"
    with ProgressBar("work") as bar:
        bar(30, 100, figures, "photo[x]")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert re.search(r"30/100 +-:--:--", shown)
    for figure in figures.split("  "):
        assert figure in shown
    assert "photo[x]" in shown
    assert "━" in shown


@pytest.mark.parametrize(("latency", "shown"), [(None, ""), (8.714, "about 8.71 ms  ")])
def test_search_figures_are_of_the_delivered_network(latency: float | None, shown: str) -> None:
    progress = Progress(
        step=10, steps=100, phase="search", loss=0.02345, psnr_y=31.234, macs=3_600_000_000, params=15_700,
        latency_ms=latency, share=0.973, candidates=4,
    )  # fmt: skip
    assert search_figures(progress) == f"loss 0.0234  31.23 dB  3.6G MACs  15.7K params  {shown}97% of the budget"


@pytest.mark.parametrize(
    ("bound", "measured", "text"),
    [
        (None, True, "8.71 ms measured, no bound"),
        (10.0, True, "8.71 ms measured, 87.1% of the budget of 10 ms on board"),
        (10.0, False, "8.71 ms predicted, 87.1% of the budget of 10 ms on board"),
    ],
)
def test_latency_stands_beside_its_budget(bound: float | None, measured: bool, text: str) -> None:
    budget = {**facts()["budget"], "latency_ms": bound, "profile": "board"}
    cost = {**facts()["cost"], "latency_ms": 8.714}
    assert text in drawn(facts(cost=cost, budget=budget, latency_measured=measured))
