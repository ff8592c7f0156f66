"""The ONNX model of a plain network, node by node."""

import copy
import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import onnx
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from pipeline import __version__
from pipeline.architecture import Architecture, summary
from pipeline.blocks import ACON, SHARPNESS
from pipeline.fold import stride_over_blocks
from pipeline.network import Network, nearest_matrix

Precision = Literal["fp32", "fp16"]

# Nothing newer is needed, and runtimes since 2022 read these, those of older Jetson releases included.
OPSET = 17
GRAPH = 2  # raised when a network is written as other nodes: exports are made, and devices measured, anew
IR_VERSION = 8

TYPES = {"fp32": (TensorProto.FLOAT, np.float32), "fp16": (TensorProto.FLOAT16, np.float16)}


def onnx_from_network(network: Network, precision: Precision, properties: Mapping[str, str]) -> onnx.ModelProto:
    """The model of a plain `network`: "lr" (batch, channels, height, width) to "sr", both float32, all sizes dynamic.

    The graph is written from torch.fx's trace of the network, so its bytes depend on nothing but the arguments. It has
    one node per operation, but for two that runtimes are slow at: the LR image is repeated by a convolution that is
    added before the shuffle, and a shuffle by 2 is a transposed convolution with ones. Both are exact. An ACON, which
    ONNX does not have, is five nodes.
    With fp16, convolutions and what stands between them work in half precision; the skip, through which the image
    itself goes, stays in float32 and is added in float32.

    properties: text pairs stored in the model. Raises ValueError for a training form or an operation without a
    counterpart.
    """
    if network.form != "plain":
        raise ValueError("fold the network first: plain_from_network")
    architecture, network = network.architecture, _repeated_by_convolution(network)
    graph = _Graph(precision, architecture.channels)
    modules = dict(network.named_modules())
    names: dict[fx.Node, str] = {}
    for node in _Tracer().trace(network).nodes:
        inputs = [names[argument] for argument in node.all_input_nodes]
        match node.op:
            case "placeholder":
                names[node] = graph.declare("lr", "fp32")
            case "call_module":
                names[node] = graph.module(node.name, modules[node.target], *inputs)
            case "call_function" | "call_method":
                names[node] = graph.function(node.name, node, inputs)
            case "output":
                graph.finish(inputs[0])
    return _checked(graph, architecture, properties)


def _repeated_by_convolution(network: Network) -> Network:
    """The network with its repeated LR image, if it has one and shuffles, as a convolution of ones and zeros."""
    architecture = network.architecture
    if architecture.skip != "nearest" or architecture.shuffle == 1:
        return network
    network = copy.deepcopy(network)
    network.architecture = replace(architecture, skip="conv1")
    matrix = nearest_matrix(architecture)
    outputs, inputs = matrix.shape
    network.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
    network.skip.weight = nn.Parameter(matrix[:, :, None, None])
    stride_over_blocks(network.skip, architecture.unshuffle)
    return network


