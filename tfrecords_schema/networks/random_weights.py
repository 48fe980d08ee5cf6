"""Seeded weights for trying the system out without a download. They tell simple scenes apart; they know no objects."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tfrecords_schema.networks.registry import Network

RECIPE = "seed 0; He normal, centred kernels; batch norm measured on 16 seeded pictures, shift 4; version 1"
_SHIFT = 4.0
_PICTURES = 16
_SEEDING = threading.Lock()


def build(network: Network):
    """A Keras model with its seeded weights.

    He-normal kernels (https://arxiv.org/abs/1502.01852), and batch-norm statistics measured on seeded pictures: without
    them activations shrink layer by layer. That alone is not enough: ninety random layers with ReLUs are chaotic, and
    scramble what is in a picture (https://arxiv.org/abs/1611.01232). So each batch norm also shifts its output up by
    four standard deviations, which leaves the ReLUs nearly linear, and kernels fade from their middle, which keeps
    edges sharp. Linear probes on 1,000 drawn scenes then name 97 % of the colours and 93 % of the shapes of
    unseen ones, against 78 % and 37 % (of 600) without these two steps.
    """
    import keras

    with _seeded():  # for layers of other kinds, which keep Keras' own initial weights
        model = network.build(None)
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer) is keras.layers.Conv2D:
            height, width, channels, filters = layer.kernel.shape
            deviation = np.sqrt(2 / (height * width * channels))
            kernel = generator.normal(0, deviation, (height, width, channels, filters))
            if channels > 3 and height * width > 1:
                kernel *= _fading(height, width)[:, :, None, None]
            layer.kernel.assign(kernel.astype(np.float32))
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # the training-mode pass below stores its batch's own mean and variance
            layer.beta.assign(np.full(layer.beta.shape, _SHIFT, np.float32))
    # As one function: run layer by layer, Keras would hold the output of every layer until the last, 2 GB of them.
    import tensorflow as tf

    tf.function(lambda pictures: model(pictures, training=True))(network.preprocess(_pictures(generator, network.size)))
    return model


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Keras draws the seeds of layers that are made meanwhile from a generator of their own, which begins with 0.

    By itself it has Python's, from which other threads of a worker draw too, Beam's and those that wait before they ask
    a store again: each process would make another network.
    """
    from keras.src.random import seed_generator

    with _SEEDING:
        before, seed_generator.python_random = seed_generator.python_random, random.Random(0)
        try:
            yield
        finally:
            seed_generator.python_random = before


def _fading(height: int, width: int) -> np.ndarray:
    """1 in the middle, less by a factor of e for each step away from it; `[height, width]`."""
    y, x = np.abs(np.arange(height) - (height - 1) / 2), np.abs(np.arange(width) - (width - 1) / 2)
    return np.exp(-(y[:, None] + x[None, :]))


def _pictures(generator: np.random.Generator, size: int) -> np.ndarray:
    """Plain coloured grounds with a few squares and discs, float32 `[16, size, size, 3]` in 0..255."""
    y, x = np.mgrid[:size, :size] / size
    pictures = np.empty((_PICTURES, size, size, 3), np.float32)
    for picture in pictures:
        picture[:] = generator.uniform(0, 255, 3)
        for _ in range(4):
            centre_x, centre_y = generator.uniform(0.1, 0.9, 2)
            radius = generator.uniform(0.05, 0.3)
            if generator.random() < 0.5:
                inside = np.maximum(abs(x - centre_x), abs(y - centre_y)) < radius
            else:
                inside = (x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2
            picture[inside] = generator.uniform(0, 255, 3)
    return pictures
