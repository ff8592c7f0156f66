"""The benchmark of the trilevel search, with a few small steps on small images."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

from pipeline.data import load_pairs
from pipeline.training import Progress, Recipe
from tests.bench import trilevel
from tests.bench.figures import MEASURED, TRAINED
from tests.bench.trainer import Trainer


def test_search_and_published_network_are_trained_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for folder in (*TRAINED, *(f"benchmarks/{name}" for name in MEASURED)):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8)).save(tmp_path / folder / "image.png")
    trilevel.main(["--steps", "3", "--batch", "1", "--patch", "8", "--precision", "fp32", "--data", str(tmp_path)])
    found = json.loads(capsys.readouterr().out)
    assert found["date"]
    assert len(found["search_version"]) == 12
    assert found["search"]["cut_step"] == 1
    assert 0.9 <= found["search"]["share"] <= 1.0
    assert found["search"]["cut_gap_db"] == pytest.approx(0.0, abs=1e-3)
    gain = found["search"]["psnr_y"]["mean"] - found["B-1"]["psnr_y"]["mean"]
    assert found["gain_db"] == pytest.approx(gain)
    assert found["passed"] == (gain >= 0.0 and found["B-1"]["seconds"] >= 0.95 * found["search"]["seconds"])


def test_the_published_network_is_trained_in_turns_for_as_long() -> None:
    recipe = Recipe("trilevel", 4, "rgb", "sorted", 8, 1, 8, 4e-3, 0, precision="fp32", device="cpu")
    rival = trilevel.Rival(recipe, load_pairs(["scikit-image:test"], 4))
    rival.timed = cast(Trainer, SimpleNamespace(advance=lambda _: None, step_ms=2000.0))
    # A search of 2 slow steps, then 6 of a second each: 26 seconds, 13 steps of B-1 in the 2 that are left
    trained = []
    for step, seconds in enumerate([10, 20, 21, 22, 23, 24, 25, 26], 1):
        phase = "search" if step <= 2 else "train"
        rival.follow(Progress(step, 8, phase, 0.1, 30.0, 1, 1, None, 1.0, 1, seconds=float(seconds)))
        trained.append(rival.trainer.step if rival.trainer else 0)
    assert trained == [0, 0, 0, 0, 0, 0, 6, 13]
    assert rival.finished()["steps"] == 13
