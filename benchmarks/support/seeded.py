"""Weights of a network as a file, where nobody has trained ones at hand: seeded, as costly as any others."""

from __future__ import annotations

import subprocess
import sys

_MADE = """
from tfrecords_schema.quiet import import_tensorflow; import_tensorflow()
import keras, sys
from tfrecords_schema.networks.registry import find_network
keras.utils.set_random_seed(0)
find_network(sys.argv[1]).build(None).save_weights(sys.argv[2])
"""


def write_weights(network: str, path: str) -> None:
    """Writes a Keras `.weights.h5` file, by another process."""
    subprocess.run([sys.executable, "-c", _MADE, network, path], check=True, stderr=subprocess.DEVNULL)
