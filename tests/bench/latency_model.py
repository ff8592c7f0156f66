"""How well the latency model of a profile predicts 50 networks that it has not seen, and how other forms of it would.

The networks are drawn as those of the profile, measured in turns, and scaled to the profile by its calibration. The
other forms are compared on the profile's own networks: each is predicted from those of other folds. From the project's
root: python -m tests.bench.latency_model PROFILE [PROFILE ...]
A profile is a name in profiles/, a file, or a runtime and precision ("openvino bf16") to be measured now.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from deploy.measure import MINUTES, Setting
from deploy.openers import RUNTIMES
from deploy.timing import time_beside
from pipeline.architecture import Architecture, summary
from pipeline.backends import deploy_errors
from pipeline.budget import cost_from_architecture
from pipeline.draw import draw_architectures
from pipeline.latency import (
    Measures,
    Part,
    latency_model_from_profile,
    measures_from_part,
    parts_from_architecture,
    prices_from_networks,
)
from pipeline.measure import is_this_device, measure_device
from pipeline.profile import DeviceProfile, profile_from_toml, profile_path
from pipeline.workload import Task, model_from_architecture
from tests.bench.budget import origin

SEED, NETWORKS = 1, 50
ROUNDS, SECONDS = (10, 15), 300.0  # rounds, calls of each network that count, and how long they are waited for
FOLDS = 10
MOST_ERROR, LEAST_WITHIN, LEAST_RANK = 0.05, 0.95, 0.98

Floats = NDArray[np.float64]
Predict = Callable[[Architecture], float]
Fit = Callable[[Sequence[Architecture], Sequence[float]], Predict]
console = Console(stderr=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.latency_model", description=__doc__)
    parser.add_argument("profiles", nargs="+", help="names in profiles/, files, or a runtime and precision to measure")
    parser.add_argument(
        "--lr-size", nargs=2, type=int, default=(360, 640), help="of what is measured now (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="of what is measured now (%(default)s)")
    given = parser.parse_args()
    results = []
    for name in given.profiles:
        profile = _profile(name, tuple(given.lr_size), given.threads)
        told = {"profile": profile.name, "candidate": profile.candidate, **origin(profile)}
        results.append({**told, **compared(profile), **tried(profile)})
    print(json.dumps({"profiles": results, "passed": all(result["passed"] for result in results)}))


def _profile(name: str, lr_size: tuple[int, int], threads: int) -> DeviceProfile:
    runtime, _, precision = name.rpartition(" ")
    if runtime not in RUNTIMES:
        profile = profile_from_toml(profile_path(name))
        if differences := is_this_device(profile):
            raise SystemExit(f"{name} is not of this device: {'; '.join(differences)}")
        return profile
    console.print(f"measuring {name}, about {MINUTES:g} minutes")
    return measure_device(name, Task(2, "rgb", lr_size), runtime, precision, threads, 60 * MINUTES)


def tried(profile: DeviceProfile) -> dict[str, Any]:
    """The model against networks that the profile does not have."""
    model = latency_model_from_profile(profile)
    architectures = unseen(profile)
    measured, drift = measured_ms(profile, architectures)
    predicted = np.array([model.predict_ms(architecture) for architecture in architectures])
    table = Table("network", "predicted ms", "measured ms", "error", title=f"{profile.candidate}: {NETWORKS} unseen")
    for at in np.argsort(measured):
        error = predicted[at] / measured[at] - 1
        table.add_row(
            escape(summary(architectures[at])), f"{predicted[at]:.2f}", f"{measured[at]:.2f}", f"{error:+.1%}"
        )
    figures = agreement(predicted, measured)
    Console().print(table)
    Console().print(_told(figures))
    passed = (
        figures["mape"] <= MOST_ERROR and figures["within_10"] >= LEAST_WITHIN and figures["spearman"] >= LEAST_RANK
    )
    networks = [
        {"id": architecture.id, "predicted_ms": round(float(guess), 3), "measured_ms": round(float(truth), 3)}
        for architecture, guess, truth in zip(architectures, predicted, measured, strict=True)
    ]
    return {**figures, "drift": drift, "networks": networks, "passed": passed}


def unseen(profile: DeviceProfile) -> list[Architecture]:
    """Drawn as the networks of the profile were, none of which is among them."""
    costs = [cost_from_architecture(row.architecture, profile.lr_size).macs for row in profile.rows]
    drawn = draw_architectures(
        2 * NETWORKS,
        SEED,
        scale=profile.scale,
        color=profile.color,
        lr_size=profile.lr_size,
        macs=(1, max(costs)),
        activation=profile.activation,
        unshuffle=profile.unshuffle,
    )
    seen = {row.architecture.id for row in profile.rows}
    return [architecture for architecture in drawn if architecture.id not in seen][:NETWORKS]


def measured_ms(profile: DeviceProfile, architectures: Sequence[Architecture]) -> tuple[Floats, float]:
    """Medians on this machine, scaled to the profile by its calibration, and what that takes over what it took."""
    setting = Setting(profile.runtime, profile.precision, profile.lr_size, profile.threads)
    with deploy_errors(), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:

        def opened(architecture: Architecture) -> Callable[[], object]:
            path = Path(folder) / f"{architecture.id}.onnx"
            path.write_bytes(model_from_architecture(architecture, setting.runtime, setting.precision))
            return setting.open(path, stack)[0]

        calibration = opened(profile.calibration.architecture)
        work = {one.id: opened(one) for one in track(architectures, "loading", console=console)}
        usual_ms = profile.calibration.timing.median_ms
        with console.status("measuring"):
            beside, timings = time_beside(calibration, work, ROUNDS, SECONDS, usual_ms)
    now, drift = beside.median_ms, beside.median_ms / usual_ms
    console.print(f"calibration {now:.2f} ms, {drift:.3f} of the profile's")
    return np.array([timings[architecture.id].median_ms / drift for architecture in architectures]), drift


def compared(profile: DeviceProfile) -> dict[str, Any]:
    """Forms of the model on the profile's own networks, each predicted by a model that has not seen it."""
    architectures = [row.architecture for row in profile.rows]
    ms = np.array([row.timing.median_ms for row in profile.rows])
    forms: dict[str, Fit] = {
        "MACs": partial(regression, measures=macs_of_part),
        "operator table": partial(table_over, measures=macs_of_part, spread=0.5),
        "regression": partial(regression, measures=measures_from_part),
        "regression without rests": partial(regression, measures=without_rests),
        "regression and table": partial(table_over, measures=measures_from_part, spread=0.1),
    }
    figures = {}
    for name, fit in forms.items():
        figures[name] = agreement(cross_validated(fit, architectures, ms), ms)
    table = Table(
        "form", "MAPE", "within 10 %", "Spearman", title=f"{profile.candidate}: {len(ms)} networks, crosswise"
    )
    for name, found in figures.items():
        table.add_row(name, *(f"{found[key]:.4f}" for key in ("mape", "within_10", "spearman")))
    Console().print(table)
    return {"forms": figures}


