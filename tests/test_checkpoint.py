from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from pipeline.checkpoint import Checkpoint, save_checkpoint
from pipeline.errors import StaleArtifact


def _trained(steps: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module: torch.nn.Module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 3, 3))
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module.register_buffer("count", torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.AdamW([{"params": list(module.parameters()), "factor": 1.0}], lr=0.01, fused=True)
    _train(module, optimizer, range(steps))
    return module, optimizer


def _train(module: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: Iterable[int]) -> None:
    for step in steps:
        batch = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        module(batch).square().mean().backward()
        optimizer.step()
        module.get_buffer("count").add_(1)


def test_a_restored_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    module, optimizer = _trained(5)
    save_checkpoint(tmp_path / "c.safetensors", "this", module, optimizer, {"step": 5})
    _train(module, optimizer, range(5, 9))

    resumed, its_optimizer = _trained(0)
    checkpoint = Checkpoint.read(tmp_path / "c.safetensors")
    assert checkpoint is not None
    assert (checkpoint.identity, checkpoint.notes) == ("this", {"step": 5})
    checkpoint.restore(resumed, its_optimizer)
    _train(resumed, its_optimizer, range(5, 9))
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_where_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert Checkpoint.read(tmp_path / "absent.safetensors") is None


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(b"not tensors")
    with pytest.raises(StaleArtifact, match="damaged") as error:
        Checkpoint.read(path)
    assert "delete it" in error.value.hint


def test_a_checkpoint_that_does_not_fit_is_damaged(tmp_path: Path) -> None:
    module, optimizer = _trained(2)
    save_checkpoint(tmp_path / "c.safetensors", "this", module, optimizer, {})
    checkpoint = Checkpoint.read(tmp_path / "c.safetensors")
    assert checkpoint is not None
    other = torch.nn.Conv2d(3, 4, 3)
    with pytest.raises(StaleArtifact, match="damaged"):
        checkpoint.restore(other, torch.optim.AdamW(other.parameters(), fused=True))


def test_others_may_read_a_checkpoint(tmp_path: Path) -> None:
    module, optimizer = _trained(1)
    save_checkpoint(tmp_path / "c.safetensors", "this", module, optimizer, {})
    (tmp_path / "plain").touch()
    assert (tmp_path / "c.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
