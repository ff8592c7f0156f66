import json
from pathlib import Path

import pytest

from deploy.openers import CANDIDATES
from deploy.probe import main, probe_in_own_process
from deploy.runners import DeployError

FIGURES = {"load_ms", "first_ms", "peak_memory_mib", "model_bytes"}
HERE = [("onnxruntime", "fp32"), ("openvino", "fp32")]


@pytest.mark.parametrize(("runtime", "precision"), HERE)
def test_a_fresh_process_tells_what_a_model_takes(model_path: Path, runtime: str, precision: str) -> None:
    small = probe_in_own_process(model_path, runtime, precision, (16, 24), 1)
    large = probe_in_own_process(model_path, runtime, precision, (1200, 1600), 1)
    assert small.keys() == FIGURES
    assert all(value > 0 for value in small.values())
    assert small["model_bytes"] == model_path.stat().st_size
    # 3 channels in and 12 out, and the same once more in the SR image: at least 60 MB more.
    assert large["peak_memory_mib"] > small["peak_memory_mib"] + 50


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"onnxruntime fp32 fails on .*missing\.onnx: error: no model at"):
        probe_in_own_process(tmp_path / "missing.onnx", "onnxruntime", "fp32", (16, 24), None)


def test_the_command_prints_json(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(model_path), "onnxruntime", "fp32", "16x24", "--threads", "1"])
    assert json.loads(capsys.readouterr().out).keys() == FIGURES


@pytest.mark.parametrize("size", ["16", "16x", "x", "0.5x3"])
def test_a_size_that_is_none_is_refused(model_path: Path, size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(model_path), "onnxruntime", "fp32", size])
    assert ended.value.code == 2
    assert "is no height x width" in capsys.readouterr().err


def test_every_candidate_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(runtime in shown and precision in shown for runtime, precision in CANDIDATES)
