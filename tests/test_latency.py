from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from deploy.timing import Timing
from pipeline.architecture import Architecture, Cell
from pipeline.draw import draw_architectures
from pipeline.errors import UnpricedOp
from pipeline.latency import (
    BLOCK,
    DEEP,
    LatencyModel,
    Part,
    latency_model_from_profile,
    measures_from_part,
    nonnegative_least_squares,
    parts_from_architecture,
    prices_from_networks,
)
from pipeline.profile import DeviceProfile, Row

LR_SIZE = (36, 64)
CELL = Cell(("conv3", "conv1"), (24,), residual=True)
OTHER = Cell(("conv5", "conv3"), (8,), residual=False)


def _net(*cells: Cell, width: int = 16, **fields: Any) -> Architecture:
    return Architecture(
        **{"space": "edge", "scale": 2, "color": "rgb", "width": width, "path": cells, "skip": "conv3", **fields}
    )


@cache
def _drawn(count: int, seed: int) -> list[Architecture]:
    return draw_architectures(count, seed, scale=2, color="rgb", lr_size=LR_SIZE, macs=(1, 15e7))


def _true_ms(architecture: Architecture) -> float:
    """A device that computes blocks of channels, but narrow inputs one by one, and moves every block of features.

    It sums over 32 channels at once, and what is left over of them is a product of its own.
    """
    ms = 2.0
    for part in parts_from_architecture(architecture):
        blocks = -(-part.outputs // BLOCK)
        if part.kind == "add":
            ms += 0.4 * blocks
        elif part.inputs < BLOCK:
            ms += 0.02 * part.kernel**2 * part.inputs * blocks + 0.3
        else:
            ms += 0.2 * part.kernel**2 * -(-part.inputs // BLOCK) * blocks + 0.5 * blocks
            ms += 2.0 * (part.inputs > DEEP and part.inputs % DEEP > 0)
    return ms


def _profile(architectures: list[Architecture], noise: float = 0.0) -> DeviceProfile:
    rng = np.random.default_rng(0)
    rows = []
    for architecture in architectures:
        ms = _true_ms(architecture) * (1 + noise * rng.standard_normal())
        rows.append(Row(architecture, Timing(ms, 0.9 * ms, 1.1 * ms, 1.2 * ms, 15)))
    return DeviceProfile(
        name="device",
        runtime="onnxruntime",
        precision="fp32",
        lr_size=LR_SIZE,
        threads=2,
        scale=2,
        color="rgb",
        device={"cpu": "a CPU"},
        versions={},
        created="2026-01-01T00:00:00+00:00",
        calibration=rows[0],
        rows=tuple(rows),
    )


@pytest.fixture(scope="module")
def model() -> LatencyModel:
    return latency_model_from_profile(_profile(_drawn(160, 0)))


def _errors(model: LatencyModel) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([abs(model.predict_ms(one) / _true_ms(one) - 1) for one in _drawn(50, 1)])


def test_a_device_is_recovered_from_whole_networks(model: LatencyModel) -> None:
    assert _errors(model).max() < 5e-3


def test_noise_in_the_measurements_averages_out() -> None:
    assert _errors(latency_model_from_profile(_profile(_drawn(160, 0), noise=0.04))).mean() < 0.02


def test_the_same_profile_gives_the_same_prices(model: LatencyModel) -> None:
    again = latency_model_from_profile(_profile(_drawn(160, 0)))
    assert again == model
    assert min(again.prices.values()) >= 0.0


@pytest.mark.parametrize("frame", [{}, {"stem": 5, "tail": 5}, {"width": 8, "skip": "nearest"}, {"width": 64}])
def test_cells_add_up(model: LatencyModel, frame: Mapping[str, Any]) -> None:
    empty = model.predict_ms(_net(**frame))
    first, second = (model.predict_ms(_net(cell, **frame)) - empty for cell in (CELL, OTHER))
    assert min(empty, first, second) > 0
    for cells in [(CELL, OTHER), (OTHER, CELL)]:
        assert model.predict_ms(_net(*cells, **frame)) == pytest.approx(empty + first + second)
    assert model.predict_ms(_net(*[CELL] * 7, **frame)) == pytest.approx(empty + 7 * first)


def test_what_a_cell_adds_depends_on_the_trunk_alone(model: LatencyModel) -> None:
    costs = [model.predict_ms(_net(CELL, **frame)) - model.predict_ms(_net(**frame)) for frame in ({}, {"stem": 5})]
    assert costs[0] == pytest.approx(costs[1])


def test_more_is_never_faster(model: LatencyModel) -> None:
    base = model.predict_ms(_net(CELL, CELL))
    for more in (
        _net(CELL, CELL, CELL),
        _net(CELL, replace(CELL, widths=(28,))),
        _net(CELL, replace(CELL, ops=("conv5", "conv1"))),
        _net(CELL, CELL, width=20),
        _net(CELL, CELL, tail=5),
    ):
        assert model.predict_ms(more) >= base


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (_net(CELL, scale=3, shuffle=3), "device has scale 2, not 3"),
        (_net(CELL, color="y"), "device has colour rgb, not y"),
        (
            _net(CELL, activation="prelu", unshuffle=2, shuffle=4),
            "device has activation relu, not prelu; unshuffle 1, not 2",
        ),
        (_net(CELL, stem=1), "device has no 1x1 stem from 3 to 16 channels"),
        (_net(CELL, tail=1), "device has no 1x1 tail from 16 to 12 channels"),
        (_net(CELL, skip="conv5"), "device has no 5x5 skip from 3 to 12 channels"),
        (_net(CELL, width=128), "device has multiples of 4 up to 96 channels, not 128"),
        (_net(replace(CELL, widths=(10,))), "device has multiples of 4 up to 96 channels, not 10"),
        (Architecture("trilevel", 2, "rgb", 8, (), skip="none"), "device has the edge space, not trilevel"),
    ],
)
def test_what_a_profile_does_not_cover_has_no_price(
    model: LatencyModel, architecture: Architecture, message: str
) -> None:
    with pytest.raises(UnpricedOp, match=f"^profile {message}$") as caught:
        model.predict_ms(architecture)
    assert "sr-pipeline profile" in caught.value.hint


