"""im2txt's Inception-v3, as TF-Slim names its parts, in the form in which exports carry the network's weights."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from tfrecords_schema.networks.registry import find_network
from tfrecords_schema.quiet import import_tensorflow
from tfrecords_schema.storage import carried
from trainer.im2txt.tensors import Tensors

NAME = "inception_v3_im2txt"
# TF-Slim's scopes in the order in which it makes them, which is Keras' too: of each block the convolutions of its
# branches (https://github.com/tensorflow/models/blob/archive/research/slim/nets/inception_v3.py). Some names say
# something else than what they stand for: those of 6a that end in 1x1 are 3x3.
_BLOCKS = {
    "": ("1a_3x3 2a_3x3 2b_3x3 3b_1x1 4a_3x3",),
    "Mixed_5b": ("0a_1x1", "0a_1x1 0b_5x5", "0a_1x1 0b_3x3 0c_3x3", "0b_1x1"),
    "Mixed_5c": ("0a_1x1", "0b_1x1 Conv_1_0c_5x5", "0a_1x1 0b_3x3 0c_3x3", "0b_1x1"),
    "Mixed_5d": ("0a_1x1", "0a_1x1 0b_5x5", "0a_1x1 0b_3x3 0c_3x3", "0b_1x1"),
    "Mixed_6a": ("1a_1x1", "0a_1x1 0b_3x3 1a_1x1"),
    **dict.fromkeys(
        ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
        ("0a_1x1", "0a_1x1 0b_1x7 0c_7x1", "0a_1x1 0b_7x1 0c_1x7 0d_7x1 0e_1x7", "0b_1x1"),
    ),
    "Mixed_7a": ("0a_1x1 1a_3x3", "0a_1x1 0b_1x7 0c_7x1 1a_3x3"),
    "Mixed_7b": ("0a_1x1", "0a_1x1 0b_1x3 0b_3x1", "0a_1x1 0b_3x3 0c_1x3 0d_3x1", "0b_1x1"),
    "Mixed_7c": ("0a_1x1", "0a_1x1 0b_1x3 0c_3x1", "0a_1x1 0b_3x3 0c_1x3 0d_3x1", "0b_1x1"),
}


def scopes() -> Iterator[str]:
    """The 94 convolutions' names, `InceptionV3/Mixed_5b/Branch_0/Conv2d_0a_1x1`, in order."""
    for block, branches in _BLOCKS.items():
        for number, convolutions in enumerate(branches):
            for name in convolutions.split():
                name = name if name.startswith("Conv") else f"Conv2d_{name}"
                yield f"InceptionV3/{f'{block}/Branch_{number}/' if block else ''}{name}"


def save(tensors: Tensors, directory: str) -> tuple[str, str]:
    """Writes the network's weights below a local directory; returns their name there and their digest.

    Raises:
      InputError: a tensor is missing, or has another shape.
    """
    import_tensorflow()
    import keras

    model = find_network(NAME).build(None)
    kinds = (keras.layers.Conv2D, keras.layers.BatchNormalization)
    for scope, convolution, norm in zip(scopes(), *(_in_order(model, kind) for kind in kinds), strict=True):
        convolution.set_weights([tensors.take(tuple(convolution.kernel.shape), f"{scope}/weights")])
        parts = ("beta", "moving_mean", "moving_variance")  # it has no gamma; epsilon is 0.001, Keras' too
        shape = tuple(norm.beta.shape)
        norm.set_weights([tensors.take(shape, f"{scope}/BatchNorm/{part}") for part in parts])
    path = os.path.join(directory, "network.weights.h5")
    model.save_weights(path)
    return carried.keep(path, directory)


def _in_order(model: Any, kind: type) -> list[Any]:
    """A model's layers of a kind in the order in which they were made, which their names end with: conv2d_93."""
    found = [layer for layer in model.layers if type(layer) is kind]
    return sorted(found, key=lambda layer: int((re.findall(r"_(\d+)$", layer.name) or [0])[0]))
