"""From pixels to features: one registry entry per network."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable

import numpy as np

from pipelines import images, random_weights
from tfrecords_schema.dataset_info import FeatureSpec
from tfrecords_schema.errors import InputError
from tfrecords_schema.quiet import import_tensorflow


@dataclasses.dataclass(frozen=True)
class Network:
    """A frozen image network.

    Attributes:
      build: (weights: None or a path) -> a Keras model, float32 `[B, size, size, 3]` -> `[B, *shape]`.
      size: of its square input, in pixels.
      scale, offset: of preprocessing, `pixels * scale + offset`.
      layer: which output the model ends in.
      shape: of one image's feature.
      keras_file: (file name, URL) of the ImageNet weights that Keras downloads.
    """

    build: Callable
    size: int
    scale: float
    offset: float
    layer: str
    shape: tuple[int, ...]
    keras_file: tuple[str, str]


def _inception_v3(weights: str | None):
    import keras

    return keras.applications.InceptionV3(include_top=False, pooling="avg", weights=weights)


_KERAS_INCEPTION = "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
NETWORKS = {
    "inception_v3": Network(
        build=_inception_v3,
        size=299,
        scale=1 / 127.5,
        offset=-1.0,
        layer="mixed10, average-pooled",
        shape=(2048,),
        keras_file=(
            "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
            _KERAS_INCEPTION + "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        ),
    ),
}


class Extractor:
    """pixels uint8 `[batch_size, size, size, 3]` -> features float32 `[batch_size, *shape]`.

    `load` builds the network; before it, an Extractor is small and can be pickled.

    Args:
      name: a key of NETWORKS.
      weights: "imagenet" (downloaded by Keras, kept in its cache), "random" (seeded, for trying out) or a `.h5` file.
      batch_size: of every call, so that nothing is traced twice.
    """

    def __init__(self, name: str, weights: str, batch_size: int):
        self.name, self.weights, self.batch_size = name, weights, batch_size
        self.network = find_network(name)
        self._function = None

    def load(self) -> Extractor:
        """Builds the network with its weights; returns self."""
        tf = import_tensorflow()
        for gpu in tf.config.list_physical_devices("GPU"):
            with contextlib.suppress(RuntimeError):  # in use already, by an earlier load in this process
                tf.config.experimental.set_memory_growth(gpu, True)
        network = self.network
        if self.weights == "random":
            model = network.build(None)
            random_weights.assign(model, network)
        else:
            path = weights_file(self.name, self.weights)
            try:
                model = network.build(path)
            except Exception as error:
                reason = str(error).strip().replace("\n", " ")[:200]
                raise ValueError(f"--weights: {path} does not fit {self.name}: {reason}") from None
        signature = tf.TensorSpec([self.batch_size, network.size, network.size, 3], tf.uint8)

        @tf.function(input_signature=[signature])
        def function(pixels):
            return model(tf.cast(pixels, tf.float32) * network.scale + network.offset, training=False)

        function(tf.zeros(signature.shape, signature.dtype))  # traced now, so that loading is told apart from running
        self._function = function
        return self

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Runs one batch of exactly `batch_size` images."""
        return self._function(pixels).numpy()


def find_network(name: str) -> Network:
    """The registry's entry. Raises InputError where there is none of this name."""
    if name not in NETWORKS:
        raise InputError(f"extractor: expected one of {sorted(NETWORKS)}, found {name!r}")
    return NETWORKS[name]


def feature_spec(name: str, weights: str, dtype: str) -> FeatureSpec:
    """What the features of this extractor are, without loading it.

    Raises:
      InputError: no such network, or the weights are not there.
    """
    network = find_network(name)
    if weights == "random":
        digest = hashlib.sha256(f"{name}: {random_weights.RECIPE}".encode()).hexdigest()
    else:
        digest = _file_digest(weights_file(name, weights))
    label = weights if weights in ("imagenet", "random") else os.path.basename(weights)
    return FeatureSpec(name, network.layer, label, digest, network.shape, dtype, images.RESIZE)


def weights_file(name: str, weights: str) -> str:
    """The local path of a weights file; "imagenet" is downloaded by Keras unless its cache has it.

    Raises:
      InputError: no such file, or the download failed.
    """
    if weights != "imagenet":
        if not os.path.isfile(weights):
            raise InputError(f"--weights: expected imagenet, random or a Keras .h5 file, found no file {weights!r}")
        import h5py

        if not h5py.is_hdf5(weights):
            raise InputError(f"--weights: expected imagenet, random or a Keras .h5 file, found no HDF5 in {weights!r}")
        return weights
    file_name, url = NETWORKS[name].keras_file
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    path = os.path.join(home, "models", file_name)
    if os.path.isfile(path):
        return path
    import_tensorflow()
    import keras

    try:
        return keras.utils.get_file(file_name, url, cache_subdir="models")
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"--weights imagenet: not in {os.path.dirname(path)} and the download failed ({reason}); put {file_name} "
            "there, or give --weights FILE.h5 (or --weights random to try things out)"
        ) from None


def _file_digest(path: str) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
