import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, StaleArtifact
from pipeline.export import export
from pipeline.report_facts import facts_from_files


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run / "run", tmp_path / "run"))


def test_finished_run_is_read_whole(run: Path) -> None:
    facts = facts_from_files(run)
    assert (facts.passed, facts.missing) == (True, {})
    assert [*facts.manifests] == ["search", "export", "verify"]
    assert facts.models == {name: (run / "export" / name).stat().st_size for name in ("model.onnx", "model.fp16.onnx")}
    assert facts.architecture is not None
    assert facts.architecture.id == facts.verify["architecture_id"]
    assert [row["step"] for row in facts.history] == [1, 12]
    assert [row["radius"] for row in facts.history] == [0.0, 1.0]
    assert [crops.name for crops in facts.crops] == [example["name"] for example in facts.verify["examples"]]
    assert all(crops.truth.startswith(b"\x89PNG") for crops in facts.crops)
    assert facts.picture is None


def test_picture_stands_for_crops_that_were_not_kept(run: Path, change_report: Callable[..., None]) -> None:
    change_report(run, examples=[])
    facts = facts_from_files(run)
    assert (facts.crops, facts.picture) == ([], (run / "verify" / "comparison.png").read_bytes())


def spoil(run: Path, how: str) -> None:
    match how:
        case "not verified":
            shutil.rmtree(run / "verify")
        case "exported again":
            export(run, ["fp16"])
        case "weights changed":
            (run / "search" / "weights.safetensors").write_bytes(b"mine")
        case "crop changed":
            next((run / "verify" / "crops").iterdir()).write_bytes(b"mine")


@pytest.mark.parametrize(
    ("how", "shown", "stage", "why"),
    [
        ("not verified", ["search", "export"], "verify", "not finished; run `sr-pipeline verify"),
        ("exported again", ["search", "export"], "verify", "was written again since"),
        ("weights changed", ["export", "verify"], "search", "weights.safetensors was changed since"),
        ("crop changed", ["search", "export"], "verify", "was changed since verify wrote it"),
    ],
)
def test_what_does_not_count_is_left_out_and_there_is_no_verdict(
    run: Path, how: str, shown: list[str], stage: str, why: str
) -> None:
    spoil(run, how)
    facts = facts_from_files(run)
    assert (facts.passed, [*facts.missing]) == (None, [stage])
    assert why in facts.missing[stage]
    assert [*facts.manifests] == shown
    assert bool(facts.verify) == ("verify" in shown)
    assert bool(facts.search) == ("search" in shown)


def test_without_a_search_nothing_is_left_to_show(run: Path) -> None:
    (run / "search" / "manifest.json").unlink()
    with pytest.raises(StaleArtifact, match="has no finished search") as caught:
        facts_from_files(run)
    assert "sr-pipeline search -o" in caught.value.hint


def test_run_without_anything_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run at"):
        facts_from_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StaleArtifact, match="has no finished search"):
        facts_from_files(tmp_path / "empty")
    for stage in ("export", "verify"):
        shutil.rmtree(run / stage)
    (run / "search" / "weights.safetensors").write_bytes(b"mine")
    with pytest.raises(StaleArtifact, match="was changed since"):
        facts_from_files(run)
