import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.peer_figures import PUBLISHED, TRAINED, Peer, peers_from_file

GOOD = {"name": "FSRCNN", "psnr_y": {"Set5": 36.9}}


def test_peers_are_read(tmp_path: Path) -> None:
    whole = GOOD | {"macs": 6_000_000_000, "latency_ms": {"openvino bf16": 9.5}, "trained": "same images and steps"}
    (tmp_path / "peers.json").write_text(json.dumps([GOOD, whole]))
    first, second = peers_from_file(tmp_path / "peers.json")
    assert first == Peer("FSRCNN", {"Set5": 36.9})
    assert (second.macs, second.latency_ms, second.trained) == (
        6_000_000_000, {"openvino bf16": 9.5}, "same images and steps",
    )  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        None,
        "[",
        "{}",
        "[1]",
        [GOOD | {"psnr": 3}],
        [{"name": "x"}],
        [GOOD | {"psnr_y": {}}],
        [GOOD | {"psnr_y": {"Set5": "high"}}],
        [GOOD | {"psnr_y": {"Set5": float("nan")}}],
        [GOOD | {"psnr_y": [36.9]}],
        [GOOD | {"macs": -1}],
        [GOOD | {"macs": True}],
        [GOOD | {"latency_ms": {"openvino bf16": 0}}],
        [GOOD | {"name": 3}],
        [GOOD | {"name": ""}],
        [GOOD | {"trained": 3}],
    ],
    ids=str,
)
def test_what_holds_no_peers_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "peers.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError, match=r"peers\.json") as caught:
        peers_from_file(path)
    assert "psnr_y" in caught.value.hint


def test_published_figures() -> None:
    assert {peer.trained for peer in PUBLISHED} == {TRAINED}
    assert len({peer.name for peer in PUBLISHED}) == len(PUBLISHED)
    (fsrcnn,) = (peer for peer in PUBLISHED if peer.name == "FSRCNN")
    assert (fsrcnn.macs, fsrcnn.psnr_y["Set14"]) == (6_000_000_000, 32.63)
