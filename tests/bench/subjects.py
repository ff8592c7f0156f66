"""The networks that inference is timed with: ours of three budgets in ms, peers, and one exported by PyTorch too."""

import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch

from deploy.runners import ModelMetadata
from pipeline.architecture import Architecture, Cell, architecture_from_dict
from pipeline.budget import cost_from_architecture
from pipeline.fold import plain_from_network
from pipeline.model_facts import metadata_from_architecture
from pipeline.network import Network, network_from_architecture
from pipeline.onnx_graph import OPSET, onnx_from_network
from pipeline.quantise import int8_from_onnx, openvino_int8_from_onnx
from tests.bench.board_file import RESULTS, read_results
from tests.bench.peer_export import cost_from_peer, metadata_from_peer, onnx_from_peer
from tests.bench.peers import peer_from_name

PEERS = ("FSRCNN", "ESPCN", "SESR-M5", "ECBSR-M4C16", "QuickSRNet-Small")
# Peers -> the network that a search delivered in their time, by its id in the results of the scoreboard
DELIVERED = {"QuickSRNet-Small": "f4ed9c6dba67", "ECBSR-M4C16": "894b56758a14", "SESR-M5": "211d3b15ba5f"}
OURS, PLAIN = "5 convs, ours", "5 convs, plain"  # the same function of 16 channels
FEATURE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
FUSED = {"Relu", "LeakyRelu", "PRelu", "Clip", "Identity", "Constant"}


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A network to be timed. macs: of one frame. plain: exported and run without anything of ours.

    network: None where it is not exported by us.
    """

    name: str
    color: str
    macs: int
    model: onnx.ModelProto
    metadata: ModelMetadata
    network: Network | None = None
    plain: bool = False

    @property
    def channels(self) -> int:
        return 3 if self.color == "rgb" else 1


def architectures() -> dict[str, Architecture]:
    """What searches delivered in the time of three peers, onnxruntime fp32 on a Xeon with AMX; and 5 convolutions."""
    rows = {row["id"]: row for row in read_results(RESULTS) if row["kind"] == "ours at peer"}
    found = {f"ours for {peer}": rows[delivered] for peer, delivered in DELIVERED.items()}
    five = Cell(("conv3", "conv3", "conv3"), (16, 16), residual=False)
    return {
        **{name: architecture_from_dict(row["network"]) for name, row in found.items()},
        OURS: Architecture("edge", 2, "rgb", 16, (five,), skip="conv3"),
    }


def subjects(lr_size: tuple[int, int]) -> list[Subject]:
    """All of them, with random weights, which cost the time that trained ones cost."""
    found = []
    for name, architecture in architectures().items():
        network = random_network(architecture)
        found.append(subject_from_network(name, network, lr_size))
        if name == OURS:
            model = _as_pytorch_exports(network)
            found.append(replace(found[-1], name=PLAIN, model=model, network=None, plain=True))
    for name in PEERS:
        peer = peer_from_name(name, 2).eval()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "peer.onnx"
            onnx_from_peer(peer, path)
            model = onnx.load(path)
        macs = cost_from_peer(peer, lr_size).macs
        found.append(Subject(name, peer.color, macs, model, metadata_from_peer(peer)))
    return found


def subject_from_network(name: str, network: Network, lr_size: tuple[int, int]) -> Subject:
    """A plain network as we export it."""
    architecture = network.architecture
    macs = cost_from_architecture(architecture, lr_size).macs
    metadata = metadata_from_architecture(architecture, "fp32")
    return Subject(name, architecture.color, macs, onnx_from_network(network, "fp32", {}), metadata, network)


def write(subject: Subject, runtime: str, stored: str, path: Path) -> None:
    """The model as `runtime` runs it in the precision `stored`: fp32, fp16 or int8."""
    model = subject.model
    if stored == "fp16":
        model = _in_half_precision(model) if subject.network is None else onnx_from_network(subject.network, "fp16", {})
    elif stored == "int8":
        frame = np.random.default_rng(0).random((1, subject.channels, 64, 64), np.float32)
        model = (openvino_int8_from_onnx if runtime == "openvino" else int8_from_onnx)(model, [frame])
    onnx.helper.set_model_props(model, replace(subject.metadata, precision=stored).to_properties())
    path.write_bytes(model.SerializeToString())


def _in_half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """All of it, the image too, by onnxruntime's own converter; what it takes and gives stays float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    return converted


def bytes_moved(model: onnx.ModelProto, lr_size: tuple[int, int], feature_bytes: int) -> int:
    """Bytes that one frame has to move where nothing stays in a cache from one layer to the next.

    Every layer reads what it takes, weights included, and writes what it gives, once. An activation is part of the
    layer before it, and an addition reads only what that layer has not just made. Frame and result are float32,
    everything else has `feature_bytes` for each value.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for dim, side in zip(fixed.graph.input[0].type.tensor_type.shape.dim[2:], lr_size, strict=True):
        dim.dim_value = side
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del fixed.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    ends = {graph.input[0].name, graph.output[0].name}
    values = {weight.name: int(np.prod(weight.dims)) for weight in graph.initializer}
    for value in (*graph.value_info, graph.input[0]):
        values[value.name] = int(np.prod([dim.dim_value for dim in value.type.tensor_type.shape.dim]))
    channels = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    values[graph.output[0].name] = channels * 4 * lr_size[0] * lr_size[1]
    moved = 0
    for node in graph.node:
        if node.op_type not in FUSED:
            names = [name for name in (*node.input[node.op_type == "Add" :], *node.output) if name]
            moved += sum(values[name] * (4 if name in ends else feature_bytes) for name in names)
    return moved


def random_network(architecture: Architecture) -> Network:
    network = network_from_architecture(architecture)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return plain_from_network(network)


def _as_pytorch_exports(network: Network) -> onnx.ModelProto:
    size = {0: "batch", 2: "height", 3: "width"}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        file = Path(folder) / "plain.onnx"
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            (torch.zeros(1, network.architecture.channels, 8, 8),),
            file,
            input_names=["lr"],
            output_names=["sr"],
            opset_version=OPSET,
            dynamic_axes={"lr": size, "sr": size},
            dynamo=False,
        )
        return onnx.load(file)
