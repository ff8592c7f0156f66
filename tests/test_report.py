import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import errors
from pipeline.cli import main
from pipeline.report import default_page, report


def written(*runs: Path, **others: Any) -> tuple[str, str]:
    """The page and its twin."""
    page, twin = (Path(path).read_text(encoding="utf-8") for path in report(runs, **others)["written"])
    return page, twin


def test_page_and_twin_tell_the_run(measured_run: Path) -> None:
    told = report([measured_run])
    assert told["written"] == [str(measured_run / "report" / name) for name in ("report.html", "report.md")]
    assert told["runs"] == [{"run": str(measured_run), "passed": True, "missing": {}}]
    for text in written(measured_run):
        verdict, first = text.lower().index("passed"), text.index("Latency")
        assert verdict < first
        for part in (
            *("12.00", "13.20", "18.00", "83.3", "31.0", "40.0", "123 MiB", "64.1 kB", "A processor"),  # latency
            *("tensorrt fp16", "not run: no NVIDIA GPU", "desk", "12.50 ms"),
            *("onnxruntime fp16", "held-out", "cup", "spoon", "DepthToSpace", "80.0%"),
            " over bicubic, onnxruntime fp32, mean of 2 photographs",
            *("sr-pipeline search -o", "sr-pipeline export", "sr-pipeline verify", "in turns", "processor", "python"),
        ):
            assert part in text, part


def test_page_draws_and_shows_photographs(measured_run: Path) -> None:
    page, twin = written(measured_run)
    titles = ("time for one frame", "quality against latency", "quality against MACs", "the architecture", "radius")
    assert all(f'aria-label="{title}' in page for title in titles)
    assert page.count("data:image/png;base64,") == 8
    assert "<svg" not in twin
    assert "base64" not in twin


@pytest.mark.parametrize(
    ("gain", "tone", "words"),
    [(0.5, "good", "Where the network gains most"), (-0.5, "bad", "on no photograph. Here it loses least.")],
)
def test_loss_is_no_gain(
    measured_run: Path, change_report: Callable[..., None], gain: float, tone: str, words: str
) -> None:
    verified = json.loads((measured_run / "verify" / "report.json").read_text())
    images = verified["quality"]["held-out"]["images"]
    for row in [*images, *verified["examples"]]:
        row["psnr_y"] = row["bicubic_psnr_y"] + gain
    change_report(measured_run, quality=verified["quality"], examples=verified["examples"])
    page, twin = written(measured_run)
    assert page.count(f'<span class="{tone}">{gain:+.2f}</span>') == len(images)
    assert all(words in text for text in (page, twin))


def test_page_asks_the_network_for_nothing(measured_run: Path) -> None:
    page, _ = written(measured_run)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|\#)|url\(|@import|<script""", page)


def test_names_are_shown_as_they_are(measured_run: Path, change_report: Callable[..., None]) -> None:
    name = "<img src=x onerror=alert(1)>|*a*`b`@team"
    quality = json.loads((measured_run / "verify" / "report.json").read_text())["quality"]
    quality["held-out"]["images"][0]["name"] = name
    failures = [{"kind": "parity", "message": f"worst on {name}"}]
    change_report(measured_run, quality=quality, failures=failures, passed=False)
    page, twin = written(measured_run)
    assert "<img src=x" not in page + twin
    assert "&lt;img src=x onerror=alert(1)&gt;|*a*" in page
    assert "@team" not in twin
    rows = {row.replace("\\|", "").count("|") for row in twin.splitlines() if "onerror" in row and row.startswith("|")}
    assert rows == {7}


def test_failed_verdict_says_why(measured_run: Path, change_report: Callable[..., None]) -> None:
    failures = [{"kind": "parity", "message": "fp16 and training form agree to 12 dB"}]
    change_report(measured_run, passed=False, failures=failures)
    page, twin = written(measured_run)
    assert "FAILED</b>" in page
    assert "## ❌ failed" in twin
    assert all(text.count("agree to 12 dB") == 1 for text in (page, twin))


