"""A network of the registry with its weights: as Keras' model, and as one function."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from tfrecords_schema.errors import InputError
from tfrecords_schema.networks import random_weights
from tfrecords_schema.networks.folding import folded
from tfrecords_schema.networks.registry import Endpoint, Network, find_network


def forward(name: str, path: str | None, grid: bool, precision: str) -> Callable[[Any], Any]:
    """float32 pixels `[B, size, size, 3]` in 0..255 -> the network's feature; a function to be traced once.

    Args:
      name, grid: as of an Extractor.
      precision: that Keras' layers compute in, one of registry.PRECISIONS.
      path: a local `.h5` file; None for seeded random weights.

    Raises:
      InputError: the weights are another network's.
    """
    network = find_network(name)
    with computing_in(precision):
        model = folded(up_to(build(name, path), network.endpoint(grid)))
    return lambda pixels: model(network.preprocess(pixels), training=False)


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Layers that are made meanwhile compute in this precision; their variables are float32, and fit any checkpoint."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build(name: str, path: str | None) -> Any:
    """The whole network as a Keras model; `path` as of `forward`. Raises InputError where the weights do not fit."""
    network = find_network(name)
    return random_weights.build(network) if path is None else _with_weights(name, network, path)


def up_to(model: Any, endpoint: Endpoint) -> Any:
    """The part of a network whose output is the feature."""
    import keras

    return keras.Model(model.inputs, model.get_layer(endpoint.layer).output) if endpoint.layer else model


def _with_weights(name: str, network: Network, path: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras' own, of every layer that does not fit
            return network.build(path)
    except Exception as error:
        reason = str(error).strip().replace("\n", " ")[:200]
        raise InputError(f"--weights: {path} does not fit {name}: {reason}") from None
