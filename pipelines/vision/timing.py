"""Which precision of the forward pass is fastest on this machine (`--precision auto`), found out by running it.

The passes run in a process of their own (`python -m pipelines.vision.timing`), which loads the network in each
precision. The launcher's TensorFlow stays unused, its GPU unclaimed, and what the networks took is free when they end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import io
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
from typing import Any

import numpy as np

from pipelines.clock import StageClock
from pipelines.items import Item
from pipelines.vision.extractors import Extractor
from pipelines.vision.images import Pixels
from pipelines.vision.reading import Reading, read_ahead
from tfrecords_schema.errors import RunError
from tfrecords_schema.quiet import import_tensorflow

_NEAR = 0.9995  # least cosine to float32
_FASTER = 1.05  # times float32's rate; for less, which may be noise, nothing is given up
_TIMED_S = 2.0  # all precisions together, once loaded
_LEAST_ROUNDS = 2
_TIMEOUT_S = 300
# Instructions that multiply bfloat16, by their names in Linux: of x86, of ARM. They may be slow ones.
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_ROOT = str(pathlib.Path(__file__).resolve().parents[2])


class TimingError(RunError):
    """The process that was to time the network broke, or took too long."""


@dataclasses.dataclass(frozen=True)
class Timed:
    """What a precision was found to do: its rate, and the least cosine of its features to float32's."""

    precision: str
    images_per_second: float
    cosine: float

    def __str__(self) -> str:
        return f"{self.precision} {self.images_per_second:.1f} images/s (least cosine {self.cosine:.4f})"


def fastest(timed: Sequence[Timed]) -> str:
    """The precision to take: float32, which is the first, unless another one is near enough and clearly faster."""
    exact, *others = timed
    good = [one for one in others if one.cosine >= _NEAR]
    best = max(good, key=lambda one: one.images_per_second, default=exact)
    return best.precision if best.images_per_second >= _FASTER * exact.images_per_second else exact.precision


def told(timed: Sequence[Timed]) -> str:
    """Why `fastest` takes what it takes: which one it must not take, if that would be faster, or else all figures."""
    exact, *others = timed
    best = max(others, key=lambda one: one.images_per_second, default=exact)
    is_faster = best.images_per_second >= _FASTER * exact.images_per_second
    if fastest(timed) != exact.precision or not is_faster:
        return f"timed on this machine: {', '.join(map(str, timed))}"
    return (
        f"{best.precision} would be faster ({best.images_per_second:.1f} against {exact.images_per_second:.1f} "
        f"images/s), but its features differ too much (least cosine {best.cosine:.4f}, needed {_NEAR})"
    )


def candidates(flags: frozenset[str], has_gpu: bool) -> tuple[str, ...]:
    """The precisions that may be the fastest, float32 first; it alone where there is nothing to be timed.

    On GPUs TensorFlow multiplies float32 as TF32 where they can, so that only float16 may be faster.
    """
    if has_gpu:
        return "float32", "float16"
    return ("float32", "bfloat16") if flags & _BFLOAT16 else ("float32",)


