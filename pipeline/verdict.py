"""From measurements to one verdict: the report of a verification, and the error that it ends with."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from pipeline.architecture import Architecture, summary
from pipeline.budget import Budget, Cost
from pipeline.errors import BudgetMissed, ParityFailed, PipelineError

SCHEMA = 2
HINTS = {
    "parity": "the model is not what was trained: export again; or allow more in the section [verify] of pipeline.toml",
    "quality": "the form loses quality: ship another precision, or allow more in the section [verify] of pipeline.toml",
    "gain": "search with more steps, a larger budget, or photographs that are more like these",
    "budget": "search again with this budget",
    "latency": "verify again while nothing else runs; if it stays too slow, search with a smaller budget",
}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a verdict is measured by, in dB; those of a precision hold for forms that compute in it.

    parity_db: least PSNR between the outputs of a form and of the training form, on every image.
    mean_quality_drop_db: most PSNR-Y that a form may lose to the training form, in the mean of all photographs.
    max_quality_drop_db: the same on every photograph.
    min_gain_over_bicubic_db: least PSNR-Y that the deployed model must gain over bicubic, on every photograph.
    """

    parity_db: float
    fp16_parity_db: float
    bf16_parity_db: float
    int8_parity_db: float
    mean_quality_drop_db: float
    fp16_mean_quality_drop_db: float
    bf16_mean_quality_drop_db: float
    int8_mean_quality_drop_db: float
    max_quality_drop_db: float
    fp16_max_quality_drop_db: float
    bf16_max_quality_drop_db: float
    int8_max_quality_drop_db: float
    min_gain_over_bicubic_db: float

    def of(self, precision: str) -> tuple[float, float, float]:
        """Parity, and quality drop in the mean and at most."""
        prefix = {"fp32": "", "tf32": "fp16_"}.get(precision, f"{precision}_")  # tf32 has the mantissa of fp16
        parity: float = getattr(self, f"{prefix}parity_db")
        mean_drop: float = getattr(self, f"{prefix}mean_quality_drop_db")
        max_drop: float = getattr(self, f"{prefix}max_quality_drop_db")
        return parity, mean_drop, max_drop


@dataclass(frozen=True, slots=True)
class Measurement:
    """One form on one image.

    psnr_between_db: PSNR between its output and that of the training form, float, unclamped, with a peak of 1; 0 where
        an output is not finite.
    max_abs: the largest difference between the two; None where an output is not finite.
    psnr_y, ssim_y: against the photograph; PSNR in dB.
    No PSNR is infinite: that of equal images is `pipeline.metrics.CAP_DB`.
    """

    psnr_between_db: float
    max_abs: float | None
    psnr_y: float
    ssim_y: float


@dataclass(frozen=True, slots=True)
class Photograph:
    """Bicubic enlargement and all forms of the network, the training form first, on one image.

    lr_size: (height, width). for_parity: a crop that only the forms are compared on.
    """

    benchmark: str
    name: str
    lr_size: tuple[int, int]
    bicubic_psnr_y: float
    bicubic_ssim_y: float
    forms: dict[str, Measurement]
    for_parity: bool = False

    @property
    def label(self) -> str:
        return f"{self.benchmark}/{self.name}"


def report_from_measurements(
    architecture: Architecture,
    cost: Cost,
    budget: Budget,
    photographs: Sequence[Photograph],
    precisions: Mapping[str, str],
    deployed: str,
    thresholds: Thresholds,
    not_run: Mapping[str, str],
    *,
    predicted: bool = False,
) -> dict[str, Any]:
    """The report, as JSON values. precisions: form -> its precision. deployed: the form whose quality is reported.

    not_run: form -> why it could not run here. predicted: whether the latency in `cost` was not measured.
    """
    parity = [_parity(photographs, form, *thresholds.of(precisions[form])) for form in precisions]
    parity = parity[1:]  # the first is the reference itself
    scored = [photograph for photograph in photographs if not photograph.for_parity]
    benchmarks = list(dict.fromkeys(photograph.benchmark for photograph in scored))
    failures = [
        *_parity_failures(parity),
        *_gain_failures(scored, deployed, thresholds.min_gain_over_bicubic_db),
        *_budget_failures(cost, budget, predicted=predicted),
    ]
    return {
        "schema": SCHEMA,
        "architecture_id": architecture.id,
        "architecture": summary(architecture),
        "budget": asdict(budget),
        "cost": asdict(cost),
        "share": budget.share(cost),
        "deployed": deployed,
        "quality": {
            name: {
                **_means([photograph for photograph in scored if photograph.benchmark == name], deployed),
                "images": [_image(photograph, deployed) for photograph in scored if photograph.benchmark == name],
            }
            for name in benchmarks
        },
        "total": _means(scored, deployed),
        "parity": parity,
        "not_run": [{"candidate": form, "reason": reason} for form, reason in not_run.items()],
        "thresholds": asdict(thresholds),
        "failures": failures,
        "passed": not failures,
    }


def error_from_report(report: Mapping[str, Any]) -> PipelineError | None:
    """What a verification ends with: None where it passed, BudgetMissed where only the budget is missed.

    ParityFailed stands for every failure of the images: forms that differ, a form that loses quality, and a network
    that gains too little over bicubic.
    """
    failures = report["failures"]
    if not failures:
        return None
    kinds = [failure["kind"] for failure in failures]
    error = BudgetMissed if {*kinds} <= {"budget", "latency"} else ParityFailed
    return error("; ".join(failure["message"] for failure in failures), HINTS[kinds[0]])


