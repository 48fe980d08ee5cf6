"""From pixels to features: a network, loaded and run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.storage import saved_models
from pipelines.vision import devices, exported
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import RESIZE, FeatureSpec
from tfrecords_schema.networks import building, random_weights
from tfrecords_schema.networks.registry import find_network, weights_file
from tfrecords_schema.quiet import import_tensorflow
from tfrecords_schema.storage import carried, copies, files, paths

SAVED_MODEL = "saved_model"


@dataclasses.dataclass
class Extractor:
    """pixels `[B, size, size, 3]` in 0..255 -> features float32 `[B, *shape]`; `rows` tells for what B.

    `load` builds the network; before it, an Extractor is small and can be pickled. Calls are safe from several threads.

    Attributes:
      name: a key of NETWORKS, or "saved_model".
      weights: "imagenet" (downloaded by Keras, kept in its cache), "random" (seeded, for trying out) or a `.h5` file;
        for "saved_model", its directory.
      grid: the last convolutional map instead of the pooled vector.
      precision: of the forward pass, one of registry.PRECISIONS; features are float32 whatever it is.
      batch_size: of every call, so that nothing is traced twice; with `at_once`, of the largest one.
      digest: of weights that a directory of ours carries, wherever it is, and that were compared with it; empty for
        others.
      at_once: for a few images now and then, whoever waits for them: calls may be small, one at a time has all threads
        of the process, and the process is not set up for anything else.
      size: of the square input, in pixels.
      resize: how images become that.
      pixels: their type: "uint8", or "float32" where the resize does not round.
      in_flight: how many calls to make at a time; known once loaded.
    """

    name: str
    weights: str
    batch_size: int
    grid: bool = False
    precision: str = "float32"
    digest: str = ""
    at_once: bool = False
    in_flight: int = dataclasses.field(default=1, init=False)

    def __post_init__(self):
        self._function: Any = None
        if self.name == SAVED_MODEL:
            self.size, self.layer, self.shape, batch = _inspect_saved_model(self)
            self.at_once = self.at_once and batch is None
            self.resize = RESIZE
        else:
            network = find_network(self.name)
            endpoint = network.endpoint(self.grid)
            self.size, self.layer, self.shape = network.size, endpoint.label, endpoint.shape
            self.resize = network.resize
        self.pixels = "uint8" if self.resize == RESIZE else "float32"

    def spec(self, dtype: str) -> FeatureSpec:
        """What the features are when they are stored as `dtype`, without loading the network.

        Raises:
          InputError: the weights are not there.
        """
        source = self.source()
        if self.digest:
            digest = self.digest
        elif source is None:
            digest = hashlib.sha256(f"{self.name}: {random_weights.RECIPE}".encode()).hexdigest()
        else:
            try:
                digest = carried.digest_of(source)
            except InputError as error:
                raise InputError(f"--extractor {SAVED_MODEL}:{error}") from None
        label = self.weights if self.weights in ("random", "imagenet") else paths.absolute(self.weights)
        return FeatureSpec(
            extractor=self.name,
            layer=self.layer,
            weights=label,
            weights_digest=digest,
            shape=self.shape,
            dtype=dtype,
            precision=self.precision,
            resize=self.resize,
        )

    def source(self) -> str | None:
        """The file or SavedModel directory with the weights, on this machine; None of "random", which has none.

        Raises:
          InputError: it is not there.
        """
        if self.digest:
            return carried.local_copy(
                self.weights, self.digest, self.name, "put them back, or make the directory again"
            )
        if self.name == SAVED_MODEL:
            return copies.local_copy(self.weights)
        return None if self.weights == "random" else weights_file(self.name, self.weights)

    def carried_at(self, directory: str, name: str, digest: str) -> Extractor:
        """This extractor with the weights that a directory carries."""
        return dataclasses.replace(self, weights=paths.join(directory, name), digest=digest)

    def load(self) -> Extractor:
        """Builds the network with its weights; returns self."""
        tf = import_tensorflow()
        if self.at_once:
            devices.configure_gpu(tf)
        else:
            self.in_flight = devices.configure(tf)
        source = self.source()
        if self.name == SAVED_MODEL:
            forward = _saved_model(tf, str(source), f"--extractor {SAVED_MODEL}:{self.weights}")
        else:
            forward = building.forward(self.name, source, self.grid, self.precision)

        # Of no size, the same graph takes all sizes; a worker's has the one that it is used with.
        rows = None if self.at_once else self.batch_size

        @tf.function(input_signature=[tf.TensorSpec([rows, self.size, self.size, 3], self.pixels)])
        def body(pixels):
            features = forward(tf.cast(pixels, tf.float32))
            return tf.reshape(tf.cast(features, tf.float32), [rows or -1, *self.shape])

        concrete = body.get_concrete_function()
        # `forward` is held here: the variables live as long as it does.
        self._function = lambda pixels, forward=forward: concrete(tf.constant(pixels))
        return self

    def rows(self, count: int) -> int:
        """The B of a call for so many images, at most `batch_size`: one of few, since each takes memory of its own."""
        return min(1 << (count - 1).bit_length(), self.batch_size) if self.at_once else self.batch_size

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Runs one batch."""
        return self._function(pixels).numpy()


