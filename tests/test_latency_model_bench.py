"""What the benchmark of the latency model concludes; its measurements take minutes."""

import numpy as np
import pytest

from tests.bench import latency_model
from tests.bench.latency_model import agreement


def test_agreement_is_of_relative_errors_and_ranks() -> None:
    measured = np.array([10.0, 20.0, 40.0, 50.0])
    found = agreement(measured * np.array([1.0, 1.05, 0.95, 1.2]), measured)
    assert found == {"mape": 0.075, "within_10": 0.75, "spearman": 1.0, "worst": 0.2, "bias": 0.025}
    assert agreement(measured[::-1], measured)["spearman"] == -1.0


def test_profile_of_another_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["latency_model", "xeon-2c-onnxruntime-fp32"])
    monkeypatch.setattr(latency_model, "is_this_device", lambda _: ["cores is 4, was 2"])
    with pytest.raises(SystemExit, match=r"^xeon-2c-onnxruntime-fp32 is not of this device: cores is 4, was 2$"):
        latency_model.main()
