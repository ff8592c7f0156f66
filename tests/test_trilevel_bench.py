"""The benchmark of the trilevel search, with a few small steps on small images."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bench import trilevel
from tests.bench.figures import MEASURED, TRAINED


def test_search_and_published_network_are_trained_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for folder in (*TRAINED, *(f"benchmarks/{name}" for name in MEASURED)):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8)).save(tmp_path / folder / "image.png")
    trilevel.main(["--steps", "3", "--batch", "1", "--patch", "8", "--precision", "fp32", "--data", str(tmp_path)])
    found = json.loads(capsys.readouterr().out)
    assert found["search"]["cut_step"] == 1
    assert 0.9 <= found["search"]["share"] <= 1.0
    assert found["search"]["cut_gap_db"] == pytest.approx(0.0, abs=1e-3)
    assert found["B-1"]["steps"] >= 1
    gain = found["search"]["psnr_y"]["mean"] - found["B-1"]["psnr_y"]["mean"]
    assert found["gain_db"] == pytest.approx(gain)
    assert found["passed"] == (gain >= 0.0 and found["B-1"]["seconds"] >= 0.95 * found["search"]["seconds"])
