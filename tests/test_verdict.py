import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from pipeline.architecture import Architecture
from pipeline.budget import Budget, Cost
from pipeline.errors import BudgetMissed, ParityFailed, PipelineError
from pipeline.verdict import Measurement, Photograph, Thresholds, error_from_report, report_from_measurements, too_slow

ARCHITECTURE = Architecture("edge", 2, "rgb", 8, ())
BUDGET = Budget((360, 640), macs=1000, params=100)
COST = Cost(macs=900, params=50)
THRESHOLDS = Thresholds(
    parity_db=90,
    fp16_parity_db=50,
    bf16_parity_db=40,
    int8_parity_db=30,
    mean_quality_drop_db=0.001,
    fp16_mean_quality_drop_db=0.004,
    bf16_mean_quality_drop_db=0.02,
    int8_mean_quality_drop_db=0.03,
    max_quality_drop_db=0.001,
    fp16_max_quality_drop_db=0.01,
    bf16_max_quality_drop_db=0.05,
    int8_max_quality_drop_db=0.15,
    min_gain_over_bicubic_db=0.5,
)
PRECISIONS = {"training form": "fp32", "onnxruntime fp32": "fp32", "onnxruntime fp16": "fp16"}


def photograph(name: str, benchmark: str = "Set5", **fp16: Any) -> Photograph:
    training = Measurement(psnr_between_db=200.0, max_abs=0.0, psnr_y=31.0, ssim_y=0.9)
    forms = {
        "training form": training,
        "onnxruntime fp32": replace(training, psnr_between_db=140.0, max_abs=1e-6),
        "onnxruntime fp16": replace(training, **{"psnr_between_db": 80.0, "max_abs": 1e-3} | fp16),
    }
    return Photograph(benchmark, name, (128, 96), 30.0, 0.8, forms)


NOT_RUN = {"openvino bf16": "openvino is not installed"}


