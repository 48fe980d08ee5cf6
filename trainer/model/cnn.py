"""The network that features come from, in two parts: a trunk that stays as it is, and a top that learns."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import keras
import tensorflow as tf

from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import RESIZE, FeatureSpec
from tfrecords_schema.networks import building
from tfrecords_schema.networks.folding import folded
from tfrecords_schema.networks.registry import NETWORKS, Endpoint, Network

ALL = "all"
_SHOWN = 8  # layers in a message


class Cnn:
    """pixels -> activations of the trunk -> features; the top begins at a layer that has a name.

    Of activations there are as many tensors as lead from the trunk into the top, mostly one. Where all of the network
    learns there is no trunk, and they are the pixels.

    Attributes:
      size: of the square input, in pixels.
      weights: the variables that training may change, moving statistics of trained batch norms included.
      trainable_variables: those of them that gradients reach.
    """

    def __init__(self, spec: FeatureSpec, path: str, first: str, precision: str = "float32", batch_norm: bool = False):
        """Builds the network of `spec` with the weights of a local file.

        Args:
          first: the lowest layer that learns, by Keras' name, or "all".
          precision: that both parts compute in.
          batch_norm: whether batch norms learn too, and measure each batch; else they stay as they are. Nothing is
            dropped either way (EfficientNet's blocks, in their authors' training).

        Raises:
          InputError: there is no such layer, or nothing above it that learns.
        """
        network, endpoint = _network(spec)
        self.size, self._preprocess, self._shape = network.size, network.preprocess, endpoint.shape
        self._trains_batch_norm = batch_norm
        with building.computing_in(precision):
            self._model = building.build(spec.extractor, path)
            feature = building.up_to(self._model, endpoint)
            learning, between = _parts(feature, first, spec.extractor)
            # Layers of the top are called a second time when it is made: before that, their inputs are looked up.
            self._trunk = folded(keras.Model(feature.inputs, between)) if first != ALL else None
            for layer in learning:
                is_norm = isinstance(layer, keras.layers.BatchNormalization)
                layer.trainable = batch_norm or not is_norm
                if isinstance(layer, keras.layers.Dropout):
                    layer.rate = (
                        0.0  # its masks would follow from a state, and not from the step, and be each replica's
                    )
            self._top = keras.Model(between, feature.output) if first != ALL else feature
        self.weights = self._top.weights
        self.trainable_variables = self._top.trainable_variables
        self._initial = self._digest()
        if not self.trainable_variables:
            raise InputError(
                f"--fine_tune: expected a layer with weights in or above it, found {first}, which has none"
            )

    @property
    def has_trunk(self) -> bool:
        """Whether a part of the network stays as it is."""
        return self._trunk is not None

    def activations(self, pixels) -> tuple[Any, ...]:
        """uint8 `[B, size, size, 3]` -> what the top is given; no gradient goes down here."""
        if self._trunk is None:
            return (pixels,)
        found = self._trunk(self._preprocess(tf.cast(pixels, tf.float32)), training=False)
        return tuple(map(tf.stop_gradient, found if isinstance(found, list) else [found]))

    def features(self, activations: tuple[Any, ...], training: bool = False):
        """-> float32 `[B, *shape]`. In training, batch norms that learn measure this batch."""
        given: Any = list(activations) if len(activations) > 1 else activations[0]
        if self._trunk is None:
            given = self._preprocess(tf.cast(given, tf.float32))
        found = self._top(given, training=training and self._trains_batch_norm)
        return tf.reshape(tf.cast(found, tf.float32), [-1, *self._shape])

    def is_changed(self) -> bool:
        """Whether any weight is another than when the network was built."""
        return self._digest() != self._initial

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for weight in self.weights:
            digest.update(weight.value.numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: str) -> None:
        """Writes the whole network's weights to a `.weights.h5` file, as `--weights` takes them."""
        self._model.save_weights(path)


def require_usable(spec: FeatureSpec, extractor: str, has_images: bool, directory: str) -> None:
    """Raises InputError where a feature directory has not what fine-tuning takes."""
    told = f"--fine_tune: expected a feature directory with images in its records, found none in {directory}"
    if not has_images:
        raise InputError(f"{told}; make it with pipelines.features --store_images")
    # Stored images are made square in this one way; see stored_images.py.
    tunable = [name for name, network in NETWORKS.items() if network.resize == RESIZE]
    if spec.extractor not in tunable or (extractor and not extractor.endswith(".h5")):
        raise InputError(
            f"--fine_tune: expected features of {', '.join(tunable)}, found those of {spec.extractor!r} in {directory}"
        )
    if not extractor:
        raise InputError(
            f"--fine_tune: expected the network's weights in {directory}, found none ({spec.weights}); make the "
            "features with --weights imagenet or a file"
        )


def _network(spec: FeatureSpec) -> tuple[Network, Endpoint]:
    network = NETWORKS[spec.extractor]
    for endpoint in (network.pooled, network.grid):
        if endpoint.label == spec.layer:
            return network, endpoint
    raise InputError(
        f"--data: its features are from layer {spec.layer!r} of {spec.extractor}, which this version does not know"
    )


def _parts(model: Any, first: str, name: str) -> tuple[list[Any], Any]:
    """(the layers of the top, the tensor or tensors that lead into it) of a functional model.

    The top is the layer `first` and all that follow from it; a layer without weights stays below, which makes what is
    between the two one tensor where it joins several.
    """
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    if first == ALL:
        return layers, model.inputs
    if first not in (layer.name for layer in layers):
        named = [layer.name for layer in layers if not _is_numbered(layer)]
        shown = ", ".join(named[-_SHOWN:])
        raise InputError(f"--fine_tune: expected {ALL} or a layer of {name}, such as {shown}, found {first!r}")
    start = model.get_layer(first)
    top, learning = {id(start.output)}, [start] if start.weights else []
    for layer in layers:  # Keras has them in the order in which they are computed
        if layer is not start and any(id(tensor) in top for tensor in _list(layer.input)):
            top.add(id(layer.output))
            learning.append(layer)
    made = {id(layer.output) for layer in learning}
    between = {id(tensor): tensor for layer in learning for tensor in _list(layer.input) if id(tensor) not in made}
    tensors = list(between.values())
    return learning, tensors if len(tensors) != 1 else tensors[0]


def _is_numbered(layer: Any) -> bool:
    """Whether Keras, and not the network's author, gave a layer its name: `batch_normalization_93`."""
    return re.sub(r"_[0-9]+$", "", layer.name).replace("_", "") == type(layer).__name__.lower()


def _list(tensors: Any) -> list:
    return tensors if isinstance(tensors, list) else [tensors]
