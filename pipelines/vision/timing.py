"""Which precision of the forward pass is fastest on this machine (`--precision auto`), found out by running it.

The passes run in a process of their own (`python -m pipelines.vision.timing`), which loads the network in each
precision. The launcher's TensorFlow stays unused, its GPU unclaimed, and what the networks took is free when they end.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipelines.vision import onednn, random_weights
from pipelines.vision.extractors import Extractor
from tfrecords_schema.errors import RunError
from tfrecords_schema.quiet import import_tensorflow

_NEAR = 0.9995  # least cosine to float32
_FASTER = 1.05  # times float32's rate; for less, which may be noise, nothing is given up
_TIMED_S = 2.0  # all precisions together, once loaded
_LEAST_ROUNDS = 2
_TIMEOUT_S = 300
_ROOT = str(pathlib.Path(__file__).resolve().parents[2])


class TimingError(RunError):
    """The process that was to time the network broke, or took too long."""


@dataclasses.dataclass(frozen=True)
class Timed:
    """What a precision was found to do: its rate, and the least cosine of its features to float32's."""

    precision: str
    images_per_second: float
    cosine: float


def fastest(timed: Sequence[Timed]) -> str:
    """The precision to take: float32, which is the first, unless another one is near enough and clearly faster."""
    exact, *others = timed
    good = [one for one in others if one.cosine >= _NEAR]
    best = max(good, key=lambda one: one.images_per_second, default=exact)
    return best.precision if best.images_per_second >= _FASTER * exact.images_per_second else exact.precision


def candidates(flags: frozenset[str], has_gpu: bool) -> tuple[str, ...]:
    """The precisions that may be the fastest, float32 first; it alone where there is nothing to be timed.

    On GPUs TensorFlow multiplies float32 as TF32 where they can, so that only float16 may be faster.
    """
    if has_gpu:
        return "float32", "float16"
    return ("float32", "bfloat16") if onednn.has_bfloat16(flags) else ("float32",)


def may_have_gpu() -> bool:
    """Whether Linux shows NVIDIA's GPUs; TensorFlow, which takes seconds to ask, may still have none."""
    return bool(glob.glob("/dev/nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1")


def is_worthwhile() -> bool:
    """Whether anything but float32 may be faster on this machine; known at once."""
    return len(candidates(onednn.processor_flags(), may_have_gpu())) > 1


def measure(extractor: Extractor, command: Sequence[str] = (sys.executable, "-m", "pipelines.vision.timing")) -> list:
    """A Timed for each precision that may be the fastest, float32 first, of a network of the registry.

    Raises:
      TimingError: with the reason; it says nothing about whether the network can be run.
      InputError: the weights are not there.
    """
    # By the path on this machine: the other process has not been told of stores.
    given = json.dumps([extractor.name, extractor.source() or "random", extractor.batch_size, extractor.grid])
    paths = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
    try:
        found = subprocess.run(
            command,
            input=given,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TimingError(str(error).splitlines()[0]) from None
    try:
        return [Timed(*one) for one in json.loads(found.stdout.splitlines()[-1])]
    except (IndexError, TypeError, ValueError):
        said = (found.stderr.strip() or "it said nothing").splitlines()[-1]
        raise TimingError(f"exit status {found.returncode}: {said[:200]}") from None


def time_here(name: str, weights: str, batch_size: int, grid: bool, precisions: Sequence[str]) -> list[Timed]:
    """Loads a network in each precision and runs them in turns, as many batches at a time as a worker does."""
    loaded = {one: Extractor(name, weights, batch_size, grid, one).load() for one in precisions}
    exact = loaded[precisions[0]]
    drawn = random_weights.drawn_pictures(np.random.default_rng(1), exact.size).astype(np.uint8)
    count = max(1, math.ceil(len(drawn) / batch_size))
    batches = np.resize(drawn, (count, batch_size, *drawn.shape[1:]))  # drawn once more where a batch has room for them
    # Every picture once, which also makes the networks ready.
    features = {one: np.concatenate(list(map(network, batches))) for one, network in loaded.items()}
    turn = [batches[0]] * exact.in_flight
    seconds: dict[str, list[float]] = {one: [] for one in precisions}
    with ThreadPoolExecutor(exact.in_flight) as pool:
        while len(seconds[precisions[-1]]) < _LEAST_ROUNDS or sum(map(sum, seconds.values())) < _TIMED_S:
            for one, network in loaded.items():
                started = time.perf_counter()
                list(pool.map(network, turn))
                seconds[one].append(time.perf_counter() - started)
    return [
        Timed(one, batch_size * len(turn) / statistics.median(taken), _least_cosine(features[one], features["float32"]))
        for one, taken in seconds.items()
    ]


def _least_cosine(found: np.ndarray, exact: np.ndarray) -> float:
    found, exact = found.reshape(len(found), -1), exact.reshape(len(exact), -1)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
    cosines = (found * exact).sum(1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return float(np.nan_to_num(cosines, nan=-1).min())


def main() -> None:
    """The process that `measure` starts: a network in JSON comes in, what was found goes out."""
    name, weights, batch_size, grid = json.load(sys.stdin)
    tf = import_tensorflow()
    precisions = candidates(onednn.processor_flags(), bool(tf.config.list_physical_devices("GPU")))
    print(json.dumps([dataclasses.astuple(one) for one in time_here(name, weights, batch_size, grid, precisions)]))


if __name__ == "__main__":
    # Under its own name, as the commands are.
    from pipelines.vision.timing import main as main_by_name

    main_by_name()