def report(*photographs: Photograph, cost: Cost = COST) -> dict[str, Any]:
    found = report_from_measurements(
        ARCHITECTURE, cost, BUDGET, photographs, PRECISIONS, "onnxruntime fp32", THRESHOLDS, NOT_RUN
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    return found


def test_figures_stand_beside_their_thresholds() -> None:
    found = report(
        photograph("baby", psnr_between_db=70.0, psnr_y=30.995),
        photograph("bird", max_abs=2e-3),
        replace(photograph("bridge", "Set14"), bicubic_psnr_y=27.0, bicubic_ssim_y=0.7),
        replace(photograph("bird cropped", psnr_between_db=60.0), for_parity=True),
    )
    assert (found["schema"], found["architecture_id"]) == (2, ARCHITECTURE.id)
    assert found["budget"] == asdict(BUDGET)
    assert (found["cost"], found["share"]) == ({"macs": 900, "params": 50, "latency_ms": None}, 0.9)
    assert (found["passed"], found["failures"]) == (True, [])
    assert error_from_report(found) is None

    set5, set14 = found["quality"]["Set5"], found["quality"]["Set14"]
    means = {"photographs": 2, "psnr_y": 31.0, "ssim_y": 0.9, "bicubic_psnr_y": 30.0, "bicubic_ssim_y": 0.8}
    assert {name: set5[name] for name in means} == pytest.approx(means)
    assert [row["name"] for row in set5["images"]] == ["baby", "bird"]
    assert set5["images"][0]["forms"]["onnxruntime fp16"]["psnr_y"] == 30.995
    assert (set14["photographs"], set14["bicubic_psnr_y"]) == (1, 27.0)
    assert found["total"]["photographs"] == 3
    assert found["total"]["bicubic_psnr_y"] == pytest.approx(29.0)

    fp32, fp16 = found["parity"]
    assert (fp32["reference"], fp32["candidate"]) == ("training form", "onnxruntime fp32")
    assert (fp32["psnr_between_db"], fp32["tolerance"], fp32["passed"]) == (140.0, 90, True)
    assert (fp16["candidate"], fp16["tolerance"], fp16["max_quality_drop_db"]) == ("onnxruntime fp16", 50, 0.01)
    assert (fp16["psnr_between_db"], fp16["worst_image"], fp16["max_abs"]) == (60.0, "Set5/bird cropped", 2e-3)
    assert fp16["mean_psnr_between_db"] == pytest.approx(72.5)
    assert (fp16["mean_drop_db"], fp16["worst_drop_db"]) == pytest.approx((0.005 / 3, 0.005))
    assert (fp16["worst_drop_image"], fp16["mean_quality_drop_db"]) == ("Set5/baby", 0.004)
    assert found["not_run"] == [{"candidate": "openvino bf16", "reason": "openvino is not installed"}]


@pytest.mark.parametrize(
    ("photographs", "cost", "error", "kinds", "message"),
    [
        (
            [photograph("baby"), photograph("bird", psnr_between_db=49.9)],
            COST,
            ParityFailed,
            ["parity"],
            "onnxruntime fp16 and training form agree to 49.90 dB on Set5/bird, 50 dB are asked for",
        ),
        (
            [photograph("baby"), photograph("bird", psnr_between_db=0.0, max_abs=None)],
            COST,
            ParityFailed,
            ["parity"],
            "agree to 0.00 dB on Set5/bird",
        ),
        (
            [photograph("baby", psnr_y=30.985), photograph("bird", psnr_y=31.01)],
            COST,
            ParityFailed,
            ["quality"],
            "onnxruntime fp16 loses 0.0150 dB to training form on Set5/baby, 0.01 dB are allowed",
        ),
        (
            [photograph("baby", psnr_y=30.995), photograph("bird", psnr_y=30.995)],
            COST,
            ParityFailed,
            ["quality"],
            "onnxruntime fp16 loses 0.0050 dB to training form in the mean, 0.004 dB are allowed",
        ),
        (
            [photograph("baby"), replace(photograph("bird"), bicubic_psnr_y=30.6)],
            COST,
            ParityFailed,
            ["gain"],
            r"onnxruntime fp32 gains \+0.40 dB over bicubic on Set5/bird, more than \+0.5 dB is asked for "
            r"\(1 of 2 photographs miss it\)",
        ),
        (
            [photograph("baby")],
            Cost(macs=1001, params=50),
            BudgetMissed,
            ["budget"],
            "the network has 1,001 MACs at LR 360x640, the budget is 1,000",
        ),
        (
            [photograph("baby")],
            Cost(macs=900, params=101),
            BudgetMissed,
            ["budget"],
            "the network has 101 params, the budget is 100",
        ),
        (
            [photograph("baby", psnr_between_db=10.0)],
            Cost(macs=1001, params=101),
            ParityFailed,
            ["parity", "budget", "budget"],
            "agree to 10.00 dB .*; .* 1,001 MACs .*; .* 101 params",
        ),
    ],
)
def test_every_failure_has_its_error_and_says_what_was_asked(
    photographs: list[Photograph], cost: Cost, error: type[PipelineError], kinds: list[str], message: str
) -> None:
    found = report(*photographs, cost=cost)
    assert found["passed"] is False
    assert [failure["kind"] for failure in found["failures"]] == kinds
    raised = error_from_report(found)
    assert type(raised) is error
    with pytest.raises(error, match=message) as caught:
        raise raised
    assert caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("predicted", "kind", "takes", "hint"),
    [(False, "latency", "takes", "verify again"), (True, "budget", "is predicted to take", "search again")],
)
def test_a_missed_latency_says_whether_it_was_measured(predicted: bool, kind: str, takes: str, hint: str) -> None:
    budget, cost = replace(BUDGET, latency_ms=10.0, profile="desk"), replace(COST, latency_ms=12.5)
    found = report_from_measurements(
        *(ARCHITECTURE, cost, budget, [photograph("baby")], PRECISIONS, "onnxruntime fp32", THRESHOLDS, NOT_RUN),
        predicted=predicted,
    )
    message = f"a frame of 360x640 {takes} 12.50 ms on desk, the budget is 10 ms"
    assert found["failures"] == [{"kind": kind, "message": message}]
    assert too_slow(found) != predicted
    error = error_from_report(found)
    assert isinstance(error, BudgetMissed)
    assert hint in error.hint


def test_crops_are_held_to_parity_and_count_for_nothing_else() -> None:
    crop = replace(photograph("bird", psnr_between_db=1.0, psnr_y=1.0), bicubic_psnr_y=99.0, for_parity=True)
    found = report(photograph("baby"), crop)
    assert [failure["kind"] for failure in found["failures"]] == ["parity"]
    assert found["total"]["photographs"] == 1


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("fp32", (90, 0.001, 0.001)),
        ("fp16", (50, 0.004, 0.01)),
        ("tf32", (50, 0.004, 0.01)),
        ("bf16", (40, 0.02, 0.05)),
        ("int8", (30, 0.03, 0.15)),
    ],
)
def test_thresholds_of_a_precision(precision: str, expected: tuple[float, float, float]) -> None:
    assert THRESHOLDS.of(precision) == expected