def parse(name: str, weights: str, batch_size: int, grid: bool, precision: str) -> Extractor:
    """The extractor of `--extractor NAME` or `--extractor saved_model:DIR`.

    Raises:
      InputError: there is no such network, or the flags do not fit each other.
    """
    kind, colon, directory = name.partition(":")
    if kind != SAVED_MODEL and not colon:
        digest = ""
        if weights not in ("imagenet", "random") and exported.is_export(weights):
            weights, digest = exported.weights_of(weights, name)
        return Extractor(name, weights, batch_size, grid, precision, digest)
    if kind != SAVED_MODEL or not directory:
        raise InputError(f"--extractor: expected a network's name or {SAVED_MODEL}:DIR, found {name!r}")
    if weights != "imagenet":
        raise InputError(f"--weights: a SavedModel has its own, found {weights}; leave the flag out")
    return Extractor(SAVED_MODEL, directory, batch_size, grid, precision)


def of_spec(
    spec: FeatureSpec,
    weights: str,
    batch_size: int,
    precision: str | None = None,
    digest: str = "",
    at_once: bool = False,
) -> Extractor:
    """The extractor that makes features as `spec` says, with these weights; `digest` is that of carried ones.

    Raises:
      InputError: this version has no such network or layer.
    """
    for grid in (False, True):
        extractor = Extractor(spec.extractor, weights, batch_size, grid, precision or spec.precision, digest, at_once)
        if extractor.layer == spec.layer:
            return extractor
    raise InputError(
        f"--model: its features are from layer {spec.layer!r} of {spec.extractor}, which this version does not know"
    )


def _inspect_saved_model(extractor: Extractor) -> tuple[int, str, tuple[int, ...], int | None]:
    """(size, layer, shape, batch or None for any) of a SavedModel that takes square RGB images in 0..255.

    Raises:
      InputError: it is none, or its serving signature is another.
    """
    directory = extractor.weights
    flag = f"--extractor {SAVED_MODEL}:{directory}"
    if extractor.precision != "float32":
        raise InputError(f"--precision: a SavedModel runs as it was saved, found {extractor.precision}; leave it out")
    if not files.exists(paths.join(directory, saved_models.FILE)):
        raise InputError(f"{flag}: expected a directory with saved_model.pb, found none")
    inputs, outputs = _signature_shapes(directory, flag)
    wanted = "one input [batch, size, size, 3] and one output [batch, …] of known sizes"
    shapes = [*inputs, *outputs]
    if len(inputs) != 1 or len(outputs) != 1 or len(shapes[0]) != 4 or len(shapes[1]) < 2:
        raise InputError(f"{flag}: expected {wanted}, found inputs and outputs {shapes}")
    (batch, height, width, channels), (_, *feature) = shapes
    if batch not in (None, extractor.batch_size):
        raise InputError(f"{flag}: expected a batch of any size, found one of {batch}; give --batch_size {batch}")
    known = [size for size in feature if size is not None]
    if height is None or height != width or channels != 3 or len(known) < len(feature):
        raise InputError(f"{flag}: expected {wanted}, found {shapes[0]} and {shapes[1]}")
    if extractor.grid and len(known) == 1:
        raise InputError(f"--feature_grid: expected a map as the output of {directory}, found one vector {known}")
    if len(known) == 3:  # a map: rows and columns become positions
        known = [known[0] * known[1], known[2]]
    return height, "serving_default", tuple(known), batch


def _signature_shapes(directory: str, flag: str) -> list[list[list[int | None]]]:
    """The shapes of the inputs and of the outputs of the serving signature; [] for a shape that is not known at all."""
    signatures = saved_models.signatures(directory, flag)
    if "serving_default" not in signatures:
        found = ", ".join(sorted(signatures)) or "none"
        raise InputError(f"{flag}: expected a SavedModel with a serving_default signature, found {found}")
    signature = signatures["serving_default"]
    return [list(saved_models.shapes(tensors).values()) for tensors in (signature.inputs, signature.outputs)]


def _saved_model(tf, directory: str, where: str) -> Callable:
    model = saved_models.told(lambda: tf.saved_model.load(directory), where)
    signature = model.signatures["serving_default"]
    ((name, spec),) = signature.structured_input_signature[1].items()

    def run(pixels, model=model):  # which is held here: its variables live as long as it does
        (output,) = signature(**{name: tf.cast(pixels, spec.dtype)}).values()
        return output

    return run
