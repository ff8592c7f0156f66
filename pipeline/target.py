"""The device of a latency budget: its profile, the model over it, and this machine where it is that device."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.openers import exported_precision
from pipeline.architecture import Architecture, Color
from pipeline.backends import candidate_model, deploy_errors
from pipeline.budget import Budget, Device
from pipeline.errors import BackendMissing, ConfigError
from pipeline.latency import LatencyModel, latency_model_from_profile
from pipeline.manifest import check_outputs
from pipeline.measure import is_this_device, measure_architecture, measure_drift, measure_model
from pipeline.profile import DRIFT, DeviceProfile, check_task, profile_from_toml, profile_path


@dataclass(frozen=True, slots=True)
class Target:
    """differences: between the profile's device and this machine, a line each; empty where it is the same.

    drift: time of the calibration now over that of the profile; None on another machine.
    """

    profile: DeviceProfile
    model: LatencyModel
    differences: tuple[str, ...]
    drift: float | None

    @property
    def device(self) -> Device:
        return Device(self.model.predict_ms, None if self.differences else self._measure_ms)

    def _exported(self, run: Path) -> Path:
        profile = self.profile
        name = candidate_model(profile.runtime, profile.precision)
        if name not in check_outputs(run / "export").outputs:
            with deploy_errors():
                precision = exported_precision(profile.runtime, profile.precision)
            raise ConfigError(
                f"{run} has no {name}, which {profile.candidate} runs: the budget is meant on profile {profile.name}",
                f"run `sr-pipeline export {run} --precision {precision}`",
            )
        return run / "export" / name

    def _measure_ms(self, architecture: Architecture) -> float:
        return measure_architecture(self.profile, architecture).median_ms

    def judge(self, architecture: Architecture, run: Path, budget: Budget) -> dict[str, Any]:
        """JSON values: what the model says of RUN's network, and what it takes here as exported, both in ms.

        "latency_ms" is what counts: measured, and predicted only on another machine.
        Raises ConfigError where RUN has no model that the profile's runtime runs, UnpricedOp, BackendMissing.
        """
        model = self._exported(run)
        predicted = self.model.predict_ms(architecture)
        measured = None if self.differences else measure_model(self.profile, model.read_bytes()).median_ms
        return {
            "name": self.profile.name,
            "candidate": self.profile.candidate,
            "drift": self.drift,
            "predicted_ms": predicted,
            "measured_ms": measured,
            "latency_ms": predicted if measured is None else measured,
            "budget_ms": budget.latency_ms,
            "not_measured": "; ".join(self.differences) or None,
        }


def profile_of_budget(budget: Budget) -> DeviceProfile | None:
    """Of the device that a latency is bounded on, None where none is.

    Raises ConfigError where there is no such profile, StaleArtifact where it is damaged.
    """
    if budget.latency_ms is None or budget.profile is None:
        return None
    return profile_from_toml(profile_path(budget.profile))


def differences_here(profile: DeviceProfile) -> tuple[str, ...]:
    """What keeps this machine from measuring what the profile bounds, a line each; empty where it is its device."""
    try:
        return tuple(is_this_device(profile))
    except BackendMissing as error:
        return (error.message,)


def target_of_budget(
    budget: Budget, scale: int, color: Color, activation: str, unshuffle: int, tell: Callable[[str], None]
) -> Target | None:
    """None where latency is not bounded. Where this machine is the device, its calibration is timed.

    tell: takes a line for the user where this machine is another one, or no longer what it was.
    Raises ConfigError where there is no such profile or it is for another task or LR size, StaleArtifact where it is
    damaged, UnpricedOp.
    """
    if (profile := profile_of_budget(budget)) is None:
        return None
    check_task(profile, lr_size=budget.lr_size, scale=scale, color=color, activation=activation, unshuffle=unshuffle)
    model = latency_model_from_profile(profile)
    if differences := differences_here(profile):
        tell(f"profile {profile.name} is of another machine ({'; '.join(differences)}): latencies are predicted")
        return Target(profile, model, differences, None)
    drift = measure_drift(profile)
    if abs(drift - 1) > DRIFT:
        tell(
            f"warning: the calibration of {profile.name} takes {drift:.2f} times what it took: this machine is busy or "
            "has changed; times are scaled by it"
        )
    return Target(profile, model, (), drift)
