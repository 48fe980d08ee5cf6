"""Batches, one or two at a time, and other programs that run networks on CPUs: ONNX Runtime and OpenVINO.

They too run two passes at a time, each on half of the cores, as ours does on two.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

ONNX_RUNTIME = ("onnxruntime", "tf2onnx")
OPENVINO = ("openvino", "tf2onnx")
_OPSET = 17


def batches(pixels: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Images in batches, the last one of what is left."""
    return [pixels[i : i + batch_size] for i in range(0, len(pixels), batch_size)]


def one_at_a_time(function: Callable[[np.ndarray], np.ndarray], batches: Sequence[np.ndarray]) -> np.ndarray:
    """What the function gives for all batches."""
    return np.concatenate([function(batch) for batch in batches])


def two_at_a_time(function: Callable[[np.ndarray], np.ndarray], batches: Sequence[np.ndarray]) -> np.ndarray:
    """The same, by two threads."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return np.concatenate(list(pool.map(function, batches)))


def missing(names: Sequence[str]) -> list[str]:
    """Those of some packages that are not installed."""
    return [name for name in names if not importlib.util.find_spec(name)]


def onnx_model(function: Any) -> bytes:
    """A `tf.function` with an input signature, as ONNX, with its weights."""
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=_OPSET)
    return model.SerializeToString()


def onnx_runtime(model: str) -> Callable[[np.ndarray], np.ndarray]:
    """A batch of pixels -> features by a file in ONNX; may be called by two threads at a time."""
    import onnxruntime

    from pipelines.vision import devices

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, devices.cores() // 2)
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda batch: session.run(None, {given.name: batch})[0]


def openvino(model: str, precision: str) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Batches -> features by a file in ONNX; `precision` is f32 or bf16, which OpenVINO replaces where there is none.

    By its own threads: called by two of Python's it has hung.
    """
    from openvino import Core

    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "2"}
    compiled = Core().compile_model(model, "CPU", settings)
    requests = [compiled.create_infer_request() for _ in range(2)]

    def run(batches: Sequence[np.ndarray]) -> np.ndarray:
        found = []
        for number in range(len(batches) + len(requests)):
            request = requests[number % len(requests)]
            if number >= len(requests) and number - len(requests) < len(batches):
                request.wait()
                found.append(request.get_output_tensor().data.copy())
            if number < len(batches):
                request.start_async({0: batches[number]})
        return np.concatenate(found)

    return run
