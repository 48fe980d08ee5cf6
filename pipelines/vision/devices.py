"""The devices of one worker process: which GPU is its own, how many forward passes run at a time."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Any

from tfrecords_schema import machine
from tfrecords_schema.errors import InputError

_GPU_IN_FLIGHT = 2  # one batch is copied to the GPU while it computes another
_CPU_IN_FLIGHT = 4
_claimed: dict[int, Any] = {}  # lock files by GPU, open and so locked while the process lives


def configure(tf) -> int:
    """Sets TensorFlow up for forward passes, once per process; returns how many of them to run at a time.

    GPUs: the first one that no other process of this machine has claimed becomes the only visible one, so that several
    worker processes share several GPUs out, and memory grows with use instead of being taken whole.

    CPUs: several passes at a time with few threads each. One pass with all threads has them wait for each other after
    every operation, and a thread that decodes an image meanwhile holds up all of them.
    """
    if configure_gpu(tf):
        return _GPU_IN_FLIGHT
    with contextlib.suppress(RuntimeError):  # TensorFlow is in use already, by an earlier load in this process
        tf.config.threading.set_intra_op_parallelism_threads(max(1, cores() // cpu_in_flight()))
    return cpu_in_flight()


def configure_gpu(tf) -> bool:
    """The part of `configure` that concerns GPUs; whether there are any."""
    gpus = tf.config.list_physical_devices("GPU")
    with contextlib.suppress(RuntimeError):
        if gpus:
            mine = gpus[claim(len(gpus))]
            tf.config.set_visible_devices(mine, "GPU")
            tf.config.experimental.set_memory_growth(mine, True)
    return bool(gpus)


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_in_flight() -> int:
    """Forward passes at a time on CPUs: no more than a few, since each holds its activations in memory."""
    return min(cores(), _CPU_IN_FLIGHT)


def claim(count: int, directory: str | None = None) -> int:
    """The number of a GPU, from 0 to `count` - 1: the first that no living process has claimed, else by process id.

    What this process has claimed, for a model that it loaded before, is its own still.
    """
    if _claimed:
        return next(iter(_claimed))
    for number in range(count):
        path = os.path.join(directory or tempfile.gettempdir(), f"captioning-gpu-{number}.lock")
        with contextlib.suppress(InputError, OSError):
            _claimed[number] = machine.hold(path, busy=f"GPU {number} is another process's")
            return number
    return os.getpid() % count