def too_slow(report: Mapping[str, Any]) -> bool:
    """Whether it was found so by the clock: another measurement may find otherwise."""
    return any(failure["kind"] == "latency" for failure in report["failures"])


def _parity(
    photographs: Sequence[Photograph], form: str, tolerance: float, mean_drop: float, max_drop: float
) -> dict[str, Any]:
    """One form beside the training form: parity on crops as well, quality on whole photographs."""
    reference = next(iter(photographs[0].forms))
    measured = {photograph.label: photograph.forms[form] for photograph in photographs}
    drops = {
        photograph.label: photograph.forms[reference].psnr_y - photograph.forms[form].psnr_y
        for photograph in photographs
        if not photograph.for_parity
    }
    worst = min(measured, key=lambda label: measured[label].psnr_between_db)
    differences = [measurement.max_abs for measurement in measured.values()]
    most_lost = max(drops, key=lambda label: drops[label])
    lost = fmean(drops.values())
    return {
        "reference": reference,
        "candidate": form,
        "psnr_between_db": measured[worst].psnr_between_db,
        "mean_psnr_between_db": fmean(measurement.psnr_between_db for measurement in measured.values()),
        "worst_image": worst,
        "mean_drop_db": lost,
        "worst_drop_db": drops[most_lost],
        "worst_drop_image": most_lost,
        "max_abs": None if None in differences else max(value for value in differences if value is not None),
        "tolerance": tolerance,
        "mean_quality_drop_db": mean_drop,
        "max_quality_drop_db": max_drop,
        "passed": measured[worst].psnr_between_db >= tolerance and lost <= mean_drop and drops[most_lost] <= max_drop,
    }


def _parity_failures(parity: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    failures = []
    for row in parity:
        if row["psnr_between_db"] < row["tolerance"]:
            message = (
                f"{row['candidate']} and {row['reference']} agree to {row['psnr_between_db']:.2f} dB on "
                f"{row['worst_image']}, {row['tolerance']:g} dB are asked for"
            )
            failures.append({"kind": "parity", "message": message})
        for lost, where, allowed in (
            (row["mean_drop_db"], "in the mean", row["mean_quality_drop_db"]),
            (row["worst_drop_db"], f"on {row['worst_drop_image']}", row["max_quality_drop_db"]),
        ):
            if lost > allowed:
                forms = f"{row['candidate']} loses {lost:.4f} dB to {row['reference']}"
                failures.append({"kind": "quality", "message": f"{forms} {where}, {allowed:g} dB are allowed"})
    return failures


def _gain_failures(photographs: Sequence[Photograph], form: str, least: float) -> list[dict[str, str]]:
    gains = {photograph.label: photograph.forms[form].psnr_y - photograph.bicubic_psnr_y for photograph in photographs}
    worst = min(gains, key=lambda label: gains[label])
    if gains[worst] > least:
        return []
    missed = sum(gain <= least for gain in gains.values())
    message = (
        f"{form} gains {gains[worst]:+.2f} dB over bicubic on {worst}, more than {least:+g} dB is asked for "
        f"({missed} of {len(gains)} photographs miss it)"
    )
    return [{"kind": "gain", "message": message}]


def _budget_failures(cost: Cost, budget: Budget, *, predicted: bool) -> list[dict[str, str]]:
    height, width = budget.lr_size
    bounds = (
        (cost.macs, budget.macs, f"MACs at LR {height}x{width}"),
        (cost.params, budget.params, "params"),
    )
    failures = [
        {"kind": "budget", "message": f"the network has {used:,} {unit}, the budget is {bound:,}"}
        for used, bound, unit in bounds
        if bound is not None and used > bound
    ]
    if budget.latency_ms is not None and cost.latency_ms is not None and cost.latency_ms > budget.latency_ms:
        takes = "is predicted to take" if predicted else "takes"
        kind = "budget" if predicted else "latency"
        message = (
            f"a frame of {height}x{width} {takes} {cost.latency_ms:.2f} ms on {budget.profile}, "
            f"the budget is {budget.latency_ms:g} ms"
        )
        failures.append({"kind": kind, "message": message})
    return failures


def _means(photographs: Sequence[Photograph], form: str) -> dict[str, Any]:
    return {
        "photographs": len(photographs),
        "psnr_y": fmean(photograph.forms[form].psnr_y for photograph in photographs),
        "ssim_y": fmean(photograph.forms[form].ssim_y for photograph in photographs),
        "bicubic_psnr_y": fmean(photograph.bicubic_psnr_y for photograph in photographs),
        "bicubic_ssim_y": fmean(photograph.bicubic_ssim_y for photograph in photographs),
    }


def _image(photograph: Photograph, form: str) -> dict[str, Any]:
    return {
        "name": photograph.name,
        "lr_size": list(photograph.lr_size),
        "psnr_y": photograph.forms[form].psnr_y,
        "ssim_y": photograph.forms[form].ssim_y,
        "bicubic_psnr_y": photograph.bicubic_psnr_y,
        "bicubic_ssim_y": photograph.bicubic_ssim_y,
        "forms": {name: asdict(measurement) for name, measurement in photograph.forms.items()},
    }
