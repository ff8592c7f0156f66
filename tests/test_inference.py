from pathlib import Path

from pipeline.manifest import write_json
from pipeline.peer_figures import PUBLISHED, peers_from_file
from tests.bench.inference import timed_peers
from tests.bench.subjects import OURS, PEERS


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
