import re
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.timing import Timing
from pipeline.architecture import Architecture, Cell
from pipeline.errors import ConfigError, PipelineError, StaleArtifact
from pipeline.latency import latency_model_from_profile
from pipeline.onnx_graph import GRAPH
from pipeline.profile import (
    DeviceProfile,
    Row,
    check_task,
    profile_from_toml,
    profile_path,
    save_profile,
    toml_from_profile,
)

TIMING = Timing(median_ms=12.5, p10_ms=12.0, p90_ms=13.0, p99_ms=14.125, runs=30)
CELLS = (
    Cell(("conv3", "conv5"), (16,)),
    Cell(("conv1",), (), residual=False),
    Cell(("conv5", "conv1", "conv3"), (4, 64)),
)


def network(*cells: Cell, **fields: object) -> Architecture:
    return Architecture(**{"space": "edge", "scale": 2, "color": "rgb", "width": 16, "path": cells, **fields})  # type: ignore[arg-type]


PROFILE = DeviceProfile(
    name="desk",
    runtime="openvino",
    precision="bf16",
    lr_size=(360, 640),
    threads=2,
    scale=2,
    color="rgb",
    device={"cpu": 'A "fast" \\ one ™', "odd key": "\x7f\n"},
    versions={"openvino": "2026.4", "sr-pipeline": "0.1.0"},
    created="2026-01-01T00:00:00+00:00",
    calibration=Row(network(CELLS[0]), TIMING),
    rows=(Row(network(), TIMING), Row(network(*CELLS, stem=5, tail=1, skip="conv3"), replace(TIMING, p99_ms=20.0))),
)


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_profile(profile_path("desk"), PROFILE)
    return tmp_path / "profiles" / "desk.toml"


@pytest.mark.parametrize(
    "profile",
    [
        PROFILE,
        replace(
            PROFILE,
            color="y",
            activation="prelu",
            unshuffle=2,
            calibration=Row(network(color="y", activation="prelu", unshuffle=2, shuffle=4), TIMING),
            rows=(Row(network(*CELLS, color="y", activation="prelu", unshuffle=2, shuffle=4), TIMING),),
        ),
    ],
    ids=["rgb", "luma of blocks"],
)
def test_file_holds_the_profile(profile: DeviceProfile, tmp_path: Path) -> None:
    save_profile(tmp_path / "here.toml", profile)
    assert profile_from_toml(tmp_path / "here.toml") == profile


def test_file_has_a_line_for_each_network() -> None:
    lines = toml_from_profile(PROFILE).splitlines()
    (row,) = [line for line in lines if "3-16-5+ 1 5-4-1-64-3+" in line]
    assert row.startswith("  { width = 16, stem = 5, cells = ")
    assert row.endswith("p99_ms = 20.0, runs = 30 },")


def test_name_is_a_file_in_the_folder_and_a_path_is_itself() -> None:
    assert profile_path("desk") == Path("profiles/desk.toml")
    assert profile_path("elsewhere/desk.toml") == Path("elsewhere/desk.toml")
    assert profile_path("desk.toml") == Path("desk.toml")


def test_layout_and_comments_may_change(saved: Path) -> None:
    saved.write_text("# mine\n" + saved.read_text().replace("  { width", "{ width"))
    assert profile_from_toml(saved) == PROFILE


