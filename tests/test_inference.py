from pathlib import Path

import pytest

from pipeline.manifest import write_json
from pipeline.peer_figures import PUBLISHED, peers_from_file
from tests.bench import inference, machine
from tests.bench.inference import compared, show, timed_peers
from tests.bench.subjects import OURS, PEERS, PLAIN, subjects


def test_timed_peers_are_read_by_a_report(tmp_path: Path) -> None:
    times = {"onnxruntime fp32": 112.0, "openvino bf16": 197.8}
    untold = {"onnxruntime int8": 60.0}  # nobody published their PSNR in INT8
    rows = [
        {"network": name, "candidate": candidate, "median_ms": ms}
        for candidate, ms in (times | untold).items()
        for name in (OURS, *PEERS)
    ]
    write_json(tmp_path / "peers.json", timed_peers(rows))
    peers = peers_from_file(tmp_path / "peers.json")
    known = {peer.name: peer for peer in PUBLISHED}
    assert [peer.name for peer in peers] == ["FSRCNN", "ESPCN", "SESR-M5"]  # the others have no published figures
    for peer in peers:
        assert (peer.psnr_y, peer.macs, peer.latency_ms) == (known[peer.name].psnr_y, known[peer.name].macs, times)


def test_benchmark_of_small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    pair = [subject for subject in subjects((12, 20)) if subject.name in (OURS, PLAIN)]
    monkeypatch.setattr(inference, "subjects", lambda _: pair)
    monkeypatch.setattr(inference, "CANDIDATES", (("onnxruntime", "fp16"), ("openvino", "fp32")))
    monkeypatch.setattr(machine, "FILLING", (("MatMul", (64, 64), (64, 64)),))
    monkeypatch.setattr(machine, "COPIED", 2**20)
    found = compared((12, 20), threads=1, rounds=2)
    show(found)
    assert found["peak_gmacs"].keys() == {"fp32"}  # onnxruntime computes fp16 in it
    assert found["not_run"].keys() >= {"onnxruntime cuda fp32", "tensorrt int8"}
    half, single = found["export"]
    assert "DepthToSpace" in half["operations"][PLAIN]
    assert "ConvTranspose" in half["operations"][OURS]
    assert "DepthToSpace" in single["operations"][PLAIN]
    assert single["parity_db"] > 90
    assert not found["passed"]  # without what the goal is of
