"""A teacher: a trained network, from ONNX or safetensors, whose output a search can learn from."""

from pathlib import Path

import torch
from torch import Tensor

from deploy.runners import Runner
from deploy.upscale import Infer
from pipeline.architecture import Color
from pipeline.backends import open_model
from pipeline.errors import ConfigError
from pipeline.network import load_network
from pipeline.torch_runner import Device, TorchRunner


def teacher_from_file(path: Path, scale: int, color: Color, patch: int, device: Device = "cpu") -> Infer:
    """What maps LR to SR, (batch, channels, h, w) arrays in [0, 1], for a .onnx or .safetensors file or a run.

    patch: side of the LR patches it will be shown. device: that a .safetensors file is run on; ONNX Runtime runs the
    others on the CPU. Raises ConfigError where the file is of another kind, scale or colour or cannot read such
    patches, StaleArtifact where it is damaged.
    """
    path = teacher_file(path)
    match path.suffix:
        case ".onnx":
            runner: Runner = open_model(path).__enter__()
        case ".safetensors":
            runner = TorchRunner(load_network(path), device)
        case _:
            raise ConfigError(f"{path} is no teacher", "name a .onnx or .safetensors file in train.teacher")
    facts = runner.metadata
    if (facts.scale, facts.color) != (scale, color):
        raise ConfigError(
            f"the teacher {path} is x{facts.scale} {facts.color}, the task is x{scale} {color}",
            "set train.teacher to a network of the same task",
        )
    if patch % facts.multiple:
        raise ConfigError(f"the teacher reads multiples of {facts.multiple}, not patches of {patch}", "set train.patch")
    return runner.infer


def teacher_file(path: Path) -> Path:
    """The file itself, or the weights of a run directory. Raises ConfigError where there is neither."""
    file = path / "search" / "weights.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"no teacher at {path}", "name an .onnx, a .safetensors or a run directory in train.teacher")
    return file


def taught(infer: Infer, lr: Tensor) -> Tensor:
    """The teacher's output for a batch of LR patches, clamped to [0, 1]."""
    return torch.from_numpy(infer(lr.contiguous().numpy())).clamp_(0, 1)