def test_run_of_an_earlier_version_says_what_was_not_measured(
    measured_run: Path, change_report: Callable[..., None]
) -> None:
    report_file = measured_run / "verify" / "report.json"
    earlier = json.loads(report_file.read_text())
    for name in ("latency", "profile", "layers", "not_run", "examples"):
        del earlier[name]
    report_file.write_text(json.dumps(earlier))
    change_report(measured_run)
    page, twin = written(measured_run)
    for text in (page, twin):
        assert text.count("Not measured: ") == 2  # latency and layers
        assert "model.fp16.onnx" in text
    assert page.count("data:image/png;base64,") == 1  # comparison.png
    assert 'aria-label="quality against MACs"' in page


@pytest.mark.parametrize(("gone", "left"), [("verify", "Architecture"), ("export", "Search")])
def test_missing_stage_is_named_and_the_rest_is_shown(measured_run: Path, gone: str, left: str) -> None:
    (measured_run / gone / "manifest.json").unlink()
    page, twin = written(measured_run)
    assert "NO VERDICT</b>" in page
    for text in (page, twin):
        assert f"{gone}: not finished; run " in text
        assert left in text


def test_several_runs_are_compared_first(measured_run: Path) -> None:
    other = Path(shutil.copytree(measured_run, measured_run.with_name("other")))
    shutil.rmtree(other / "verify")
    told = report([measured_run, other, measured_run])
    assert told["written"][0] == str(measured_run.parent / "report.html")
    page, twin = (Path(path).read_text() for path in told["written"])
    assert page.count("<article") == 2
    assert page.index("2 runs") < page.index("<article")
    table = [row for row in twin.splitlines() if row.startswith("| ")]
    head, first, second = table[:3]
    columns = "run | verdict | LR size | MACs | share of budget | params | held-out dB | gain | fastest ms"
    assert head.startswith(f"| {columns} |")
    assert " | 10×10 | " in first
    assert "12.00 (onnxruntime fp32)" in first
    assert second.endswith("| – | – | not measured |")


def test_peers_of_a_file_are_drawn(measured_run: Path, tmp_path: Path) -> None:
    peers = [{"name": "rival", "psnr_y": {"held-out": 30.0}, "macs": 10**9, "latency_ms": {"onnxruntime fp32": 9.75}}]
    (tmp_path / "peers.json").write_text(json.dumps(peers))
    page, twin = written(measured_run, peers=tmp_path / "peers.json")
    assert page.count(">rival</text>") == 2
    assert "quality against latency, onnxruntime fp32" in page
    assert re.search(r"\| rival \| 30.00 \| 1G \| 9.75 \|", twin)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["{folder}/nowhere"], errors.ConfigError, "no run at"),
        (["{folder}"], errors.StaleArtifact, "has no finished search"),
        (["{run}", "-o", "{folder}/page.pdf"], errors.ConfigError, "page.pdf is no name of a page"),
        (["{run}", "-o", "{folder}/file/page.html"], errors.ConfigError, "cannot write"),
        (["{run}", "--peers", "{folder}/file"], errors.ConfigError, "file is not JSON from line 1"),
        (["{run}", "{run}/search"], errors.ConfigError, "the runs are in several folders"),
        ([], errors.ConfigError, "Missing argument"),
    ],
)
def test_mistake_leaves_nothing_behind(
    measured_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    error: type[errors.PipelineError],
    message: str,
) -> None:
    (tmp_path / "file").write_text("no folder")
    before = {*tmp_path.rglob("*")}
    given = [argument.format(folder=tmp_path, run=measured_run) for argument in arguments]
    assert main(["report", *given]) == error.exit_code
    shown = capsys.readouterr().err
    assert message in shown
    assert "hint: " in shown
    assert {*tmp_path.rglob("*")} == before


def test_command_tells_what_it_wrote(measured_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "new" / "page.html"
    assert main(["report", str(measured_run), "-o", str(page), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["written"] == [str(page), str(page.with_suffix(".md"))]
    assert page.is_file()


def test_page_of_several_runs_stands_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    for runs in ([Path(), Path("../two")], [Path("../two"), Path()]):
        assert default_page(runs).resolve() == tmp_path / "report.html"
