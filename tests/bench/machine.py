"""What this machine can do at most: multiply-adds in a runtime and precision, and bytes from and to memory."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.onnx_graph import IR_VERSION, OPSET

# Of what fills a processor: op, and shape of what it reads and of its weights. The best one counts.
FILLING: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = (
    ("MatMul", (1024, 1024), (1024, 1024)),
    ("MatMul", (2048, 2048), (2048, 2048)),
    ("Conv", (1, 64, 256, 256), (64, 64, 3, 3)),
)
COPIED = 512 * 2**20  # bytes, more than any cache holds
RUNS = 6  # the best one counts

Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def peak_macs(runtime: str, precision: str, threads: int) -> float:
    """Multiply-adds per second of large products of two matrices and of a convolution, whichever has most.

    Weights are constant. In int8 all is quantised as the networks are: what is read when it is, weights beforehand.
    """
    rates = []
    for op, shape, weights in FILLING:
        model = _one_layer(op, shape, weights, quantised=precision == "int8").SerializeToString()
        if runtime == "openvino":
            run: Infer = partial(openvino_infer, openvino_request(model, precision, threads, shape))
        else:
            run = _onnxruntime_session(model, threads)
        values = np.random.default_rng(0).random(shape, np.float32)
        products = shape[0] if op == "MatMul" else shape[2] * shape[3]
        rates.append(products * prod(weights) / _fastest(partial(run, values)))
    return max(rates)


def bandwidth(threads: int) -> float:
    """Bytes per second of a copy in memory, reads and writes counted, with as many threads as a network has."""
    parts = [np.zeros((2, COPIED // threads), np.uint8) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            for done in [pool.submit(np.copyto, part[0], part[1]) for part in parts]:
                done.result()

        return 2 * COPIED / _fastest(copy)


def _fastest(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def openvino_request(
    model: bytes, precision: str, threads: int, shape: tuple[int, ...], *, counters: bool = False
) -> Any:
    """A request of a model for arrays of `shape`, as OpenVINO's own examples make it. counters: of its layers."""
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape([*shape])
    settings = {
        "INFERENCE_PRECISION_HINT": {"bf16": "bf16", "fp16": "f16"}.get(precision, "f32"),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "PERF_COUNT": counters,
    }
    return core.compile_model(network, "CPU", settings).create_infer_request()


def openvino_infer(request: Any, array: NDArray[np.float32]) -> NDArray[np.float32]:
    output: NDArray[np.float32] = request.infer([array])[0]
    return output


def _onnxruntime_session(model: bytes, threads: int) -> Infer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def infer(array: NDArray[np.float32]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = session.run(None, {"a": array})[0]
        return output

    return infer


def _one_layer(op: str, shape: tuple[int, ...], weights_shape: tuple[int, ...], *, quantised: bool) -> onnx.ModelProto:
    values = np.random.default_rng(1).random(weights_shape, np.float32) - 0.5
    weights = [numpy_helper.from_array(values, "b")]
    settings: dict[str, Any] = {"pads": [1] * 4} if op == "Conv" else {}
    nodes = [helper.make_node(op, ["a", "b"], ["c"], **settings)]
    if quantised:
        weights = [
            numpy_helper.from_array(np.round(values * 254).astype(np.int8), "b_int8"),
            numpy_helper.from_array(np.array(1 / 254, np.float32), "b_step"),
            numpy_helper.from_array(np.array(1 / 255, np.float32), "a_step"),
            numpy_helper.from_array(np.array(0, np.int8), "b_zero"),
            numpy_helper.from_array(np.array(0, np.uint8), "a_zero"),
        ]
        nodes = [
            helper.make_node("QuantizeLinear", ["a", "a_step", "a_zero"], ["a_int8"]),
            helper.make_node("DequantizeLinear", ["a_int8", "a_step", "a_zero"], ["a_float"]),
            helper.make_node("DequantizeLinear", ["b_int8", "b_step", "b_zero"], ["b_float"]),
            helper.make_node(op, ["a_float", "b_float"], ["c"], **settings),
        ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("a", "c")]
    graph = helper.make_graph(nodes, "layer", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
