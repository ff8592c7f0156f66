"""What many tests build on: one seed, the research images, and small networks of every shape the two spaces have."""

import ctypes
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.architecture import Architecture, Cell, Color
from pipeline.manifest import hash_file, read_manifest, write_json, write_manifest
from pipeline.network import Network, network_from_architecture, save_network

CONVS = Cell(("conv3", "conv1", "conv5"), (6, 10))
PLAIN = Cell(("conv3",), (), residual=False)
MIXED = Cell(("dws", "residual", "conv1", "conv3", "dws"), (6, 6, 8, 6))


def edge(path: tuple[Any, ...] = (CONVS,), scale: int = 2, color: Color = "rgb", **fields: Any) -> Architecture:
    return Architecture("edge", scale, color, 8, path, shuffle=scale * fields.get("unshuffle", 1), **fields)


def trilevel(path: tuple[Any, ...], scale: int = 4, **fields: Any) -> Architecture:
    return Architecture("trilevel", scale, "rgb", 8, path, **fields)


EDGE = {
    "x2": edge(),
    "no cells": edge((), stem=5, tail=1),
    "x3, no skip": edge(scale=3, skip="none", tail=5),
    "x4, 1x1 skip": edge((PLAIN, CONVS), scale=4, skip="conv1"),
    "3x3 skip": edge((PLAIN,), skip="conv3", activation="leaky_relu"),
    "prelu": edge((CONVS, CONVS), activation="prelu", stem=1),
    "acon": edge((CONVS, PLAIN), activation="acon"),
    "acon, narrow tail": edge((CONVS,), activation="acon", tail_width=4, skip="conv3"),
    "luma": edge(color="y", skip="conv5"),
    "luma, prelu": edge((PLAIN,), color="y", activation="prelu", scale=3),
    "narrow tail": edge((PLAIN,), tail_width=4, skip="conv3", activation="prelu"),
    "narrow tail x3": edge((CONVS,), scale=3, tail=5, tail_width=6),
    "unshuffled": edge((CONVS,), unshuffle=2),
    "unshuffled, skip": edge((PLAIN,), unshuffle=2, stem=5, skip="conv3"),
    "unshuffled x3, skip": edge((CONVS,), unshuffle=2, scale=3, stem=1, skip="conv1"),
    "unshuffled luma x4": edge((PLAIN,), unshuffle=2, scale=4, color="y", skip="conv5"),
}
TRILEVEL = {
    "variant A": trilevel((MIXED, "up", MIXED, "up"), shuffle=1, skip="none"),
    "variant A, nearest": trilevel((MIXED, "up", "up"), shuffle=1, skip="nearest"),
    "variant A, unshuffled": trilevel((MIXED, "up", "up"), scale=2, shuffle=1, skip="none", unshuffle=2),
    "variant B": trilevel((MIXED, "up", MIXED), shuffle=4, skip="none"),
    "variant B, skip": trilevel((MIXED,), shuffle=4, skip="conv3"),
}


def cases(table: dict[str, Architecture]) -> list[Any]:
    return [pytest.param(architecture, id=name) for name, architecture in table.items()]


@pytest.fixture(autouse=True)
def seed() -> int:
    """Every test starts from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return 0


@pytest.fixture(scope="session")
def sr_data() -> Path:
    """The folder of the research images, SR_DATA or ../shared/data; where it is missing the test is skipped."""
    folder = Path(os.environ.get("SR_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "benchmarks").is_dir():
        pytest.skip(f"no research images in {folder}; name their folder with the environment variable SR_DATA")
    return folder


@pytest.fixture(params=cases(EDGE))
def edge_architecture(request: pytest.FixtureRequest) -> Architecture:
    architecture: Architecture = request.param
    return architecture


@pytest.fixture(params=cases(TRILEVEL))
def trilevel_architecture(request: pytest.FixtureRequest) -> Architecture:
    architecture: Architecture = request.param
    return architecture


@pytest.fixture(params=cases(EDGE | TRILEVEL))
def architecture(request: pytest.FixtureRequest) -> Architecture:
    architecture: Architecture = request.param
    return architecture


@pytest.fixture
def random_network() -> Callable[..., Network]:
    """Builds a network in its training form whose parameters, biases and slopes included, are all random."""

    def build(architecture: Architecture, dtype: torch.dtype = torch.float32, seed: int = 0) -> Network:
        network = network_from_architecture(architecture).to(dtype).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in network.parameters():
                spread = 0.5 if parameter.dim() < 2 else parameter[0].numel() ** -0.5
                parameter.copy_(spread * torch.randn(parameter.shape, generator=generator, dtype=dtype))
        return network

    return build


@pytest.fixture
def searched_run(tmp_path: Path, random_network: Callable[..., Network]) -> Callable[..., Path]:
    """Writes what a finished search leaves behind, with a random network of an architecture, and returns the run."""

    def write(architecture: Architecture = EDGE["x2"], seed: int = 0) -> Path:
        folder = tmp_path / "run" / "search"
        save_network(folder / "weights.safetensors", random_network(architecture, seed=seed))
        write_json(folder / "architecture.json", architecture.to_dict())
        write_json(folder / "report.json", {"schema": 1, "psnr_y": 31.25})
        outputs = ["weights.safetensors", "architecture.json", "report.json"]
        write_manifest(folder, inputs={}, settings={}, seed=seed, outputs=outputs)
        return folder.parent

    return write


@pytest.fixture
def cuda_driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for libcuda with one GPU, whose memory is the host's: `memory` holds what is allocated."""
    memory: dict[int, Any] = {}

    def put(pointer: Any, value: int) -> int:
        pointer._obj.value = value
        return 0

    def allocate(pointer: Any, size: int) -> int:
        block = ctypes.create_string_buffer(size)
        memory[ctypes.addressof(block)] = block
        return put(pointer, ctypes.addressof(block))

    def name(text: Any, *_: object) -> int:
        text.value = b"NVIDIA Test"
        return 0

    def copy(target: int, source: int, size: int, _: object) -> int:
        ctypes.memmove(target, source, size)
        return 0

    driver = SimpleNamespace(
        memory=memory,
        cuInit=lambda _: 0,
        cuDeviceGet=lambda pointer, index: put(pointer, index),
        cuDeviceGetName=name,
        cuDeviceGetAttribute=lambda pointer, number, _: put(pointer, {75: 8, 76: 9}[number]),
        cuDevicePrimaryCtxRetain=lambda pointer, _: put(pointer, 1),
        cuDevicePrimaryCtxRelease_v2=lambda _: 0,
        cuCtxSetCurrent=lambda _: 0,
        cuStreamCreate=lambda pointer, _: put(pointer, 7),
        cuStreamDestroy_v2=lambda _: 0,
        cuStreamSynchronize=lambda _: 0,
        cuMemAlloc_v2=allocate,
        cuMemFree_v2=lambda address: 0 if memory.pop(address, None) else 1,
        cuMemcpyHtoDAsync_v2=lambda *arguments: copy(*arguments),
        cuMemcpyDtoHAsync_v2=lambda *arguments: copy(*arguments),
    )
    monkeypatch.setattr("deploy.cuda.ctypes.CDLL", lambda _: driver)
    return driver


