"""Other programs that run networks on CPUs: ONNX Runtime and OpenVINO, where they are installed.

Two passes run at a time, each on half of the cores, as ours do: of the ways that they have the fastest on few cores.
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


def missing(names: Sequence[str]) -> list[str]:
    """Those of some packages that are not installed."""
    return [name for name in names if not importlib.util.find_spec(name)]


def onnx_model(function: Any) -> bytes:
    """A `tf.function` with an input signature, as ONNX, with its weights."""
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=_OPSET)
    return model.SerializeToString()


def onnx_runtime(model: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """A batch of pixels -> features; may be called by two threads at a time."""
    import onnxruntime

    from pipelines.vision import devices

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, devices.cores() // 2)
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda batch: session.run(None, {given.name: batch})[0]


def openvino_two_at_a_time(model: bytes, precision: str) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Batches of pixels -> features; `precision` is f32 or bf16, which OpenVINO takes for f32 where there is none."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": "2"}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", settings)

    def run(batches: Sequence[np.ndarray]) -> np.ndarray:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return np.concatenate(list(pool.map(one, batches)))

    def one(batch: np.ndarray) -> np.ndarray:
        return compiled.create_infer_request().infer({0: batch})[0]

    return run
