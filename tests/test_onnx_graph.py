from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from deploy.runners import Frame
from pipeline.architecture import Architecture, Cell, summary
from pipeline.fold import plain_from_network
from pipeline.network import Network
from pipeline.onnx_graph import Precision, onnx_from_network

Build = Callable[..., Network]

ACTIVATIONS = {
    "relu": Counter(["Relu"]),
    "leaky_relu": Counter(["LeakyRelu"]),
    "prelu": Counter(["PRelu"]),
    "acon": Counter({"Mul": 3, "Sigmoid": 1, "Add": 1}),
}


def run(model: onnx.ModelProto, frame: Frame) -> Frame:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output: Frame = session.run(["sr"], {"lr": frame})[0]
    return output


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 1e-2)])
def test_model_is_the_same_function_at_every_size(
    architecture: Architecture, precision: Precision, tolerance: float, random_network: Build
) -> None:
    plain = plain_from_network(random_network(architecture))
    model = onnx_from_network(plain, precision, {})
    step = architecture.unshuffle
    for batch, height, width in ((1, 6, 10), (2, 9 * step, 5 * step), (1, step, step)):
        lr = torch.rand(batch, architecture.channels, height, width, generator=torch.Generator().manual_seed(1))
        expected, found = plain(lr).numpy(), run(model, lr.numpy())
        assert found.shape == (
            batch,
            architecture.channels,
            height * architecture.scale,
            width * architecture.scale,
        )
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < tolerance * max(1, np.abs(expected).max())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_edge_is_made_of_four_operations(
    edge_architecture: Architecture, precision: Precision, random_network: Build
) -> None:
    """Conv, the activation, Add, and one shuffle, which is a ConvTranspose where it is by 2; Cast at the borders of
    fp16. No Resize: the repeated image is a convolution.
    """
    found = ops(onnx_from_network(plain_from_network(random_network(edge_architecture)), precision, {}))
    cells = edge_architecture.cells
    convs = 2 + sum(len(cell.ops) for cell in cells)
    skip = edge_architecture.skip != "none"
    expected = {
        "Conv": convs + skip + (edge_architecture.tail_width > 0),
        "Add": sum(cell.residual for cell in cells) + skip,
        "ConvTranspose" if edge_architecture.shuffle == 2 else "DepthToSpace": 1,
        "Cast": 2 if precision == "fp16" else 0,
    }
    for op, count in ACTIVATIONS[edge_architecture.activation].items():
        expected[op] = expected.get(op, 0) + count * (convs - 1)
    assert found == Counter({op: count for op, count in expected.items() if count})


def test_trilevel_adds_a_scaled_chain(trilevel_architecture: Architecture, random_network: Build) -> None:
    found = ops(onnx_from_network(plain_from_network(random_network(trilevel_architecture)), "fp32", {}))
    assert found.keys() <= {"Conv", "Relu", "LeakyRelu", "Add", "Mul", "Resize", "DepthToSpace"}
    assert found["Mul"] == len(trilevel_architecture.cells)
    assert found["DepthToSpace"] == (trilevel_architecture.shuffle > 1)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_model_is_valid_and_self_contained(
    architecture: Architecture, precision: Precision, random_network: Build
) -> None:
    model = onnx_from_network(plain_from_network(random_network(architecture)), precision, {"who": "tests"})
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    channels, scale = architecture.channels, architecture.scale
    for value, name, dims in (
        (inferred.graph.input[0], "lr", ["batch", channels, "height", "width"]),
        (inferred.graph.output[0], "sr", ["batch", channels, f"{scale}*height", f"{scale}*width"]),
    ):
        shape = value.type.tensor_type.shape.dim
        assert value.name == name
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
        assert [dim.dim_param or dim.dim_value for dim in shape] == dims
    halves = {weight.name for weight in model.graph.initializer if weight.data_type == TensorProto.FLOAT16}
    floats = {weight.name for weight in model.graph.initializer} - halves
    assert bool(halves) == (precision == "fp16")
    if precision == "fp16":  # the image's own path alone
        assert all(name.startswith(("skip_", "pixel_shuffle_")) or name.endswith("_scales") for name in floats)
    assert all(weight.data_location == TensorProto.DEFAULT for weight in model.graph.initializer)
    assert all(node.attribute[-1].s == b"CRD" for node in model.graph.node if node.op_type == "DepthToSpace")
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("who", "tests")]
    assert model.doc_string == summary(architecture)
    assert ({entry.domain: entry.version for entry in model.opset_import}, model.ir_version) == ({"": 17}, 8)


@pytest.mark.parametrize(
    ("scale", "unshuffle", "skip"), [(2, 1, "nearest"), (3, 1, "nearest"), (2, 2, "nearest"), (2, 1, "conv3")]
)
def test_image_keeps_its_precision_in_fp16(scale: int, unshuffle: int, skip: str, random_network: Build) -> None:
    shuffle = scale * unshuffle
    network = random_network(Architecture("edge", scale, "rgb", 8, (), unshuffle=unshuffle, shuffle=shuffle, skip=skip))
    with torch.no_grad():
        for parameter in network.tail.parameters():
            parameter.zero_()
    plain = plain_from_network(network)
    lr = np.random.default_rng(0).random((1, 3, 6, 4), np.float32)
    enlarged = run(onnx_from_network(plain, "fp16", {}), lr)
    np.testing.assert_allclose(enlarged, plain(torch.from_numpy(lr)).numpy(), atol=1e-6 * (skip != "nearest"))
    if skip == "nearest":
        np.testing.assert_array_equal(enlarged, lr.repeat(scale, axis=2).repeat(scale, axis=3))


def test_same_network_makes_the_same_bytes(architecture: Architecture, random_network: Build) -> None:
    first, second = (
        onnx_from_network(plain_from_network(random_network(architecture)), "fp16", {"a": "1", "b": "2"})
        for _ in range(2)
    )
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_strides_take_the_place_of_a_rearranged_input(random_network: Build) -> None:
    network = random_network(Architecture("edge", 2, "rgb", 8, (), unshuffle=2, shuffle=4, skip="conv3"))
    model = onnx_from_network(plain_from_network(network), "fp32", {})
    readers = [node for node in model.graph.node if node.input[0] == "lr"]
    attributes = [{entry.name: list(entry.ints) for entry in node.attribute if entry.ints} for node in readers]
    expected = {"kernel_shape": [6, 6], "strides": [2, 2], "pads": [2, 2, 2, 2]}
    assert [fields | expected for fields in attributes] == attributes
    assert len(readers) == 2
    shapes = {weight.name: numpy_helper.to_array(weight).shape for weight in model.graph.initializer}
    assert shapes["stem_weight"] == (8, 3, 6, 6)


def test_nothing_reaches_the_user(random_network: Build, capfd: pytest.CaptureFixture[str]) -> None:
    onnx_from_network(plain_from_network(random_network(Architecture("edge", 2, "rgb", 8, ()))), "fp16", {})
    assert capfd.readouterr() == ("", "")


class Exponential(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.exp()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("form", "fold the network first"),
        ("module", "no ONNX operation for GELU at stem_activation"),
        ("function", "no ONNX operation for exp at exp"),
    ],
)
def test_what_cannot_be_written_is_refused(change: str, message: str, random_network: Build) -> None:
    network = random_network(Architecture("edge", 2, "rgb", 8, (Cell(("conv3",), ()),)))
    if change != "form":
        network = plain_from_network(network)
        network.stem_activation = nn.GELU() if change == "module" else Exponential()
    with pytest.raises(ValueError, match=message):
        onnx_from_network(network, "fp32", {})
