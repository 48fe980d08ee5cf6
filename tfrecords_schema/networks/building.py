"""A network of the registry with its weights: as Keras' model, and as one function."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from tfrecords_schema.errors import InputError
from tfrecords_schema.networks import random_weights
from tfrecords_schema.networks.folding import folded
from tfrecords_schema.networks.registry import Network, find_network


def forward(name: str, path: str | None, grid: bool, precision: str) -> Callable[[Any], Any]:
    """float32 pixels `[B, size, size, 3]` in 0..255 -> the network's feature; a function to be traced once.

    Args:
      name, grid: as of an Extractor.
      precision: that Keras' layers compute in, one of registry.PRECISIONS.
      path: a local `.h5` file; None for seeded random weights.

    Raises:
      InputError: the weights are another network's.
    """
    import keras

    network = find_network(name)
    endpoint = network.endpoint(grid)
    before = keras.config.dtype_policy()
    # Variables stay float32 and are cast: a checkpoint fits whatever the precision.
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")
    try:
        model = random_weights.build(network) if path is None else _with_weights(name, network, path)
        if endpoint.layer:
            model = keras.Model(model.inputs, model.get_layer(endpoint.layer).output)
        model = folded(model)
    finally:
        keras.config.set_dtype_policy(before)
    return lambda pixels: model(network.preprocess(pixels), training=False)


def _with_weights(name: str, network: Network, path: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras' own, of every layer that does not fit
            return network.build(path)
    except Exception as error:
        reason = str(error).strip().replace("\n", " ")[:200]
        raise InputError(f"--weights: {path} does not fit {name}: {reason}") from None