def processor_flags(path: str = "/proc/cpuinfo") -> frozenset[str]:
    """What Linux says that the first processor can do; nothing on other systems."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, flags = line.partition(":")
            if name.strip() in ("flags", "Features"):  # of x86, of ARM
                return frozenset(flags.split())
    return frozenset()


def may_have_gpu() -> bool:
    """Whether Linux shows NVIDIA's GPUs; TensorFlow, which takes seconds to ask, may still have none."""
    return bool(glob.glob("/dev/nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("", "-1")


def is_worthwhile() -> bool:
    """Whether anything but float32 may be faster on this machine; known at once."""
    return len(candidates(processor_flags(), may_have_gpu())) > 1


def measure(extractor: Extractor, items: Sequence[Item], reading: Reading) -> list[Timed]:
    """A Timed for each precision that may be the fastest, float32 first, of a network of the registry.

    Args:
      items: images to run it on; those that cannot be read are left out.

    Raises:
      TimingError: with the reason; it says nothing about whether the network can be run.
      InputError: the weights are not there.
    """
    found = read_ahead(items, extractor.size, reading, len(items), StageClock())
    pixels = [one.rgb for _, one in found if isinstance(one, Pixels)]
    if not pixels:
        raise TimingError(f"none of {len(items)} images could be read")
    # The weights by their path on this machine: the other process has not been told of stores.
    network = [extractor.name, extractor.source() or "random", extractor.batch_size, extractor.grid]
    given = io.BytesIO()
    given.write(json.dumps([*network, sorted(processor_flags())]).encode() + b"\n")
    np.save(given, np.stack(pixels))
    return _asked(given.getvalue())


def _asked(given: bytes) -> list[Timed]:
    """What the other process answers."""
    paths = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pipelines.vision.timing"]
    environment = {**os.environ, "PYTHONPATH": paths}
    try:
        done = subprocess.run(command, input=given, env=environment, capture_output=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TimingError(str(error).splitlines()[0]) from None
    try:
        return [Timed(*one) for one in json.loads(done.stdout.splitlines()[-1])]
    except (IndexError, TypeError, ValueError):
        said = (done.stderr.decode(errors="replace").strip() or "it said nothing").splitlines()[-1]
        raise TimingError(f"exit status {done.returncode}: {said[:200]}") from None


def time_here(network: Sequence[Any], pixels: np.ndarray, precisions: Sequence[str]) -> list[Timed]:
    """Loads a network in each precision and runs them in turns, as many batches at a time as a worker does.

    Args:
      network: an Extractor's name, weights, batch size and grid.
      pixels: uint8 `[n, size, size, 3]`, of images that the network is for.
      precisions: float32 first.
    """
    name, weights, batch_size, grid = network
    loaded = {one: Extractor(name, weights, batch_size, grid, one).load() for one in precisions}
    exact = loaded[precisions[0]]
    count = math.ceil(len(pixels) / exact.batch_size)
    batches = np.resize(pixels, (count, exact.batch_size, *pixels.shape[1:]))  # the last one begins again
    # Every image once, which also makes the networks ready.
    features = {one: np.concatenate(list(map(extractor, batches))) for one, extractor in loaded.items()}
    turn = [batches[number % count] for number in range(exact.in_flight)]
    seconds: dict[str, list[float]] = {one: [] for one in precisions}
    with ThreadPoolExecutor(exact.in_flight) as pool:
        while len(seconds[precisions[-1]]) < _LEAST_ROUNDS or sum(map(sum, seconds.values())) < _TIMED_S:
            for one, extractor in loaded.items():
                started = time.perf_counter()
                list(pool.map(extractor, turn))
                seconds[one].append(time.perf_counter() - started)
    images = exact.batch_size * len(turn)
    return [
        Timed(one, images / statistics.median(taken), _least_cosine(features[one], features[precisions[0]]))
        for one, taken in seconds.items()
    ]


def _least_cosine(found: np.ndarray, exact: np.ndarray) -> float:
    found, exact = found.reshape(len(found), -1), exact.reshape(len(exact), -1)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
    cosines = (found * exact).sum(1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return float(np.nan_to_num(cosines, nan=-1).min())


def main() -> None:
    """The process that `measure` starts: a network in a line of JSON comes in, and pixels; what was found goes out."""
    *network, flags = json.loads(sys.stdin.buffer.readline())
    pixels = np.load(io.BytesIO(sys.stdin.buffer.read()))
    tf = import_tensorflow()
    precisions = candidates(frozenset(flags), bool(tf.config.list_physical_devices("GPU")))
    print(json.dumps([dataclasses.astuple(one) for one in time_here(network, pixels, precisions)]))


if __name__ == "__main__":
    # Under its own name, as the commands are.
    from pipelines.vision.timing import main as main_by_name

    main_by_name()
