import pytest
import torch

from deploy.timing import Timing
from pipeline import autocast
from pipeline.torch_runner import Device


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test measures anew, as a new process would, on a processor that can compute in bfloat16."""
    autocast.bf16_pays.cache_clear()
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


@pytest.mark.parametrize(("bf16_ms", "pays"), [(5.0, True), (8.3, True), (9.0, False), (20.0, False)])
def test_bf16_has_to_be_clearly_faster(monkeypatch: pytest.MonkeyPatch, bf16_ms: float, pays: bool) -> None:
    def timed(work: dict[str, object], _rounds: int) -> dict[str, Timing]:
        assert [*work] == ["fp32", "bf16"]
        return {name: Timing(ms, ms, ms, ms, 1) for name, ms in (("fp32", 10.0), ("bf16", bf16_ms))}

    monkeypatch.setattr(autocast, "time_interleaved", timed)
    assert autocast.bf16_pays("cpu") is pays


def test_both_precisions_are_really_stepped_and_leave_the_random_state(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[bool] = []
    step = autocast._step

    def watched(features: torch.Tensor, kernels: list[torch.Tensor], bf16: bool) -> None:
        step(features, kernels, bf16)
        ran.append(bf16)

    monkeypatch.setattr(autocast, "_step", watched)
    state = torch.random.get_rng_state()
    assert autocast.bf16_pays("cpu") in (True, False)
    assert ran.count(True) == ran.count(False) >= autocast.ROUNDS
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_processor_without_bf16_is_not_tried(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(autocast, "time_interleaved", lambda *_: pytest.fail("it was timed"))
    assert not autocast.bf16_pays(device)
