"""What the benchmark of latency budgets concludes from its rows; the searches themselves take an hour."""

import json
from dataclasses import replace

import pytest

from tests.bench import budget
from tests.bench.budget import Row

MET = Row("desk", 20.0, 19.0, 3, 18.5, 1.02, 0.925, True, "edge")
MISSED = Row("desk", 5.0, None, 0, None, None, None, False, "")


@pytest.mark.parametrize(
    ("rows", "met", "share", "passed"),
    [
        ([MET, MET], 2, 0.925, True),
        ([MET, MISSED], 1, 0.925, False),
        ([MET, replace(MET, share=1.01, met=False)], 1, 0.9675, False),
        ([replace(MET, share=0.85)], 1, 0.85, False),
        ([MISSED], 0, 0.0, False),
    ],
)
def test_all_budgets_are_met_and_mostly_used(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rows: list[Row],
    met: int,
    share: float,
    passed: bool,
) -> None:
    monkeypatch.setattr("sys.argv", ["budget", "epyc-2c-onnxruntime-fp32"])
    monkeypatch.setattr(budget, "rows_of_profile", lambda *_: rows)
    budget.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["met"], told["of"], told["passed"]) == (met, len(rows), passed)
    assert told["median_share"] == pytest.approx(share)
    (origin,) = told["profiles"].values()
    assert "AMD" in origin["device"]["cpu"]
