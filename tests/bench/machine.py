"""What this machine can do at most: multiply-adds in a runtime and precision, and bytes from and to memory."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.onnx_graph import IR_VERSION, OPSET

SIDES = (1024, 2048)  # of the matrices; the better one counts
COPIED = 512 * 2**20  # bytes, more than any cache holds
RUNS = 6  # the best one counts

Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def peak_macs(runtime: str, precision: str, threads: int) -> float:
    """Multiply-adds per second of a product of two square matrices, the second one constant, as a layer's weights are.

    In int8 both are quantised as the networks are: the first when it is read, the second beforehand.
    """
    rates = []
    for side in SIDES:
        model = _matrix_product(side, quantised=precision == "int8").SerializeToString()
        if runtime == "openvino":
            run = openvino_request(model, precision, threads, (side, side))
        else:
            run = _onnxruntime_session(model, threads)
        factor = np.random.default_rng(0).random((side, side), np.float32)
        rates.append(side**3 / _fastest(partial(run, factor)))
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


def openvino_request(model: bytes, precision: str, threads: int, shape: tuple[int, ...]) -> Infer:
    """What runs an array of `shape` through a model, as OpenVINO's own examples do."""
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape([*shape])
    hint = "bf16" if precision == "bf16" else "f32"
    settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    request = core.compile_model(network, "CPU", settings).create_infer_request()

    def infer(array: NDArray[np.float32]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = request.infer([array])[0]
        return output

    return infer


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


def _matrix_product(side: int, *, quantised: bool) -> onnx.ModelProto:
    values = np.random.default_rng(1).random((side, side), np.float32) - 0.5
    weights = [numpy_helper.from_array(values, "b")]
    nodes = [helper.make_node("MatMul", ["a", "b"], ["c"])]
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
            helper.make_node("MatMul", ["a_float", "b_float"], ["c"]),
        ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [side, side]) for name in ("a", "c")]
    graph = helper.make_graph(nodes, "product", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