class _Tracer(fx.Tracer):
    """Takes an activation for one operation."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, ACON) or super().is_leaf_module(m, module_qualified_name)


class _Graph:
    """Nodes and weights so far, and the precision of every value."""

    def __init__(self, precision: Precision, channels: int) -> None:
        self.precision: Precision = precision
        self.channels = channels  # of the image
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.precisions: dict[str, Precision] = {}

    def declare(self, name: str, precision: Precision) -> str:
        self.precisions[name] = precision
        return name

    def weight(self, name: str, value: NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, op: str, name: str, inputs: list[str], precision: Precision, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return self.declare(name, precision)

    def cast(self, value: str, precision: Precision) -> str:
        """`value` in the precision asked for; cast once however often it is asked."""
        if self.precisions[value] == precision:
            return value
        name = f"{value}_{precision}"
        if name in self.precisions:
            return name
        return self.add("Cast", name, [value], precision, to=TYPES[precision][0])

    def array(self, tensor: Tensor, precision: Precision) -> NDArray[Any]:
        return tensor.detach().cpu().numpy().astype(TYPES[precision][1])

    def module(self, name: str, module: nn.Module, value: str) -> str:
        match module:
            case nn.Identity():
                return value
            case nn.Conv2d():
                precision: Precision = "fp32" if name == "skip" else self.precision
                weights = [self.weight(f"{name}_weight", self.array(module.weight, precision))]
                if module.bias is not None:
                    weights.append(self.weight(f"{name}_bias", self.array(module.bias, precision)))
                return self.add(
                    "Conv",
                    name,
                    [self.cast(value, precision), *weights],
                    precision,
                    kernel_shape=module.kernel_size,
                    strides=module.stride,
                    pads=[*module.padding, *module.padding],
                    group=module.groups,
                )
            case nn.ReLU():
                return self.add("Relu", name, [value], self.precisions[value])
            case nn.LeakyReLU():
                return self.add("LeakyRelu", name, [value], self.precisions[value], alpha=module.negative_slope)
            case nn.PReLU():
                slope = self.weight(f"{name}_slope", self.array(module.weight, self.precision)[:, None, None])
                return self.add("PRelu", name, [value, slope], self.precisions[value])
            case ACON():
                return self.acon(name, module, value)
            case _:
                raise ValueError(f"no ONNX operation for {type(module).__name__} at {name}")

    def acon(self, name: str, module: ACON, value: str) -> str:
        precision = self.precisions[value]
        slope = self.array(module.weight, precision)
        sharpness = self.weight(f"{name}_sharpness", np.array(SHARPNESS, TYPES[precision][1]))
        gate = self.add(
            "Sigmoid", f"{name}_gate", [self.add("Mul", f"{name}_sharp", [value, sharpness], precision)], precision
        )
        rise = self.add("Mul", f"{name}_rise", [gate, self.weight(f"{name}_above", 1 - slope)], precision)
        share = self.add("Add", f"{name}_share", [rise, self.weight(f"{name}_slope", slope)], precision)
        return self.add("Mul", name, [value, share], precision)

    def function(self, name: str, node: fx.Node, inputs: list[str]) -> str:
        precision = self.precisions[inputs[0]]
        match node.target:
            case F.relu:
                return self.add("Relu", name, inputs, precision)
            case F.leaky_relu:
                return self.add("LeakyRelu", name, inputs, precision, alpha=node.kwargs["negative_slope"])
            case F.pixel_shuffle if node.args[1] == 2:
                return self.shuffle_by_2(name, inputs[0])
            case F.pixel_shuffle:
                return self.add("DepthToSpace", name, inputs, precision, blocksize=node.args[1], mode="CRD")
            case operator.add if len(inputs) == 2:
                wider: Precision = "fp32" if "fp32" in {self.precisions[value] for value in inputs} else "fp16"
                return self.add("Add", name, [self.cast(value, wider) for value in inputs], wider)
            case operator.mul if len(inputs) == 1:
                factor = next(argument for argument in node.args if isinstance(argument, float))
                factor_name = self.weight(f"{name}_factor", np.array(factor, TYPES[precision][1]))
                return self.add("Mul", name, [*inputs, factor_name], precision)
            case F.interpolate if node.kwargs["mode"] == "nearest":
                side = node.kwargs["scale_factor"]
                scales = self.weight(f"{name}_scales", np.array([1, 1, side, side], np.float32))
                return self.add(
                    "Resize",
                    name,
                    [*inputs, "", scales],
                    precision,
                    mode="nearest",
                    coordinate_transformation_mode="asymmetric",
                    nearest_mode="floor",
                )
            case _:
                raise ValueError(f"no ONNX operation for {node.target} at {name}")

    def shuffle_by_2(self, name: str, value: str) -> str:
        """pixel_shuffle as a transposed convolution: it lays the 4 planes of a channel side by side.

        DepthToSpace takes 4 times as long in onnxruntime. Larger shuffles are left to it: they would multiply more.
        """
        precision = self.precisions[value]
        planes = np.eye(4, dtype=TYPES[precision][1]).reshape(4, 1, 2, 2)
        weight = self.weight(f"{name}_planes", np.tile(planes, (self.channels, 1, 1, 1)))
        return self.add(
            "ConvTranspose",
            name,
            [value, weight],
            precision,
            kernel_shape=[2, 2],
            strides=[2, 2],
            group=self.channels,
        )

    def finish(self, value: str) -> None:
        """Ends in a float32 value named "sr"."""
        if self.precisions[value] != "fp32":
            self.add("Cast", "sr", [value], "fp32", to=TensorProto.FLOAT)
            return
        last = next(node for node in self.nodes if node.output[0] == value)
        last.name = last.output[0] = "sr"


def _checked(graph: _Graph, architecture: Architecture, properties: Mapping[str, str]) -> onnx.ModelProto:
    scale, channels = architecture.scale, architecture.channels
    lr = helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["batch", channels, "height", "width"])
    sr = helper.make_tensor_value_info(
        "sr", TensorProto.FLOAT, ["batch", channels, f"{scale}*height", f"{scale}*width"]
    )
    model = helper.make_model(
        helper.make_graph(graph.nodes, f"sr_{architecture.id}", [lr], [sr], graph.weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sr-pipeline",
        producer_version=__version__,
        doc_string=summary(architecture),
    )
    helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model, full_check=True)
    return model