SMALL_RUN = """
[data]
train = ["{photographs}/train"]
benchmarks = ["{photographs}/held-out"]
[budget]
macs = "400K"
lr_size = [10, 10]
[search]
steps = 12
[train]
batch = 2
patch = 16
[verify]
fp16_mean_quality_drop_db = 0.01
min_gain_over_bicubic_db = -20.0
"""


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs/{train,held-out}, small.toml, and `run`, which went through all stages with it.

    For all tests: who changes something in it works on a copy.
    """
    from PIL import Image

    from pipeline.cli import main
    from pipeline.images import image_files, read_image

    files = [file for name in ("train", "test") for file in image_files(f"scikit-image:{name}", 2)]
    face, cup = (read_image(next(file.hr for file in files if file.name == name)) for name in ("astronaut", "coffee"))
    folder = tmp_path_factory.mktemp("small")
    crops = {"train/face": face[40:140, 160:270], "train/flag": face[:96, :96]}
    crops |= {"held-out/cup": cup[100:181, 200:287], "held-out/spoon": cup[200:270, 400:470]}
    for name, pixels in crops.items():
        path = folder / "photographs" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    config = folder / "small.toml"
    config.write_text(SMALL_RUN.format(photographs=folder / "photographs"))
    assert main(["run", "-c", str(config), "-o", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def change_report() -> Callable[..., None]:
    """Changes entries of RUN/verify/report.json, and the record of the file."""

    def change(run: Path, **values: Any) -> None:
        path = run / "verify" / "report.json"
        write_json(path, json.loads(path.read_text()) | values)
        manifest = read_manifest(run / "verify")
        outputs = manifest.outputs | {path.name: hash_file(path)}
        write_json(run / "verify" / "manifest.json", asdict(replace(manifest, outputs=outputs)))

    return change


@pytest.fixture
def measured_run(small_run: Path, tmp_path: Path, change_report: Callable[..., None]) -> Path:
    """A copy of `small_run`'s run whose verification has times, layers, and a runtime that is missing."""
    run = Path(shutil.copytree(small_run / "run", tmp_path / "runs" / "small"))
    times = {"onnxruntime fp32": 12.0, "onnxruntime fp16": 20.0}
    rows = [
        {
            "candidate": candidate,
            "runtime": candidate.split()[0],
            "precision": candidate.split()[1],
            "device": "A processor",
            "lr_size": [10, 10],
            "threads": 2,
            "median_ms": ms,
            "p10_ms": 0.9 * ms,
            "p90_ms": 1.1 * ms,
            "p99_ms": 1.5 * ms,
            "runs": 30,
            "load_ms": 40.0,
            "first_ms": 31.0,
            "peak_memory_mib": 123.4,
            "model_bytes": 64_068,
        }
        for candidate, ms in times.items()
    ]
    layers = [("stem", "Conv", 3.0), ("tail", "Conv", 1.0), ("shuffle", "DepthToSpace", 1.0)]
    change_report(
        run,
        latency=rows,
        profile={
            "name": "desk",
            "candidate": "openvino bf16",
            "drift": 1.03,
            "predicted_ms": 11.0,
            "measured_ms": 12.5,
            "latency_ms": 12.5,
            "budget_ms": 15.0,
            "not_measured": None,
        },
        layers={"onnxruntime fp32": [{"name": name, "op": op, "ms": ms} for name, op, ms in layers]},
        not_run=[{"candidate": "tensorrt fp16", "reason": "no NVIDIA GPU"}],
    )
    return run