@pytest.mark.usefixtures("saved")
def test_unknown_name_lists_the_profiles() -> None:
    save_profile(profile_path("attic"), PROFILE)
    with pytest.raises(
        ConfigError, match=r"no device profile at profiles/dsk.toml; profiles in profiles/: attic, desk"
    ):
        profile_from_toml(profile_path("dsk"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("median_ms = 12.5", "median_ms = 12.0", "was changed since it was measured", id="a time"),
        pytest.param("width = 16", "width = 24", "was changed since it was measured", id="a network"),
        pytest.param("sha256 =", "sha =", "sha256 is None", id="no hash"),
        pytest.param("]", "", "is not TOML", id="not closed"),
        pytest.param("schema = 1", "schema = 9", "has schema 9, this version reads schema 1", id="schema"),
        pytest.param("schema = 1", "", "has schema None", id="no schema"),
    ],
)
def test_changed_file_is_refused(saved: Path, old: str, new: str, message: str) -> None:
    saved.write_text(saved.read_text().replace(old, new, 1))
    with pytest.raises(StaleArtifact, match=re.escape(message)) as caught:
        profile_from_toml(saved)
    assert "sr-pipeline profile" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("color =", "colour =", "missing or unknown: color, colour"),
        ("3-16-5+", "7-16-5+", "conv7"),
        ("3-16-5+", "3-x-5+", "invalid literal"),
        ("p10_ms = 12.0", "p10_ms = 99.0", "rise"),
        ("median_ms = 12.5", "median_ms = 'x'", "not supported"),
        ("threads = 2", "threads = 'two'", "threads is 'two'"),
        ("lr_size = [360, 640]", "lr_size = [0, 640]", "positive"),
        ("lr_size = [360, 640]", "lr_size = [360]", "not enough values"),
        ("skip = ", "skipped = ", "'skip'"),
    ],
)
def test_content_that_is_no_profile_is_refused_whatever_its_hash(saved: Path, old: str, new: str, message: str) -> None:
    saved.write_text(saved.read_text().replace(old, new))
    with pytest.raises(StaleArtifact) as caught:
        profile_from_toml(saved)
    stated, found = re.findall(r"[0-9a-f]{64}", caught.value.message)
    saved.write_text(saved.read_text().replace(stated, found))
    with pytest.raises(StaleArtifact, match=f"is no device profile: .*{message}"):
        profile_from_toml(saved)


@pytest.mark.parametrize(
    "fields",
    [{"rows": ()}, {"scale": 3}, {"color": "y"}, {"unshuffle": 2}, {"threads": 0}, {"lr_size": (0, 8)}],
    ids=str,
)
def test_profile_is_of_one_task(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"rows|another|positive"):
        replace(PROFILE, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "timing",
    [
        replace(TIMING, p10_ms=0.0),
        replace(TIMING, p99_ms=float("inf")),
        replace(TIMING, median_ms=float("nan")),
        replace(TIMING, p90_ms=1.0),
        replace(TIMING, runs=0),
    ],
    ids=str,
)
def test_times_are_positive_and_rise(timing: Timing) -> None:
    with pytest.raises(ValueError, match=r"rise|at least 1"):
        Row(network(), timing)


def test_trilevel_networks_are_no_rows() -> None:
    with pytest.raises(ValueError, match="edge"):
        Row(Architecture("trilevel", 2, "rgb", 8, (Cell(("conv3",), ()),)), TIMING)


ASKED = {"lr_size": (360, 640), "scale": 2, "color": "rgb"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"lr_size": (180, 320)}, "its LR size is 360x640, asked for is 180x320"),
        ({"scale": 3}, "its scale is 2, asked for is 3"),
        ({"color": "y"}, "its colour is rgb, asked for is y"),
        ({"activation": "prelu"}, "its activation is relu"),
        ({"unshuffle": 2}, "its unshuffle is 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_profile_of_something_else_is_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        check_task(PROFILE, **{**ASKED, **asked})  # type: ignore[arg-type]
    assert isinstance(caught.value, PipelineError)
    assert "sr-pipeline profile" in caught.value.hint


def test_profile_of_the_task_is_taken() -> None:
    check_task(PROFILE, **ASKED)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "profiles").glob("*.toml")), ids=lambda path: path.stem
)
def test_shipped_profiles_are_whole_and_price_networks(path: Path) -> None:
    profile = profile_from_toml(path)
    assert profile.name == path.stem
    assert profile.versions["graph"] == str(GRAPH)
    model = latency_model_from_profile(profile)
    assert model.predict_ms(profile.calibration.architecture) == pytest.approx(
        profile.calibration.timing.median_ms, rel=0.25
    )
