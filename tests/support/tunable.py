"""A small network of the usual parts: convolutions, batch norms, branches that join; with names to fine-tune from."""

from __future__ import annotations

import pathlib

import numpy as np

from tfrecords_schema.networks.registry import Endpoint, Network

NAME = "tunable"
# The layers with weights, by where they stand: what learns from a layer on is that layer and those behind it.
BELOW, LEFT, RIGHT, ABOVE = ("low", "low_norm"), ("left",), ("right",), ("high", "high_norm")


def model(weights: str | None):
    """`[B, 32, 32, 3]` in -1..1 -> `[B, 10]`."""
    import keras
    from keras import layers

    inputs = keras.Input([32, 32, 3])
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="low")(inputs)
    x = layers.BatchNormalization(name="low_norm")(x)
    x = layers.ReLU(name="low_relu")(x)
    branches = [layers.Conv2D(6, 1, name=name)(x) for name in ("left", "right")]
    x = layers.Concatenate(name="joined")(branches)
    x = layers.Dropout(0.5)(x)  # as EfficientNet has some
    x = layers.Conv2D(10, 3, strides=2, padding="same", use_bias=False, name="high")(x)
    x = layers.BatchNormalization(name="high_norm")(x)
    x = layers.ReLU(name="map")(x)
    made = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    if weights:
        made.load_weights(weights)
    return made


NETWORK = Network(
    build=model,
    preprocess=lambda pixels: pixels / 127.5 - 1,
    size=32,
    pooled=Endpoint("map, average-pooled", (10,)),
    grid=Endpoint("map", (64, 10), layer="map"),
    keras_file=("none.h5", "none"),
)


def save(path: pathlib.Path, seed: int = 0) -> str:
    """Writes a file of seeded weights, moving statistics included."""
    made, generator = model(None), np.random.default_rng(seed)
    for layer in made.layers:
        weights = [generator.normal(0, 0.3, weight.shape) for weight in layer.get_weights()]
        if layer.name.endswith("_norm"):  # gamma, beta, moving mean, moving variance
            weights = [0.5 + np.abs(weight) if place in (0, 3) else weight for place, weight in enumerate(weights)]
        layer.set_weights([weight.astype(np.float32) for weight in weights])
    made.save_weights(path)
    return str(path)


def weights_by_layer(path) -> dict[str, list[np.ndarray]]:
    """The weights of a file."""
    return {layer.name: layer.get_weights() for layer in model(str(path)).layers if layer.weights}
