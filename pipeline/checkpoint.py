"""What an interrupted training needs to go on as if it had not been interrupted."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.errors import StaleArtifact
from pipeline.manifest import atomic_path

RESTART = "delete it to start the search again"


def save_checkpoint(
    path: Path, identity: str, module: nn.Module, optimizer: torch.optim.Optimizer, notes: dict[str, Any]
) -> None:
    """Writes weights, buffers, optimizer moments and JSON `notes`, atomically. identity: what the training is of."""
    tensors = {f"module.{name}": tensor.detach().clone() for name, tensor in module.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor.clone() for name, tensor in moments.items()}
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(contiguous, {"identity": identity, "notes": json.dumps(notes)}))


class Checkpoint:
    """A checkpoint that was read; `restore` puts it into a module and its optimizer of the same shape."""

    def __init__(self, path: Path, identity: str, notes: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.path, self.identity, self.notes, self._tensors = path, identity, notes, tensors

    @classmethod
    def read(cls, path: Path) -> "Checkpoint | None":
        """The checkpoint at `path`, or None where there is none. Raises StaleArtifact for a file that is damaged."""
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls(path, metadata["identity"], json.loads(metadata["notes"]), tensors)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise StaleArtifact(f"{path} is damaged: {error}", RESTART) from error

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Raises StaleArtifact where it does not fit, before anything has trained on it."""
        try:
            self._restore(module, optimizer)
        except (RuntimeError, KeyError, IndexError, ValueError) as error:
            raise StaleArtifact(f"{self.path} is damaged: {error}", RESTART) from error

    def _restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        module.load_state_dict(self._part("module."))
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in self._part("optimizer.").items():
            index, _, moment = name.partition(".")
            parameter = parameters[int(index)]
            if tensor.shape == parameter.shape:
                # The fused optimizer expects moments in the memory format of their parameter.
                tensor = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
            state.setdefault(int(index), {})[moment] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in self._tensors.items() if name.startswith(prefix)}
