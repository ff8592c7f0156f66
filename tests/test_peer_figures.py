import json
import re
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


FIGURES = "needs figures above 0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*: No such file"),
        (b"[", "is not JSON from line 1, column 2"),
        (b"\xff\xfe", "is not JSON: it is no text in UTF-8"),
        ({}, "it is no list"),
        ([GOOD, 1], "entry 2 is no object"),
        ([GOOD | {"psnr": 3}], "entry 1 has the unknown field 'psnr'$"),
        ([{"name": "x"}], "entry 1 has no psnr_y$"),
        ([{"psnr": 3}], "entry 1 has no name and no psnr_y and the unknown field 'psnr'$"),
        ([GOOD | {"psnr_y": {}}], FIGURES),
        ([GOOD | {"psnr_y": {"Set5": "high"}}], FIGURES),
        ([GOOD | {"psnr_y": {"Set5": float("nan")}}], FIGURES),
        ([GOOD | {"psnr_y": [36.9]}], "psnr_y and latency_ms of FSRCNN are objects"),
        ([GOOD | {"macs": -1}], FIGURES),
        ([GOOD | {"macs": True}], FIGURES),
        ([GOOD | {"macs": "1G"}], FIGURES),
        ([GOOD | {"latency_ms": {"openvino bf16": 0}}], FIGURES),
        ([GOOD | {"latency_ms": 9.5}], "psnr_y and latency_ms of FSRCNN are objects"),
        ([GOOD | {"name": 3}], "are texts"),
        ([GOOD | {"name": ""}], "are texts"),
        ([GOOD | {"trained": 3}], "are texts"),
    ],
    ids=str,
)
def test_what_holds_no_peers_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "peers.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ConfigError, match=r"peers\.json") as caught:
        peers_from_file(path)
    assert re.search(message, caught.value.message)
    assert not re.search("Error|__init__|argument|attribute", caught.value.message)
    assert "psnr_y" in caught.value.hint


def test_published_figures() -> None:
    assert {peer.trained for peer in PUBLISHED} == {TRAINED}
    assert len({peer.name for peer in PUBLISHED}) == len(PUBLISHED)
    (fsrcnn,) = (peer for peer in PUBLISHED if peer.name == "FSRCNN")
    assert (fsrcnn.macs, fsrcnn.psnr_y["Set14"]) == (6_000_000_000, 32.63)
