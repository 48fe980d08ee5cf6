"""Ways to run the network, against the way of the tutorials: `python -m benchmarks.forward --weights FILE.h5`.

ONNX Runtime and OpenVINO are rows where they are installed (`pip install onnxruntime tf2onnx openvino`). Every way
has a process of its own, since threads and options are a process'; they take turns. Decoding is left out but for its
own table.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

from benchmarks.features import load_photos
from benchmarks.support import runtimes
from benchmarks.support.turns import Served, take_turns

_IMAGES = 64


def _keras_model(weights):
    import keras

    return keras.applications.InceptionV3(include_top=False, pooling="avg", weights=weights)


def predict(weights, batch_size):
    """`model.predict` at batch 32, as the tutorials do it."""
    model = _keras_model(weights)
    return lambda pixels: model.predict(pixels.astype(np.float32) / 127.5 - 1, batch_size=32, verbose=0)


def call(weights, batch_size):
    """`model(x)`, eager."""
    model = _keras_model(weights)
    return lambda pixels: runtimes.one_at_a_time(
        lambda batch: model(batch.astype(np.float32) / 127.5 - 1, training=False).numpy(),
        runtimes.batches(pixels, batch_size),
    )


def _traced(weights, batch_size, **options):
    import tensorflow as tf

    model = _keras_model(weights)
    spec = tf.TensorSpec([batch_size, 299, 299, 3], tf.uint8)
    return tf.function(
        lambda pixels: model(tf.cast(pixels, tf.float32) / 127.5 - 1, training=False), input_signature=[spec], **options
    )


def traced(weights, batch_size):
    """`tf.function`, variables."""
    function = _traced(weights, batch_size)
    return lambda pixels: runtimes.one_at_a_time(lambda b: function(b).numpy(), runtimes.batches(pixels, batch_size))


def jit(weights, batch_size):
    """`tf.function(jit_compile=True)`."""
    function = _traced(weights, batch_size, jit_compile=True)
    return lambda pixels: runtimes.one_at_a_time(lambda b: function(b).numpy(), runtimes.batches(pixels, batch_size))


def frozen(weights, batch_size):
    """Graph frozen by `convert_variables_to_constants_v2`."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function = convert_variables_to_constants_v2(_traced(weights, batch_size).get_concrete_function())
    return lambda pixels: runtimes.one_at_a_time(
        lambda b: tf.nest.flatten(function(tf.constant(b)))[0].numpy(), runtimes.batches(pixels, batch_size)
    )


def frozen_onednn_bfloat16(weights, batch_size):
    """Frozen graph, oneDNN's automatic bfloat16."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
    return frozen(weights, batch_size)


def frozen_onednn_bfloat16_two(weights, batch_size):
    """The same, two passes at a time."""
    import tensorflow as tf

    from pipelines.vision import devices

    devices.configure(tf)
    run = frozen_onednn_bfloat16(weights, batch_size)
    return lambda pixels: runtimes.two_at_a_time(run, runtimes.batches(pixels, batch_size))


def folded(weights, batch_size):
    """Frozen graph, batch norm folded into the convolutions."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
    from tensorflow.python.tools.optimize_for_inference_lib import fold_batch_norms

    function = convert_variables_to_constants_v2(_traced(weights, batch_size).get_concrete_function())
    graph = fold_batch_norms(function.graph.as_graph_def())
    names = function.inputs[0].name, function.outputs[0].name
    pruned = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), []).prune(*names)
    return lambda pixels: runtimes.one_at_a_time(
        lambda b: pruned(tf.constant(b)).numpy(), runtimes.batches(pixels, batch_size)
    )


def _extractor(weights, batch_size, precision, at_a_time):
    from pipelines.vision import devices, extractors

    devices.cpu_in_flight = lambda: at_a_time
    extractor = extractors.Extractor("inception_v3", weights, batch_size, precision=precision).load()
    run = runtimes.two_at_a_time if at_a_time == 2 else runtimes.one_at_a_time
    return lambda pixels: run(extractor, runtimes.batches(pixels, batch_size))


def ours_one_at_a_time(weights, batch_size):
    """Ours, but one pass at a time."""
    return _extractor(weights, batch_size, "float32", 1)


def ours(weights, batch_size):
    """**Ours, two passes at a time**."""
    return _extractor(weights, batch_size, "float32", 2)


def ours_bfloat16(weights, batch_size):
    """Ours, `--precision bfloat16`."""
    return _extractor(weights, batch_size, "bfloat16", 2)


def ours_float16(weights, batch_size):
    """Ours, `--precision float16`."""
    return _extractor(weights, batch_size, "float16", 2)


