"""A model in ONNX (https://onnx.ai), for programs without TensorFlow: two graphs, and what a loop around them needs.

    encoder.onnx       pixels uint8 [n, size, size, 3] -> features [n, ...], state_0 [n, U] ...; keys, positions
    decoder_step.onnx  ids int32 [m], state_0 [m, U] ...; keys, positions
                       -> log_probs [m, V], next_state_0 [m, U] ...; attention [m, P]

What stands behind a semicolon is there with attention: m then is a multiple of n, the hypotheses of an image side by
side. The search is the loop around them: caption.py, which is written too, is one. All is computed in float32.
"""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import VOCABULARY
from tfrecords_schema.manifests.model_info import LEAST_LENGTH, ModelInfo
from tfrecords_schema.networks import building
from tfrecords_schema.networks.registry import NETWORKS
from tfrecords_schema.storage import carried, paths
from tfrecords_schema.vocabulary import END, PAD, START, UNK, Vocabulary
from trainer.model.decoder import Decoder
from trainer.model.state import Image, State

INFO = "onnx_info.json"
OPSET = 18
_ENCODER, _STEP, _LOOP = "encoder.onnx", "decoder_step.onnx", "caption.py"
_LOOP_SOURCE = pathlib.Path(__file__).with_name("onnx_caption.py")  # not imported: it needs ONNX Runtime


def converted(decoder: Decoder, vocabulary: Vocabulary, info: ModelInfo, directory: str) -> dict[str, bytes]:
    """The content of every file, by name; the info file is last.

    Args:
      directory: the export, which has the network's weights.

    Raises:
      InputError: the network is none that can be built here, or its weights are not there.
    """
    size, forward = _network(info, directory)
    described = {
        "model_digest": info.digest,
        "opset": OPSET,
        "encoder": _ENCODER,
        "step": _STEP,
        "vocabulary": VOCABULARY,
        "image_size": size,
        "resize": "RGB, upright, uint8 0..255, to a square, bilinear with antialiasing, aspect ratio not kept",
        "feature_shape": info.features.shape,
        "pad": PAD,
        "start": START,
        "end": END,
        "unk": UNK,
        "max_length": info.max_caption_length,
        "min_length": LEAST_LENGTH,
        "beam_width": int(info.search["beam_width"]),
        "length_penalty": info.search["length_penalty"],
    }
    return {
        _ENCODER: onnx_of(encoder(decoder, forward, size, info.features.dtype)),
        _STEP: onnx_of(step(decoder)),
        VOCABULARY: vocabulary.dumps().encode(),
        _LOOP: _LOOP_SOURCE.read_bytes(),
        INFO: (json.dumps(described, indent=2) + "\n").encode(),
    }


def _network(info: ModelInfo, directory: str) -> tuple[int, Callable[[Any], Any]]:
    """(the size of its square input, float32 pixels in 0..255 -> the feature) of what the export's features are of."""
    spec = info.features
    network = NETWORKS.get(spec.extractor)
    layers = {} if network is None else {network.endpoint(grid).label: grid for grid in (False, True)}
    if network is None or spec.layer not in layers:
        known = ", ".join(NETWORKS)
        raise InputError(f"--onnx: expected a model over features of {known}, found {spec.extractor!r}, {spec.layer!r}")
    if spec.weights != "random" and not info.extractor:
        raise InputError(f"--onnx: expected the network's weights in {directory}, found none; export it again")
    path = None
    if info.extractor:
        source, ways = paths.join(directory, info.extractor), "export it again"
        path = carried.local_copy(source, spec.weights_digest, "--onnx", ways)
        carried.require(path, spec.weights_digest, source, "--onnx", ways)
    return network.size, building.forward(spec.extractor, path, layers[spec.layer], "float32")


def encoder(decoder: Decoder, forward: Callable[[Any], Any], size: int, dtype: str):
    """pixels -> features, rounded as they were stored for training, and what the decoder makes of them."""

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8, name="pixels")])
    def encode(pixels):
        features = tf.reshape(forward(tf.cast(pixels, tf.float32)), [-1, *decoder.config.feature_shape])
        features = tf.cast(features, dtype)  # as an output: else tf2onnx takes it for one of two casts too many
        image = decoder.encode(features)
        return {"features": features, **_state(decoder.initial_state(image)), **_context(decoder.context(image))}

    return encode


def step(decoder: Decoder):
    """One word more for each hypothesis."""
    image = decoder.context(decoder.encode(tf.zeros([1, *decoder.config.feature_shape])))
    state = decoder.initial_state(decoder.encode(tf.zeros([1, *decoder.config.feature_shape])))
    inputs = {"ids": tf.TensorSpec([None], tf.int32, name="ids")}
    for name, tensor in {**_state(state), **_context(image)}.items():
        inputs[name] = tf.TensorSpec([None, *tensor.shape[1:]], tf.float32, name=name)

    @tf.function(input_signature=[inputs])
    def one_word(given):
        layers = tf.nest.pack_sequence_as(state.layers, [given[name] for name in _state(state)])
        seen = Image((), given.get("positions", ()), given.get("keys", ()))
        logits, after = decoder.step(given["ids"], State(layers), seen)
        attention = {"attention": after.attention} if decoder.attention else {}
        return {"log_probs": tf.nn.log_softmax(logits), **_state(after, "next_state"), **attention}

    return one_word


def _state(state: State, name: str = "state") -> dict[str, Any]:
    return {f"{name}_{i}": tensor for i, tensor in enumerate(tf.nest.flatten(state.layers))}


def _context(image: Image) -> dict[str, Any]:
    return {name: getattr(image, name) for name in ("keys", "positions") if tf.is_tensor(getattr(image, name))}


def onnx_of(function: Any) -> bytes:
    """A `tf.function` with an input signature, weights included."""
    import onnx
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    model, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=OPSET)
    onnx.checker.check_model(model, full_check=True)  # it goes on after operations that it does not know
    return model.SerializeToString()
