"""Seeded weights are the same in each process, whatever else it does meanwhile."""

import random
import threading

import keras
import numpy as np

from tfrecords_schema.networks import random_weights
from tfrecords_schema.networks.registry import Endpoint, Network


def _layers(weights):
    """Of the kinds that the registry's networks have beside convolutions and batch norms."""
    pixels = outputs = keras.Input([16, 16, 3])
    for layer in (
        keras.layers.DepthwiseConv2D(3),
        keras.layers.Dropout(0.2),
        keras.layers.BatchNormalization(),
        *(keras.layers.Conv2D(4, 1) for _ in range(20)),
        keras.layers.Flatten(),
        keras.layers.Dense(5),
    ):
        outputs = layer(outputs)
    return keras.Model(pixels, outputs)


def test_other_threads_that_draw_random_numbers_do_not_change_them():
    """As Beam does in the workers of engines, and a read that waits before it is tried again."""
    endpoint = Endpoint("dense", (5,))
    network = Network(_layers, lambda pixels: pixels / 255, 16, endpoint, endpoint, ("", ""))
    alone = random_weights.build(network).get_weights()
    done = threading.Event()

    def draw() -> None:
        while not done.wait(0.0005):
            random.random()

    beside = threading.Thread(target=draw)
    beside.start()
    try:
        found = random_weights.build(network).get_weights()
    finally:
        done.set()
        beside.join()
    assert all(map(np.array_equal, alone, found))
