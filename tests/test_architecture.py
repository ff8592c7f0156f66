import json
import re
from dataclasses import replace
from typing import Any

import pytest

from pipeline.architecture import (
    Architecture,
    Cell,
    architecture_from_dict,
    architecture_from_json,
    summary,
)
from pipeline.errors import StaleArtifact

EDGE = Architecture("edge", 2, "rgb", 16, (Cell(("conv3", "conv1"), (8,)), Cell(("conv5",), (), residual=False)))
TRILEVEL = Architecture(
    "trilevel", 4, "rgb", 64, (Cell(("dws", "residual"), (24,)), "up", "up"), skip="none", shuffle=1
)


def test_json_round_trip(architecture: Architecture) -> None:
    assert architecture_from_json(architecture.to_json()) == architecture
    assert architecture_from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture


def test_json_is_canonical() -> None:
    text = EDGE.to_json()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert json.loads(text)["path"][0] == {"ops": ["conv3", "conv1"], "widths": [8], "residual": True}


def test_id_depends_on_every_field_and_nothing_else() -> None:
    twin = Architecture("edge", 2, "rgb", 16, (Cell(("conv3", "conv1"), (8,)), Cell(("conv5",), (), residual=False)))
    changes: list[dict[str, Any]] = [
        {"color": "y"},
        {"width": 17},
        {"path": EDGE.path[:1]},
        {"path": (Cell(("conv3", "conv1"), (9,)), EDGE.path[1])},
        {"path": (replace(EDGE.cells[0], residual=False), EDGE.path[1])},
        {"stem": 5},
        {"tail": 1},
        {"tail_width": 4},
        {"activation": "prelu"},
        {"skip": "conv1"},
        {"unshuffle": 2, "shuffle": 4},
        {"scale": 3, "shuffle": 3},
    ]
    assert twin.id == EDGE.id
    assert re.fullmatch("[0-9a-f]{12}", EDGE.id)
    assert len({EDGE.id, TRILEVEL.id, *(replace(EDGE, **change).id for change in changes)}) == 2 + len(changes)


def test_id_is_stable_across_versions() -> None:
    assert EDGE.id == "55c3e5bfe563", "an id that changes makes every recorded one wrong: raise SCHEMA"


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (EDGE, {"space": "vast"}, "space is edge or trilevel, not 'vast'"),
        (EDGE, {"scale": 5, "shuffle": 5}, "scale is 2, 3 or 4, not 5"),
        (EDGE, {"color": "cmyk"}, "color is rgb or y, not 'cmyk'"),
        (EDGE, {"width": 0}, "width is positive, not 0"),
        (EDGE, {"path": (Cell(("dws", "conv7"), (8,)),)}, "edge has no operation named conv7, dws"),
        (TRILEVEL, {"path": (Cell(("conv5",), ()), "up", "up")}, "trilevel has no operation named conv5"),
        (EDGE, {"stem": 2}, "kernels are 1, 3 or 5, not 2 and 3"),
        (EDGE, {"tail_width": -1}, "tail_width is at least 0, and 0 in the trilevel space, not -1"),
        (TRILEVEL, {"tail_width": 4}, "tail_width is at least 0, and 0 in the trilevel space, not 4"),
        (EDGE, {"tail": 7}, "kernels are 1, 3 or 5, not 3 and 7"),
        (EDGE, {"activation": "gelu"}, "activation is one of relu, leaky_relu, prelu, acon, not 'gelu'"),
        (EDGE, {"skip": "bicubic"}, "skip is one of none, nearest, conv1, conv3, conv5, not 'bicubic'"),
        (EDGE, {"unshuffle": 4, "shuffle": 8}, "unshuffle is 1 or 2, not 4"),
        (EDGE, {"path": ("up",)}, "edge upsamples in its tail; its path has no ups"),
        (EDGE, {"shuffle": 4}, "shuffle 4 and 0 ups do not make scale 2 of an input unshuffled by 1"),
        (EDGE, {"unshuffle": 2}, "shuffle 2 and 0 ups do not make scale 2 of an input unshuffled by 2"),
        (TRILEVEL, {"path": ("up",)}, "shuffle 1 and 1 ups do not make scale 4 of an input unshuffled by 1"),
        (TRILEVEL, {"unshuffle": 2}, "shuffle 1 and 2 ups do not make scale 4 of an input unshuffled by 2"),
        (TRILEVEL, {"skip": "conv3"}, "skip conv3 ends in a shuffle, and shuffle is 1"),
    ],
)
def test_impossible_architecture_is_refused(base: Architecture, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(base, **change)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"width is positive, not 0; kernels are 1, 3 or 5, not 4 and 3"):
        replace(EDGE, width=0, stem=4)