def convert(args: argparse.Namespace) -> None:
    """A process of its own: the network as ONNX, which others read."""
    pathlib.Path(args.convert).write_bytes(runtimes.onnx_model(_traced(args.weights, args.batch_size)))


def onnx_runtime(model, batch_size):
    """ONNX Runtime, float32, two passes at a time."""
    run = runtimes.onnx_runtime(model)
    return lambda pixels: runtimes.two_at_a_time(run, runtimes.batches(pixels, batch_size))


def _openvino(model, batch_size, precision):
    run = runtimes.openvino(model, precision)
    return lambda pixels: run(runtimes.batches(pixels, batch_size))


def openvino_float32(model, batch_size):
    """OpenVINO, float32, two passes at a time."""
    return _openvino(model, batch_size, "f32")


def openvino_bfloat16(model, batch_size):
    """OpenVINO, bfloat16, two passes at a time."""
    return _openvino(model, batch_size, "bf16")


WAYS = (
    predict,
    call,
    traced,
    jit,
    frozen,
    folded,
    frozen_onednn_bfloat16,
    frozen_onednn_bfloat16_two,
    ours_one_at_a_time,
    ours,
    ours_bfloat16,
    ours_float16,
    onnx_runtime,
    openvino_float32,
    openvino_bfloat16,
)
_NEEDS = {
    onnx_runtime: runtimes.ONNX_RUNTIME,
    openvino_float32: runtimes.OPENVINO,
    openvino_bfloat16: runtimes.OPENVINO,
}


def _title(way):
    return way.__doc__.rstrip(".")


def serve(args: argparse.Namespace) -> None:
    """A process of its own: loads one way, and runs all images whenever a line comes in."""
    from tfrecords_schema.quiet import import_tensorflow

    import_tensorflow()
    way = next(way for way in WAYS if way.__name__ == args.serve)
    pixels = np.load(args.pixels)
    run = way(args.weights, args.batch_size)
    features = run(pixels)
    np.save(f"{args.pixels}.{args.serve}.npy", features)
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        run(pixels)
        print(json.dumps(len(pixels) / (time.perf_counter() - started)), flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--images", type=pathlib.Path, help="directory of JPEGs to use instead of drawn ones")
    p.add_argument("--weights", required=True, help="a Keras .h5 file")
    p.add_argument("--batch_size", type=int, default=16)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", nargs="+", choices=[way.__name__ for way in WAYS[1:]], help="beside predict, only these")
    p.add_argument("--pixels", default="/tmp/benchmarks-forward.npy", help=argparse.SUPPRESS)
    p.add_argument("--serve", help=argparse.SUPPRESS)
    p.add_argument("--convert", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.convert:
        convert(args)
        return
    if args.serve:
        serve(args)
        return
    from pipelines.vision import images

    photos = load_photos(args.images)
    np.save(args.pixels, np.stack([images.decode(photos[n % len(photos)], 299).rgb for n in range(_IMAGES)]))
    given = ["--pixels", args.pixels, "--batch_size", str(args.batch_size), "--weights"]
    onnx = f"{args.pixels}.onnx"
    command = [sys.executable, "-m", "benchmarks.forward", "--convert", onnx, *given, args.weights]
    if not runtimes.missing(["tf2onnx"]):
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    served = {}
    for way in WAYS:
        if args.only and way is not predict and way.__name__ not in args.only:
            continue
        if missing := runtimes.missing(_NEEDS.get(way, ())):
            print(f"left out: {_title(way)} (pip install {' '.join(missing)})")
        else:
            weights = onnx if way in _NEEDS else args.weights
            one = Served(["benchmarks.forward", "--serve", way.__name__, *given, weights])
            if one.told:
                served[way] = one
            else:
                print(f"left out: {_title(way)} (its process broke; --serve {way.__name__} shows why)")
    rates = take_turns(served, args.rounds)
    plain = np.load(f"{args.pixels}.predict.npy")
    print(f"\n{_IMAGES} images, batch {args.batch_size} (predict: 32), medians of {args.rounds} rounds\n")
    print("| way | images/s | over `predict` | least cosine to `predict` |\n|---|---|---|---|")
    for way in served:
        found = np.load(f"{args.pixels}.{way.__name__}.npy")
        cosine = (found * plain).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(plain, axis=1)
        ratio = statistics.median(a / b for a, b in zip(rates[way], rates[predict], strict=True))
        print(f"| {_title(way)} | {statistics.median(rates[way]):.1f} | {ratio:.2f} | {cosine.min():.6f} |")


if __name__ == "__main__":
    main()
