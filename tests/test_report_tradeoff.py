import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.peer_figures import Peer
from pipeline.report_document import Pictures, Table, Words
from pipeline.report_facts import Facts, facts_from_files
from pipeline.report_tradeoff import _common, tradeoff_section


@pytest.fixture
def facts(measured_run: Path) -> Facts:
    return facts_from_files(measured_run)


def renamed(facts: Facts, *names: str, **verify: Any) -> Facts:
    """As if it had been verified on sets of these names, with all images in each."""
    means = facts.verify["quality"]["held-out"]
    return replace(facts, verify=facts.verify | {"quality": dict.fromkeys(names, means)} | verify)


def pictures(*runs: Facts, peers: list[Peer] | None = None) -> Pictures:
    (found,) = (block for block in tradeoff_section(runs, peers).blocks if isinstance(block, Pictures))
    return found


def labels(svg: str, kind: str) -> list[str]:
    return re.findall(rf'class="{kind}-text"[^>]*>([^<]+)<', svg)


def test_published_peers_of_a_known_benchmark(facts: Facts) -> None:
    found = pictures(renamed(facts, "Set5", "Set14", cost={"macs": 3_000_000_000, "params": 1}))
    assert "Set14" in found.caption  # more peers near in cost state it
    assert "trained on DIV2K" in found.caption
    latency, macs = found.svgs
    assert labels(latency, "ours") == ["onnxruntime fp32", "onnxruntime fp16"]
    assert labels(latency, "bound") == labels(macs, "bound") == ["budget"]
    assert labels(macs, "ours") == ["ours"]
    assert {"FSRCNN", "SESR-M5", "ECBSR-M16C64"} <= {*labels(macs, "peer")}


def test_no_peers_for_another_scale_or_other_photographs(facts: Facts) -> None:
    assert facts.architecture is not None
    found = pictures(facts)
    assert "No peers are drawn: published figures are for x2 on Set5, Set14, B100" in found.caption
    assert not labels(found.svgs[-1], "peer")
    other = replace(facts.architecture, scale=3, shuffle=3)
    assert "No peers" in pictures(replace(renamed(facts, "Set5"), architecture=other)).caption


def test_peers_that_were_timed_get_a_chart_for_each_candidate(facts: Facts) -> None:
    timed = Peer("rival", {"held-out": 30.0}, latency_ms={"onnxruntime fp16": 9.0, "openvino bf16": 4.0})
    latency, macs = pictures(facts, peers=[timed]).svgs
    assert "onnxruntime fp16" in latency
    assert (labels(latency, "ours"), labels(latency, "peer")) == (["ours"], ["rival"])
    assert labels(macs, "peer") == []


def test_several_runs_are_told_apart(facts: Facts) -> None:
    other = replace(facts, run="runs/other")
    fastest, slowest, macs = pictures(facts, other).svgs
    assert [labels(svg, "ours") for svg in (fastest, slowest, macs)] == [["small", "other"]] * 3


def x_title(svg: str) -> str:
    texts: list[str] = re.findall(r">([^<]+)<", svg)
    return next(text for text in texts if " LR " in text or " frame " in text)


def test_frames_of_several_sizes_are_not_drawn_together(facts: Facts) -> None:
    rows = [row | {"lr_size": [20, 10]} for row in facts.verify["latency"]]
    budget = facts.verify["budget"] | {"lr_size": [20, 10], "macs": 2 * facts.verify["budget"]["macs"]}
    cost = facts.verify["cost"] | {"macs": 2 * facts.verify["cost"]["macs"]}
    taller = replace(facts, run="runs/tall", verify=facts.verify | {"latency": rows, "budget": budget, "cost": cost})
    peer = Peer("rival", {"held-out": 30.0}, macs=10**6, latency_ms={"onnxruntime fp32": 9.0})
    for peers in (None, [peer]):
        found = pictures(facts, taller, peers=peers)
        *latency, macs = found.svgs
        assert [(labels(svg, "ours"), x_title(svg)[-6:]) for svg in latency] == [
            (["small"], " 10×10"),
            (["tall"], " 20×10"),
        ] * 2
        assert not any(labels(svg, "peer") for svg in latency)
        assert (labels(macs, "ours"), x_title(macs)) == (["small", "tall"], "MACs at LR 10×10")
        assert labels(macs, "bound") == ["budget"]  # the same for each pixel
        assert "frames of several LR sizes" in found.caption
    assert "several LR sizes" not in pictures(facts, replace(facts, run="runs/other")).caption


def test_budgets_that_differ_are_no_line(facts: Facts) -> None:
    budget = facts.verify["budget"] | {"macs": 10**6}
    other = replace(facts, run="runs/other", verify=facts.verify | {"budget": budget})
    assert labels(pictures(facts, other).svgs[-1], "bound") == []


@pytest.mark.parametrize(
    ("first", "second", "mean_over"),
    [
        (["A"], ["A"], "all photographs"),
        (["A", "B"], ["A", "B"], "all photographs"),
        (["A", "B"], ["B", "C"], "B"),  # its mean, not that of all: the runs have other photographs beside it
        (["A"], ["B"], None),
    ],
)
def test_runs_are_drawn_together_only_on_what_is_common(
    facts: Facts, first: list[str], second: list[str], mean_over: str | None
) -> None:
    runs = [renamed(facts, *first), replace(renamed(facts, *second), run="runs/other")]
    blocks = tradeoff_section(runs, None).blocks
    if mean_over is None:
        (told,) = blocks
        assert isinstance(told, Words)
        assert (told.tone, "no benchmark is common" in told.text, "runs/other: B" in told.text) == ("bad", True, True)
    else:
        assert f"Mean over {mean_over}," in pictures(*runs).caption


def test_benchmark_of_other_photographs_is_not_common(facts: Facts) -> None:
    means = facts.verify["quality"]["held-out"]
    fewer = means | {"images": means["images"][:1]}
    other = replace(facts, verify=facts.verify | {"quality": {"held-out": fewer}})
    (told,) = tradeoff_section([facts, other], None).blocks
    assert isinstance(told, Words)


def test_without_times_macs_stand_for_them(facts: Facts) -> None:
    blocks = tradeoff_section([renamed(facts, "Set5", latency=[])], None).blocks
    assert any(isinstance(block, Words) and "do not rank latency" in block.text for block in blocks)
    assert any(isinstance(block, Table) and block.caption == "peers" for block in blocks)
    assert tradeoff_section([replace(facts, verify={})], None).blocks == []


def test_photographs_at_another_scale_are_not_common(facts: Facts) -> None:
    other = copy.deepcopy(facts)
    for means in other.verify["quality"].values():
        for image in means["images"]:
            image["lr_size"] = [side // 2 for side in image["lr_size"]]
    assert _common([facts, facts])
    assert not _common([facts, other])