@pytest.mark.parametrize(
    ("ops", "widths", "message"),
    [
        ((), (), "a cell of 0 ops needs -1 inner widths"),
        (("conv3",), (8,), "a cell of 1 ops needs 0 inner widths: (8,)"),
        (("conv3", "conv3"), (0,), "widths must be positive: (0,)"),
    ],
)
def test_impossible_cell_is_refused(ops: tuple[str, ...], widths: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Cell(ops, widths)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in EDGE.to_dict().items() if key != name}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "architecture is not JSON"),
        (EDGE.to_json()[:-9], "architecture is not JSON"),
        ("[1]", "architecture is not a JSON object"),
        (json.dumps(without("schema")), "architecture has schema None, this version reads schema 1"),
        (json.dumps(EDGE.to_dict() | {"schema": 2}), "architecture has schema 2, this version reads schema 1"),
        (json.dumps(without("path")), "architecture is damaged: 'path'"),
        (json.dumps(without("scale")), "architecture is damaged: .*scale"),
        (json.dumps(EDGE.to_dict() | {"color of": "hope"}), "architecture is damaged: .*color of"),
        (json.dumps(EDGE.to_dict() | {"width": "wide"}), "architecture is damaged"),
        (json.dumps(EDGE.to_dict() | {"skip": 3}), "architecture is damaged"),
        (json.dumps(EDGE.to_dict() | {"scale": 9}), "architecture is damaged: scale is 2, 3 or 4, not 9"),
        (json.dumps(EDGE.to_dict() | {"path": ["down"]}), "architecture is damaged"),
        (json.dumps(EDGE.to_dict() | {"path": [{"ops": ["conv3"]}]}), "architecture is damaged: 'widths'"),
    ],
)
def test_damaged_json_is_refused_with_a_way_out(text: str, message: str) -> None:
    with pytest.raises(StaleArtifact, match=message) as caught:
        architecture_from_json(text)
    assert "search again" in caught.value.hint


def test_channels_and_cells() -> None:
    assert (EDGE.channels, replace(EDGE, color="y").channels) == (3, 1)
    assert TRILEVEL.cells == (TRILEVEL.path[0],)


@pytest.mark.parametrize(
    ("architecture", "line"),
    [
        (EDGE, "edge x2 rgb: 16 ch, stem 3, [conv3-8-conv1+] [conv5], tail 3, relu, skip nearest"),
        (
            replace(EDGE, path=(EDGE.cells[1],) * 3, unshuffle=2, shuffle=4),
            "edge x2 rgb: 16 ch, stem 3, [conv5] x3, tail 3, relu, skip nearest, unshuffle 2",
        ),
        (replace(EDGE, tail_width=4, path=()), "edge x2 rgb: 16 ch, stem 3, no cells, tail 3-4-1, relu, skip nearest"),
        (replace(EDGE, path=()), "edge x2 rgb: 16 ch, stem 3, no cells, tail 3, relu, skip nearest"),
        (TRILEVEL, "trilevel x4 rgb: 64 ch, stem 3, [dws-24-residual+] up x2, tail 3, relu, skip none"),
    ],
)
def test_summary_is_one_line(architecture: Architecture, line: str) -> None:
    assert summary(architecture) == line
