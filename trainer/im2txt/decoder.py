"""im2txt's LSTM as a decoder of ours, its words by our ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.config import DecoderConfig
from trainer.im2txt.tensors import Tensors
from trainer.model.decoder import Decoder

FEATURES = 2048  # numbers that the CNN gives
MAX_LENGTH = 20  # ids, START and END counted: `max_caption_length` of im2txt's CaptionGenerator
_FORGET_BIAS = 1.0  # that TensorFlow 1's BasicLSTMCell adds when it runs
_INITIAL = 0.0801  # and a little for rounding
_NEVER = -1e4  # a logit whose probability is 0 in float32

# By versions of TensorFlow: from 1.2 on, before, and before 1.0.
_KERNEL = ("lstm/basic_lstm_cell/kernel", "lstm/basic_lstm_cell/weights", "lstm/BasicLSTMCell/Linear/Matrix")
_BIAS = ("lstm/basic_lstm_cell/bias", "lstm/basic_lstm_cell/biases", "lstm/BasicLSTMCell/Linear/Bias")


def rows(tensors: Tensors) -> int:
    """How many words the model has places for. Raises InputError where it has no output layer."""
    return tensors.take((None,), "logits/biases").size


def learned(tensors: Tensors, places: Sequence[int]) -> int:
    """How many rows of these were words of the training captions.

    An embedding that was never read is as im2txt begins it, in -0.08..0.08 (`initializer_scale`).
    """
    embeddings = tensors.take((None, None), "seq_embedding/map")[list(places)]  # [n, E]
    return int((np.abs(embeddings) > _INITIAL).any(axis=1).sum())


def make(tensors: Tensors, order: Sequence[int]) -> Decoder:
    """The decoder. V words of ours, W of the model, E numbers in an embedding, U units.

    Args:
      order: `[V]`, the model's row of each of our ids, -1 for what it has not, which gets no probability.

    Raises:
      InputError: a tensor is missing, or has another shape.
    """
    words = rows(tensors)
    image = tensors.take((FEATURES, None), "image_embedding/weights")  # [F, E], without bias
    size = image.shape[1]
    embeddings = tensors.take((words, size), "seq_embedding/map")  # [W, E]
    logits = tensors.take((None, words), "logits/weights")  # [U, W]
    units = logits.shape[0]
    kernel = tensors.take((size + units, 4 * units), *_KERNEL)  # rows: the input, then the state
    bias = tensors.take((4 * units,), *_BIAS)
    bias[2 * units : 3 * units] += _FORGET_BIAS
    biases = np.append(tensors.take((words,), "logits/biases"), np.float32(_NEVER))  # [W + 1], -1 is the last
    config = DecoderConfig(
        units=units,
        embedding_dim=size,
        feature_scaling="none",
        vocabulary_size=len(order),
        max_length=MAX_LENGTH,
        feature_shape=(FEATURES,),
    )
    decoder = Decoder(config)
    decoder.build()
    decoder.image_embedding.set_weights([image, np.zeros(size, np.float32)])
    decoder.word_embedding.set_weights([np.pad(embeddings, [(0, 1), (0, 0)])[order]])
    gates = [_gates(kernel[:size]), _gates(kernel[size:]), _gates(bias)]
    decoder.recurrent[0].set_weights(gates)
    decoder.logits.set_weights([np.pad(logits, [(0, 0), (0, 1)])[:, order], biases[order]])
    return decoder


def _gates(columns: np.ndarray) -> np.ndarray:
    """`[..., 4 U]` of an LSTM's gates, from TensorFlow 1's order (input, candidate, forget, output) to Keras'."""
    enter, candidate, keep, leave = np.split(columns, 4, axis=-1)
    return np.concatenate([enter, keep, candidate, leave], axis=-1)