def test_a_tail_that_no_profile_has_is_no_reason_to_measure_one(model: LatencyModel) -> None:
    with pytest.raises(UnpricedOp, match="no profile has tails of 4 channels and a second convolution") as caught:
        model.predict_ms(_net(CELL, tail_width=4))
    assert "search under budget.latency_ms" in caught.value.hint


def test_another_lr_size_has_no_price(model: LatencyModel) -> None:
    assert model.predict_ms(_net(CELL), LR_SIZE) == model.predict_ms(_net(CELL))
    with pytest.raises(UnpricedOp, match="profile device has LR size 36x64, not 72x128"):
        model.predict_ms(_net(CELL), (72, 128))


def test_a_kernel_that_was_never_measured_has_no_price() -> None:
    cells = [Cell(("conv3", "conv1"), (width,), residual=True) for width in (16, 24, 32, 48)]
    model = latency_model_from_profile(_profile([_net(*[cell] * count) for cell in cells for count in (1, 2, 3)]))
    assert model.predict_ms(_net(cells[1], cells[2])) > 0
    with pytest.raises(UnpricedOp, match="profile device has no 5x5 conv from 16 to 8 channels"):
        model.predict_ms(_net(OTHER))


def test_parts_are_the_operations_of_the_network() -> None:
    assert [*parts_from_architecture(_net(CELL, stem=5, unshuffle=2, shuffle=4))] == [
        Part("stem", 5, 12, 16),
        Part("conv", 3, 16, 24),
        Part("conv", 1, 24, 16),
        Part("add", 0, 16, 16),
        Part("tail", 3, 16, 48),
        Part("skip", 3, 12, 48),
    ]
    assert [part.kind for part in parts_from_architecture(_net(skip="none"))] == ["stem", "tail"]


def test_measures_are_rounded_up_to_blocks() -> None:
    measures = measures_from_part(Part("conv", 3, 24, 8))
    assert measures["conv3 macs"] == 9 * 1.5 * 0.5
    assert measures["conv3 macs, blocks"] == 9 * 2 * 1
    assert all("narrow" in name for name in measures_from_part(Part("conv", 3, 12, 32)))
    assert not measures.keys() & measures_from_part(Part("conv", 1, 24, 8)).keys()


def test_rest_is_what_is_left_of_32_channels() -> None:
    widths = (16, 24, 32, 36, 48, 64, 72, 96)
    rests = {width: measures_from_part(Part("conv", 3, width, 8))["conv3 rest"] for width in widths}
    assert [width for width in widths if rests[width]] == [36, 48, 72]


def test_prices_may_be_sought_in_other_measures() -> None:
    networks = [_net(*[CELL] * count) for count in (1, 2, 4)]
    prices = prices_from_networks(
        networks, [5.0, 8.0, 14.0], lambda part: {part.kind: 1.0} if part.kind in ("stem", "add") else {}
    )
    assert prices == pytest.approx({"stem": 2.0, "add": 3.0})


@pytest.mark.parametrize("seed", range(5))
def test_nonnegative_least_squares_meets_its_conditions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, target = rng.random((40, 12)), rng.random(40)
    matrix[:, 3] = matrix[:, 2]  # alike: only their sum is known
    matrix[:, 5] = 0.0
    found = nonnegative_least_squares(matrix, target)
    gradient = matrix.T @ (matrix @ found - target)
    assert found.min() >= 0.0
    assert gradient.min() > -1e-9
    assert np.abs(gradient[found > 0]).max() < 1e-9
    exact = np.abs(rng.standard_normal(12)) * (rng.random(12) < 0.5)
    assert matrix @ nonnegative_least_squares(matrix, matrix @ exact) == pytest.approx(matrix @ exact)
