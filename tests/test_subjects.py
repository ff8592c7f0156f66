from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from deploy.openers import open_candidate
from tests.bench.board_file import RESULTS, read_results
from tests.bench.machine import peak_macs
from tests.bench.subjects import DELIVERED, OURS, PEERS, PLAIN, Subject, architectures, bytes_moved, subjects, write

SIZE = (12, 20)


@pytest.fixture(scope="module")
def every() -> dict[str, Subject]:
    return {subject.name: subject for subject in subjects(SIZE)}


def test_delivered_networks_are_those_of_the_scoreboard(every: dict[str, Subject]) -> None:
    lines = {line["id"]: line for line in read_results(RESULTS) if line["kind"] == "ours at peer"}
    for peer, delivered in DELIVERED.items():
        line = lines[delivered]
        assert (line["peer"], line["runtime"]) == (peer, "onnxruntime fp32")
        assert every[f"ours for {peer}"].macs / (SIZE[0] * SIZE[1]) == line["macs"]
        assert peer in PEERS  # timed beside it
    convs = [cell.ops for cell in architectures()[OURS].cells]
    assert convs == [("conv3", "conv3", "conv3")]  # beside stem and tail


def test_plain_export_is_the_same_function(every: dict[str, Subject]) -> None:
    frame = np.random.default_rng(0).random((1, 3, *SIZE), np.float32)
    outputs = {}
    for name in (OURS, PLAIN):
        model = every[name].model.SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        outputs[name] = session.run(None, {"lr": frame})[0]
    np.testing.assert_allclose(outputs[OURS], outputs[PLAIN], atol=1e-5)
    assert every[OURS].model.graph.node != every[PLAIN].model.graph.node


def test_bytes_are_counted_by_layer(every: dict[str, Subject]) -> None:
    pixels = SIZE[0] * SIZE[1]
    for name, feature in ((OURS, 4), (OURS, 2), (PLAIN, 4)):
        features = 16 + 3 * (16 + 16) + (16 + 12)  # stem, 3 convolutions, tail
        features += 12 + 12 + 12 + 12  # skip; the sum of both, which reads one; shuffle
        frame = 3 + 3 + 12  # read twice, written once, always in float32
        weights = 3 * 9 * 16 + 3 * 9 * 16 * 16 + 9 * 16 * 12 + 3 * 9 * 12 + 4 * 16 + 12
        weights += 12 * 4 * (name == OURS)  # of the transposed convolution that shuffles
        found = bytes_moved(every[name].model, SIZE, feature)
        assert found == pixels * (feature * features + 4 * frame) + feature * weights


def test_every_subject_can_be_written(every: dict[str, Subject], tmp_path: Path) -> None:
    for (name, subject), stored in product(every.items(), ("fp16", "int8")):
        path = tmp_path / "model.onnx"
        write(subject, "onnxruntime", stored, path)
        frame = np.random.default_rng(0).random((1, subject.channels, *SIZE), np.float32)
        with open_candidate(path, "onnxruntime", stored, 1) as runner:
            assert runner.infer(frame).shape == (1, subject.channels, 2 * SIZE[0], 2 * SIZE[1]), name
        assert bytes_moved(subject.model, SIZE, 1) > 0


def test_peak_is_measured_in_both_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    small = (("MatMul", (64, 64), (64, 64)), ("Conv", (1, 4, 16, 16), (4, 4, 3, 3)))
    monkeypatch.setattr("tests.bench.machine.FILLING", small)
    for candidate in (("onnxruntime", "int8"), ("openvino", "fp32")):
        assert peak_macs(*candidate, threads=1) > 0
