"""Loading a network and running its first photo, against a plain Keras script: `python -m benchmarks.loading`.

Every run is a process of its own, in turns: imports, weights, one batch. Then the same processes' rate, also in turns:
each of them has run its first batch, and waits for its turn. Memory is the kernel's own figure, the largest resident
set that the process ever had.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.support.seeded import write_weights
from benchmarks.support.turns import Served, take_turns

_BATCHES = 6  # of a turn
_SIZES = {"inception_v3": 299, "vgg16": 224}


def _plain(name: str, weights: str):
    """(Keras model up to the feature, its preprocessing), as a tutorial has them."""
    import keras

    if name == "vgg16":
        model = keras.applications.VGG16(weights=weights)
        return keras.Model(model.inputs, model.get_layer("fc2").output), keras.applications.vgg16.preprocess_input
    model = keras.applications.InceptionV3(weights=weights, include_top=False, pooling="avg")
    return model, keras.applications.inception_v3.preprocess_input


def eager(name: str, weights: str, batch_size: int) -> Callable:
    """`model(preprocess(x))`"""
    model, preprocess = _plain(name, weights)
    return lambda pixels: model(preprocess(pixels.astype(np.float32)), training=False).numpy()


def traced(name: str, weights: str, batch_size: int) -> Callable:
    """The same in a `tf.function`"""
    import tensorflow as tf

    model, preprocess = _plain(name, weights)
    spec = tf.TensorSpec([batch_size, _SIZES[name], _SIZES[name], 3], tf.uint8)
    function = tf.function(lambda x: model(preprocess(tf.cast(x, tf.float32)), training=False), input_signature=[spec])
    return lambda pixels: function(tf.constant(pixels)).numpy()


def constants(name: str, weights: str, batch_size: int) -> Callable:
    """Weights as constants of the graph, as ours were"""
    import tensorflow as tf

    from pipelines.vision import devices

    devices.configure(tf)
    model, preprocess = _plain(name, weights)
    values = [[v.numpy() for v in of] for of in (model.trainable_variables, model.non_trainable_variables)]
    spec = tf.TensorSpec([batch_size, _SIZES[name], _SIZES[name], 3], tf.uint8)

    @tf.function(input_signature=[spec])
    def function(pixels):
        given = [[tf.constant(value) for value in of] for of in values]
        return model.stateless_call(*given, preprocess(tf.cast(pixels, tf.float32)), training=False)[0]

    return lambda pixels: function(tf.constant(pixels)).numpy()


def ours(name: str, weights: str, batch_size: int) -> Callable:
    """**Ours**"""
    from pipelines.vision.extractors import Extractor

    return Extractor(name, weights, batch_size).load()


WAYS = (eager, traced, constants, ours)


def serve(args: argparse.Namespace) -> None:
    """A process of its own: loads, runs one batch, tells its costs; then runs some more whenever a line comes in."""
    started = time.perf_counter()
    from tfrecords_schema.quiet import import_tensorflow

    import_tensorflow()
    way = next(way for way in WAYS if way.__name__ == args.serve)
    pixels = np.load(args.pixels)[: args.batch_size]
    run = way(args.network, args.weights, len(pixels))
    features = run(pixels)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    told = {"wall_s": time.perf_counter() - started, "cpu_s": usage.ru_utime + usage.ru_stime}
    np.save(f"{args.pixels}.{args.serve}.npy", features)
    print(json.dumps({**told, "peak_mb": usage.ru_maxrss / 1e3}), flush=True)
    at_a_time = os.cpu_count() or 1 if way in (constants, ours) else 1  # as each is used
    for _ in sys.stdin:
        started = time.perf_counter()
        with ThreadPoolExecutor(min(4, at_a_time)) as pool:
            list(pool.map(run, [pixels] * _BATCHES))
        print(json.dumps(_BATCHES * len(pixels) / (time.perf_counter() - started)), flush=True)


def _start(way: Callable, args: argparse.Namespace, batch_size: int, pixels: str) -> Served:
    arguments = ["benchmarks.loading", "--serve", way.__name__, "--pixels", pixels]
    return Served([*arguments, "--network", args.network, "--weights", args.weights, "--batch_size", str(batch_size)])


def _table(args: argparse.Namespace, batch_size: int, pixels: str, with_rate: bool) -> None:
    costs: dict = {way: [] for way in WAYS}
    rates: dict = {way: [] for way in WAYS}
    for number in range(args.rounds):
        for way in WAYS:
            served = _start(way, args, batch_size, pixels)
            costs[way].append(json.loads(served.told))
            served.end()
        print(f"round {number + 1}", file=sys.stderr, flush=True)
    if with_rate:
        rates = take_turns({way: _start(way, args, batch_size, pixels) for way in WAYS}, 2 * args.rounds + 1)
    expected = np.load(f"{pixels}.{traced.__name__}.npy")
    print(f"\n{args.network}, batch {batch_size}, medians of {args.rounds} rounds; in brackets over `tf.function`\n")
    print("| way | wall | CPU | peak | images/s | largest difference of a feature |\n|---|---|---|---|---|---|")
    for way in WAYS:
        cells = []
        for key, unit, digits in (("wall_s", "s", 1), ("cpu_s", "s", 1), ("peak_mb", "MB", 0)):
            ratio = statistics.median(a[key] / b[key] for a, b in zip(costs[way], costs[traced], strict=True))
            cells.append(f"{statistics.median(c[key] for c in costs[way]):,.{digits}f} {unit} ({ratio:.2f})")
        ratio = [a / b for a, b in zip(rates[way], rates[traced], strict=True)]
        cells.append(f"{statistics.median(rates[way]):.1f} ({statistics.median(ratio):.2f})" if ratio else "")
        difference = np.abs(np.load(f"{pixels}.{way.__name__}.npy") - expected).max() / np.abs(expected).max()
        print(f"| {(way.__doc__ or '').strip()} | {' | '.join(cells)} | {difference:.0e} of the largest |", flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--network", choices=tuple(_SIZES), default="vgg16")
    p.add_argument("--weights", help="a Keras .h5 file; by default seeded ones are written to one, once for all")
    p.add_argument("--batch_sizes", type=int, nargs="+", default=(1, 16))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--images", type=pathlib.Path, help="directory of JPEGs to use instead of drawn ones")
    p.add_argument("--batch_size", type=int, help=argparse.SUPPRESS)
    p.add_argument("--pixels", help=argparse.SUPPRESS)
    p.add_argument("--serve", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.serve:
        serve(args)
        return
    from benchmarks.features import load_photos
    from pipelines.vision import images

    with tempfile.TemporaryDirectory() as scratch:
        if not args.weights:
            args.weights = f"{scratch}/seeded.weights.h5"
            write_weights(args.network, args.weights)
        photos, size = load_photos(args.images), _SIZES[args.network]
        pixels = f"{scratch}/pixels.npy"
        decoded = [images.decode(photos[n % len(photos)], size).rgb for n in range(max(args.batch_sizes))]
        np.save(pixels, np.stack(decoded))
        for batch_size in args.batch_sizes:
            _table(args, batch_size, pixels, with_rate=batch_size == max(args.batch_sizes))


if __name__ == "__main__":
    main()
