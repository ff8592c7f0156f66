"""What a peer, or a hand-designed network, takes on this device in every runtime that has a profile here."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pipeline.architecture import Architecture, Color
from pipeline.errors import PipelineError
from pipeline.measure import is_this_device, measure_architecture, measure_model
from pipeline.profile import DeviceProfile, profile_from_toml
from pipeline.quantise import int8_from_onnx, openvino_int8_from_onnx
from tests.bench.board import LR_SIZE
from tests.bench.figures import NotRun
from tests.bench.peer_export import metadata_from_peer, onnx_from_peer
from tests.bench.peers import Peer, peer_from_name


def latencies_of_peer(name: str, profiles: Sequence[Path]) -> dict[str, Any]:
    """ "latency_ms" and "profiles", each by candidate: medians scaled by the calibration, and names of profiles.

    Raises NotRun where no profile is of this device and the peer's colour.
    """
    peer = peer_from_name(name, 2).eval()
    here = profiles_of_this_device(peer.color, profiles)
    found = {candidate: measure_model(profile, _model(peer, profile)).median_ms for candidate, profile in here.items()}
    return {"latency_ms": found, "profiles": {candidate: profile.name for candidate, profile in here.items()}}


def latencies_of_network(network: Architecture, profiles: Sequence[Path]) -> dict[str, float]:
    """Candidate -> milliseconds. Raises NotRun likewise."""
    here = profiles_of_this_device(network.color, profiles)
    return {candidate: measure_architecture(profile, network).median_ms for candidate, profile in here.items()}


def profiles_of_this_device(color: Color, profiles: Sequence[Path]) -> dict[str, DeviceProfile]:
    """Candidate -> the profile of this device at x2 and `LR_SIZE`. Raises NotRun where there is none."""
    here = {}
    for path in profiles:
        profile = profile_from_toml(path)
        task = profile.calibration.architecture
        try:
            if (task.scale, task.color, profile.lr_size) == (2, color, LR_SIZE) and not is_this_device(profile):
                here[profile.candidate] = profile
        except PipelineError:  # the runtime is not installed
            continue
    if not here:
        raise NotRun(f"no profile of this device for {color} networks: `sr-pipeline profile` measures one")
    return here


def _model(peer: Peer, profile: DeviceProfile) -> bytes:
    """The peer as the profile's runtime runs it; weights and ranges of INT8 do not matter to its time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peer.onnx"
        onnx_from_peer(peer, path)
        if profile.precision != "int8":
            return path.read_bytes()
        model = onnx.load(path)
    frame = np.random.default_rng(0).random((1, peer.channels, 64, 64), np.float32)
    quantised = (openvino_int8_from_onnx if profile.runtime == "openvino" else int8_from_onnx)(model, [frame])
    metadata = replace(metadata_from_peer(peer), precision="int8")
    onnx.helper.set_model_props(quantised, metadata.to_properties())
    content: bytes = quantised.SerializeToString()
    return content
