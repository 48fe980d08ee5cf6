"""What the other programs have in common: the network, and the count of what it has computed."""

from __future__ import annotations

import os
import time

BATCH = 16
SIZE = 299
LOG = "PEERS_LOG"  # names the file that counts


def build(weights: str | None):
    """Pixels `[B, 299, 299, 3]` as `preprocess` gives them -> features `[B, 2048]`: a Keras model."""
    import keras

    return keras.applications.InceptionV3(include_top=False, weights=weights, pooling="avg")


def preprocess(pixels):
    """Pixels in 0..255, float32, as the network takes them."""
    import keras

    return keras.applications.inception_v3.preprocess_input(pixels)


def note(count: int) -> None:
    """Writes down that the network has computed so many images more."""
    with open(os.environ[LOG], "a") as file:
        file.write(f"{time.time()} {count}\n")