def cross_validated(fit: Fit, architectures: Sequence[Architecture], ms: Floats) -> Floats:
    """Each network's latency, predicted from the folds that it is not in."""
    order = np.random.default_rng(0).permutation(len(ms))
    predicted = np.empty(len(ms))
    for fold in range(FOLDS):
        held = order[fold::FOLDS]
        rest = np.setdiff1d(order, held)
        predict = fit([architectures[at] for at in rest], [float(ms[at]) for at in rest])
        predicted[held] = [predict(architectures[at]) for at in held]
    return predicted


def macs_of_part(part: Part) -> Measures:
    """Time in proportion to MACs, and what every network takes."""
    always = {"always": 1.0} if part.kind == "stem" else {}
    return {**always, "macs": float(part.kernel**2 * part.inputs * part.outputs)}


def without_rests(part: Part) -> Measures:
    """Without a price for what is left over of the channels that a matrix unit sums over at once."""
    return {name: amount for name, amount in measures_from_part(part).items() if not name.endswith(" rest")}


def regression(
    architectures: Sequence[Architecture], ms: Sequence[float], *, measures: Callable[[Part], Measures]
) -> Predict:
    prices = prices_from_networks(architectures, ms, measures)
    return lambda architecture: sum(_price(prices, measures(part)) for part in parts_from_architecture(architecture))


def table_over(
    architectures: Sequence[Architecture], ms: Sequence[float], *, measures: Callable[[Part], Measures], spread: float
) -> Predict:
    """A price for every part that was met: what the regression asks, times a factor of its own.

    The factors are 1 but for normal deviates of `spread`; the measured times have an error of 3 %. A part that was not
    met keeps the regression's price.
    """
    prices = prices_from_networks(architectures, ms, measures)
    counts = [Counter(parts_from_architecture(architecture)) for architecture in architectures]
    parts = sorted({part for count in counts for part in count}, key=str)
    base = {part: _price(prices, measures(part)) for part in parts}
    shares = np.array(
        [[count[part] * base[part] / time for part in parts] for count, time in zip(counts, ms, strict=True)]
    )
    noise = (0.03 / spread) ** 2 * np.eye(len(ms))
    deviates = shares.T @ np.linalg.solve(shares @ shares.T + noise, 1 - shares.sum(axis=1))
    factors = dict(zip(parts, 1 + deviates, strict=True))
    return lambda architecture: sum(
        _price(prices, measures(part)) * factors.get(part, 1.0) for part in parts_from_architecture(architecture)
    )


def _price(prices: Mapping[str, float], measures: Measures) -> float:
    return sum(prices.get(name, 0.0) * amount for name, amount in measures.items())


def agreement(predicted: Floats, measured: Floats) -> dict[str, float]:
    errors = np.abs(predicted / measured - 1)
    ranks = np.array([np.argsort(np.argsort(values)) for values in (predicted, measured)], np.float64)
    return {
        "mape": round(float(errors.mean()), 4),
        "within_10": round(float((errors <= 0.10).mean()), 4),
        "spearman": round(float(np.corrcoef(ranks[0], ranks[1]).item(1)), 4),
        "worst": round(float(errors.max()), 4),
        "bias": round(float(median(predicted / measured - 1)), 4),
    }


def _told(figures: Mapping[str, float]) -> str:
    return (
        f"MAPE {figures['mape']:.1%} (at most {MOST_ERROR:.0%}), within 10 %: {figures['within_10']:.0%} "
        f"(at least {LEAST_WITHIN:.0%}), Spearman {figures['spearman']:.3f} (at least {LEAST_RANK})"
    )


if __name__ == "__main__":
    main()
