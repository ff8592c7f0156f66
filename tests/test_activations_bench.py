"""The benchmark of activations, on a frame that takes no time."""

import json

import pytest

from pipeline.architecture import ACTIVATIONS
from tests.bench import activations


def test_every_activation_is_timed_beside_relu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["activations", "--lr-size", "12", "16", "--threads", "1", "--rounds", "2"])
    activations.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["passed"]
    assert "onnxruntime fp32" in found["ms"]
    for candidate, row in found["ms"].items():
        assert {*row} == {*ACTIVATIONS}
        assert found["ratios"][candidate]["acon"] == pytest.approx(row["acon"] / row["relu"])
