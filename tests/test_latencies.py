from pathlib import Path

import numpy as np
import pytest

from deploy.runners import Frame
from pipeline.backends import open_model
from pipeline.latencies import Progress, time_forms
from pipeline.workload import Task, calibration_architecture, model_from_architecture


def test_nothing_is_timed_where_nothing_runs(tmp_path: Path) -> None:
    assert time_forms({}, tmp_path, (8, 8)) == ([], {})


@pytest.mark.usefixtures("cuda_driver")
def test_what_is_no_onnx_model_is_timed_without_a_start(small_run: Path) -> None:
    class Engine:
        """A runner whose file no other process can open."""

        def __init__(self) -> None:
            self.runner = open_model(small_run / "run" / "export" / "model.onnx")
            self.metadata = self.runner.metadata

        def infer(self, frame: Frame) -> Frame:
            return self.runner.infer(np.asarray(frame))

    seen: list[Progress] = []
    forms = {"tensorrt fp32": Engine(), "onnxruntime fp32": open_model(small_run / "run" / "export" / "model.onnx")}
    rows, layers = time_forms(forms, small_run / "run" / "export", (24, 32), seen.append)  # type: ignore[arg-type]
    assert [row["candidate"] for row in rows] == [*forms]
    assert rows[0]["device"] == "NVIDIA Test"
    assert rows[0]["load_ms"] is rows[0]["peak_memory_mib"] is None
    assert rows[1]["load_ms"] > 0
    assert layers.keys() == {"onnxruntime fp32"}
    assert sum(layer["ms"] for layer in layers["onnxruntime fp32"]) > 0
    total = seen[-1].total
    assert seen[-1] == Progress(total, total, "latency, all forms in turns")
    assert total / 2 <= rows[0]["runs"] <= total


def test_size_that_the_network_does_not_take_is_rounded_up(tmp_path: Path) -> None:
    network = calibration_architecture(Task(2, "rgb", (8, 8), unshuffle=2))
    (tmp_path / "model.onnx").write_bytes(model_from_architecture(network, "onnxruntime", "fp32"))
    with open_model(tmp_path / "model.onnx") as runner:
        (row,), _ = time_forms({"onnxruntime fp32": runner}, tmp_path, (11, 16))
    assert row["lr_size"] == [12, 16]
