"""What a device is measured with: networks as models whose weights are of no use but pack well, and their list."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from deploy.bundle import INDEX, Bundle, Model
from deploy.openers import exported_precision
from pipeline.architecture import Activation, Architecture, Cell, Color
from pipeline.backends import deploy_errors
from pipeline.budget import cost_from_architecture
from pipeline.errors import BackendMissing
from pipeline.fold import plain_from_network
from pipeline.model_facts import metadata_from_architecture
from pipeline.network import network_from_architecture
from pipeline.onnx_graph import GRAPH, onnx_from_network
from pipeline.quantise import INT8_MODELS, int8_from_onnx, openvino_int8_from_onnx, quantisers

PERIOD = 1021  # weights repeat after so many: 4 KB, which a zip finds again
SIDE = 16  # of the random frame that INT8 ranges come from


@dataclass(frozen=True, slots=True)
class Task:
    """What all networks of a profile have in common. lr_size: (height, width) of the frame that is timed."""

    scale: int
    color: Color
    lr_size: tuple[int, int]
    activation: Activation = "relu"
    unshuffle: int = 1


def task_from_architecture(architecture: Architecture, lr_size: tuple[int, int]) -> Task:
    of = architecture
    return Task(of.scale, of.color, lr_size, cast(Activation, of.activation), of.unshuffle)


def calibration_architecture(task: Task) -> Architecture:
    """The network that is measured again whenever a profile is used. Never change it: profiles would be stale."""
    return Architecture(
        "edge",
        task.scale,
        task.color,
        16,
        (Cell(("conv3", "conv3"), (16,)), Cell(("conv3", "conv3"), (16,))),
        activation=task.activation,
        skip="conv3",
        unshuffle=task.unshuffle,
        shuffle=task.scale * task.unshuffle,
    )


def write_workload(
    folder: Path,
    task: Task,
    architectures: Sequence[Architecture],
    runtime: str,
    precision: str,
    on_written: Callable[[int, int], None] | None = None,
) -> Bundle:
    """Writes models for `runtime` in `precision` into `folder`, and bundle.json that lists them.

    on_written: told (models done, all models). Raises BackendMissing for a pair that nothing runs.
    """
    models: list[Model] = []
    every = (calibration_architecture(task), *architectures)
    for at, architecture in enumerate(every):
        content = model_from_architecture(architecture, runtime, precision)
        file = folder / "models" / ("calibration.onnx" if at == 0 else f"{at:03}.onnx")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        macs = cost_from_architecture(architecture, task.lr_size).macs
        models.append(
            Model(f"models/{file.name}", hashlib.sha256(content).hexdigest(), macs, json.loads(architecture.to_json()))
        )
        if on_written is not None:
            on_written(at + 1, len(every))
    bundle = Bundle(runtime, precision, task.lr_size, models[0], tuple(models[1:]))
    (folder / INDEX).write_text(json.dumps(bundle.to_dict()) + "\n", encoding="utf-8")
    return bundle


def exported_versions(precision: str) -> dict[str, str]:
    """What changes when models of `precision` are exported in another way, beside the versions of packages."""
    return {"graph": str(GRAPH)} | ({"int8": str(INT8_MODELS)} if precision == "int8" else {})


def model_from_architecture(architecture: Architecture, runtime: str, precision: str) -> bytes:
    """The ONNX model that `runtime` runs in `precision`, as export writes it, but with weights that mean nothing.

    The same versions make the same bytes. Raises BackendMissing for a pair that nothing runs, or without a quantiser.
    """
    with deploy_errors():
        stored = exported_precision(runtime, precision)
    if (runtime, stored) == ("openvino", "int8") and "nncf" not in quantisers():
        raise BackendMissing(
            "nncf is not installed, which quantises for OpenVINO", "pip install 'sr-pipeline[openvino]'"
        )
    network = plain_from_network(network_from_architecture(architecture))
    pattern = torch.from_numpy(np.random.default_rng(0).standard_normal(PERIOD).astype(np.float32))
    with torch.no_grad():
        for parameter in network.parameters():
            spread = (2 / parameter[0].numel()) ** 0.5 if parameter.dim() > 1 else 0.1  # features keep their size
            repeats = -(-parameter.numel() // PERIOD)
            parameter.copy_(spread * pattern.repeat(repeats)[: parameter.numel()].reshape(parameter.shape))
    told = {
        **metadata_from_architecture(architecture, stored).to_properties(),
        "architecture": architecture.to_json(),
    }
    model = onnx_from_network(network, "fp16" if stored == "fp16" else "fp32", told)
    if stored == "int8":
        frame = np.random.default_rng(0).random((1, architecture.channels, SIDE, SIDE), np.float32)
        model = (openvino_int8_from_onnx if runtime == "openvino" else int8_from_onnx)(model, [frame])
    content: bytes = model.SerializeToString(deterministic=True)
    return content
