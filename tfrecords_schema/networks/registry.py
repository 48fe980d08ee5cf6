"""The registry of image networks: one entry each. What an entry says is all that the rest of the code knows of one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable
from typing import Any

from tfrecords_schema import machine
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import IM2TXT_RESIZE, RESIZE
from tfrecords_schema.quiet import import_tensorflow

PRECISIONS = ("float32", "bfloat16", "float16")  # of a forward pass
AUTO = "auto"  # the fastest of them on the machine that computes


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """An output of a network that can be the feature.

    Attributes:
      label: goes into features_info.json.
      shape: of one image's feature, `(F,)`, or `(positions, F)` row by row for a map.
      layer: Keras' name of the layer whose output it is; None for the output of the whole.
    """

    label: str
    shape: tuple[int, ...]
    layer: str | None = None


@dataclasses.dataclass(frozen=True)
class Network:
    """A frozen image network.

    Attributes:
      build: (weights: None or a path) -> a Keras model.
      preprocess: float32 `[B, size, size, 3]` in 0..255, RGB -> what the model takes; of numpy arrays or of tensors.
      size: of its square input, in pixels.
      pooled, grid: its outputs: one vector an image, or the last convolutional map.
      keras_file: (file name, URL) of the ImageNet weights that Keras downloads.
      resize: how an image of any size becomes these pixels, as a FeatureSpec names it.
    """

    build: Callable[[str | None], Any]
    preprocess: Callable[[Any], Any]
    size: int
    pooled: Endpoint
    grid: Endpoint
    keras_file: tuple[str, str]
    resize: str = RESIZE

    def endpoint(self, grid: bool) -> Endpoint:
        """The output that is the feature."""
        return self.grid if grid else self.pooled


def _application(module: str, name: str, **options: Any) -> dict[str, Any]:
    """`build` and `preprocess` of a network in keras.applications."""

    def build(weights: str | None):
        import keras

        return getattr(getattr(keras.applications, module), name)(weights=weights, **options)

    def preprocess(pixels):
        import keras

        return getattr(keras.applications, module).preprocess_input(pixels)

    return {"build": build, "preprocess": preprocess}


def _keras_file(folder: str, name: str) -> tuple[str, str]:
    return name, f"https://storage.googleapis.com/tensorflow/keras-applications/{folder}/{name}"


_NO_TOP = {"include_top": False, "pooling": "avg"}
# Szegedy et al. 2016, https://arxiv.org/abs/1512.00567
_INCEPTION_V3 = Network(
    **_application("inception_v3", "InceptionV3", **_NO_TOP),
    size=299,
    pooled=Endpoint("mixed10, average-pooled", (2048,)),
    grid=Endpoint("mixed10", (64, 2048), layer="mixed10"),
    keras_file=_keras_file("inception_v3", "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"),
)
NETWORKS = {
    "inception_v3": _INCEPTION_V3,
    # Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556
    "vgg16": Network(
        **_application("vgg16", "VGG16"),
        size=224,
        pooled=Endpoint("fc2", (4096,), layer="fc2"),
        grid=Endpoint("block5_pool", (49, 512), layer="block5_pool"),
        keras_file=_keras_file("vgg16", "vgg16_weights_tf_dim_ordering_tf_kernels.h5"),
    ),
    # Tan and Le 2021, https://arxiv.org/abs/2104.00298
    "efficientnet_v2_s": Network(
        **_application("efficientnet_v2", "EfficientNetV2S", **_NO_TOP),
        size=384,
        pooled=Endpoint("top_activation, average-pooled", (1280,)),
        grid=Endpoint("top_activation", (144, 1280), layer="top_activation"),
        keras_file=_keras_file("efficientnet_v2", "efficientnetv2-s_notop.h5"),
    ),
    # Inception-v3 over larger images: half as many positions again along each side of its grid.
    "inception_v3_448": dataclasses.replace(
        _INCEPTION_V3, size=448, grid=dataclasses.replace(_INCEPTION_V3.grid, shape=(144, 2048))
    ),
    # Inception-v3 that looks at images as im2txt does; for its models (trainer.import_im2txt).
    "inception_v3_im2txt": dataclasses.replace(_INCEPTION_V3, resize=IM2TXT_RESIZE),
}


def find_network(name: str) -> Network:
    """The registry's entry. Raises InputError where there is none of this name."""
    if name not in NETWORKS:
        raise InputError(f"--extractor: expected one of {', '.join(NETWORKS)} or saved_model:DIR, found {name!r}")
    return NETWORKS[name]


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
    file_name, url = find_network(name).keras_file
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    path = os.path.join(home, "models", file_name)
    if os.path.isfile(path):
        return path
    folder = _folder(home)
    kept = os.path.join(folder, file_name)
    if os.path.isfile(kept):
        return kept
    import_tensorflow()
    import keras

    try:
        # Keras writes to the name that it is given, and another process would take what has come for all of it.
        with tempfile.TemporaryDirectory(prefix=".captioning-", dir=folder) as making:
            os.replace(keras.utils.get_file(file_name, url, cache_dir=making, cache_subdir=""), kept)
        return kept
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"--weights imagenet: not in {os.path.dirname(path)} and the download failed ({reason}); put {file_name} "
            "there, or give --weights FILE.h5 (or --weights random to try things out)"
        ) from None


def _folder(home: str) -> str:
    """Where weights that are downloaded are kept: Keras' own folder, or a temporary one if that cannot be written to.

    Raises:
      InputError: the temporary one is somebody else's.
    """
    folder = os.path.join(home, "models")
    with contextlib.suppress(OSError):
        os.makedirs(folder, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else machine.private_directory("copies")
