"""A tiny network with weights of its own, so that other weights make other features."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from tests.support.small import TINY

NAME = "weighed"


def _model(weights: str | None):
    """The mean colours of TINY, each channel times a weight."""
    import keras

    inputs = keras.Input([32, 32, 3])
    pooled = keras.layers.AveragePooling2D(8, name="pool")(inputs)
    scaled = keras.layers.DepthwiseConv2D(1, use_bias=False, name="scale")(pooled)
    model = keras.Model(inputs, keras.layers.Flatten()(scaled))
    if weights:
        model.load_weights(weights)
    return model


NETWORK = dataclasses.replace(TINY, build=_model)


def save(path: pathlib.Path, *factors: float) -> str:
    """Writes a file of weights, or, where its name has no ending, a SavedModel; these are of red, green and blue."""
    model = _model(None)
    model.set_weights([np.array(factors, np.float32).reshape(1, 1, 3, 1)])
    if path.suffix:
        model.save_weights(path)
    else:
        model.export(str(path), verbose=False)
    return str(path)
