"""What a peer's plain form costs, and the ONNX model of it, which every runner of deploy opens."""

import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from deploy.runners import ModelMetadata
from pipeline.budget import Cost
from pipeline.manifest import atomic_path
from pipeline.network import fvcore_macs
from pipeline.onnx_graph import OPSET
from tests.bench.peers import Peer

DYNAMIC = {0: "batch", 2: "height", 3: "width"}


def cost_from_peer(peer: Peer, lr_size: tuple[int, int]) -> Cost:
    """MACs at `lr_size` (height, width), as fvcore counts them, and params of the plain form, slopes included.

    fvcore counts a transposed convolution's weights once for each LR pixel, which is what it multiplies.
    """
    plain = peer.plain().to("cpu", torch.float32)
    frame = torch.zeros(1, peer.channels, *lr_size)
    return Cost(fvcore_macs(plain, frame), sum(parameter.numel() for parameter in plain.parameters()))


def onnx_from_peer(peer: Peer, path: Path) -> None:
    """Writes "lr" (batch, channels, height, width) to "sr", both float32, all sizes dynamic, atomically.

    The older of PyTorch's exporters is used: it writes OPSET itself, where the newer one converts down from a later
    opset, takes seconds, and logs on its way.
    """
    plain = peer.plain().to("cpu", torch.float32)
    frame = torch.zeros(1, peer.channels, 8, 8)
    with atomic_path(path) as temporary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                plain,
                (frame,),
                temporary,
                input_names=["lr"],
                output_names=["sr"],
                opset_version=OPSET,
                dynamic_axes={"lr": DYNAMIC, "sr": {0: "batch"}},
                dynamo=False,
            )
        model = onnx.load(temporary)
        _share_weights(model.graph)
        onnx.helper.set_model_props(model, metadata_from_peer(peer).to_properties())
        onnx.checker.check_model(model, full_check=True)
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def metadata_from_peer(peer: Peer) -> ModelMetadata:
    return ModelMetadata(
        scale=peer.scale,
        color=peer.color,
        multiple=1,
        margin=margin_from_plain(peer.plain()),
        architecture_id=f"{peer.name.lower()}-x{peer.scale}",
        precision="fp32",
    )


def margin_from_plain(plain: nn.Module) -> int:
    """LR pixels around an LR pixel that its SR pixels depend on; a peer is one chain of convolutions, beside skips."""
    reach = 0
    for module in plain.modules():
        if isinstance(module, nn.ConvTranspose2d):
            reach += (module.kernel_size[0] // 2 + module.stride[0] - 1) // module.stride[0]
        elif isinstance(module, nn.Conv2d):
            reach += module.kernel_size[0] // 2
    return reach


def _share_weights(graph: onnx.GraphProto) -> None:
    """Takes out the Identity nodes that stand for equal weights, such as biases of an untrained peer."""
    shared = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    nodes = [node for node in graph.node if node.op_type != "Identity"]
    for node in nodes:
        node.input[:] = [shared.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend(nodes)
