"""Tiny decoders of every kind, and batches for them."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from tfrecords_schema.vocabulary import END, PAD, START
from trainer.config import DecoderConfig
from trainer.data.batches import Batch
from trainer.model.decoder import Decoder
from trainer.model.packing import pack

WORDS = 11
LENGTH = 7

BASE = DecoderConfig(
    vocabulary_size=WORDS,
    max_length=LENGTH,
    feature_shape=(5,),
    embedding_dim=6,
    units=8,
    attention_units=4,
    feature_scaling="whiten",
    embedding_dropout=0.0,
    output_dropout=0.0,
)

KINDS = {
    "lstm": {},
    "gru": {"cell": "gru"},
    "two_layers": {"layers": 2},
    "three_gru_layers": {"layers": 3, "cell": "gru"},
    "initial_state": {"image_input": "initial_state"},
    "gru_initial_state": {"image_input": "initial_state", "cell": "gru", "layers": 2},
    "shared_state": {"image_input": "shared_state", "cell": "gru", "layers": 3},
    "tied": {"tie_embeddings": True},
    "attention": {"attention": "bahdanau", "feature_shape": (4, 5)},
    "attention_gru": {
        "attention": "bahdanau",
        "feature_shape": (4, 5),
        "cell": "gru",
        "image_input": "initial_state",
        "layers": 2,
    },
    "luong": {"attention": "luong", "feature_shape": (4, 5), "attention_heads": 2},
    "luong_layers": {"attention": "luong", "feature_shape": (4, 5), "cell": "gru", "layers": 3, "attention_heads": 1},
    "attention_tied": {"attention": "bahdanau", "feature_shape": (4, 5), "tie_embeddings": True},
}


def make(kind: str = "lstm", scale: float = 0.7, dtype: str = "float32", **changes) -> Decoder:
    """A decoder with seeded weights, larger than at the start of training, so that words differ in probability."""
    keras.utils.set_random_seed(1)
    decoder = Decoder(dataclasses.replace(BASE, **{**KINDS[kind], **changes}), dtype)
    decoder.build()
    generator = np.random.default_rng(0)
    for weight in decoder.trainable_weights:
        weight.assign(generator.normal(0, scale, weight.shape))
    for scaling in [decoder.scaling, *([decoder.grid_scaling] if decoder.attention else [])]:
        size = decoder.config.feature_shape[-1]
        scaling.measure(generator.normal(size=size), np.cov(generator.normal(size=(size, 50))))
    return decoder


def batch(size: int, seed: int = 0, shape: tuple[int, ...] = (5,)) -> Batch:
    """Captions of 3 to 5 words, one an image."""
    generator = np.random.default_rng(seed)
    ids = np.full((size, LENGTH), PAD, np.int32)
    for row in ids:
        length = generator.integers(3, 6)
        row[: length + 2] = [START, *generator.integers(4, WORDS, length), END]
    features = generator.normal(size=(size, *shape)).astype(np.float32)
    return Batch(features, ids[:, None], np.arange(size, dtype=np.int32))


def forced(decoder: Decoder, features, ids, seed=None):
    """Captions `[N, 1 + T]` as training reads them -> (logits `[N, T, V]`, attention `[N, T, P]` or None).

    Both are of the words that come next, and 0 where only padding does.
    """
    packed = pack(ids)
    found = decoder((features, packed), seed=seed)
    size, place = (len(ids), ids.shape[1] - 1), (packed.caption.numpy(), packed.places[:, 1].numpy())
    padded = [None if each is None else np.zeros((*size, each.shape[1]), np.float32) for each in found]
    for each, all_words in zip(found, padded, strict=True):
        if each is not None:
            all_words[place] = each
    return tuple(padded)


def log_softmax(logits) -> np.ndarray:
    """In double precision."""
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def signature_inputs(features, **changes) -> dict:
    """The inputs of an export's `caption`, with every rule off but that UNK is not said."""
    given = {
        "beam_width": 3,
        "max_length": 16,
        "length_penalty": 0.0,
        "min_length": 0,
        "no_repeat_ngram": 0,
        "forbid_unk": True,
        "beam_groups": 1,
        "diversity_penalty": 0.0,
        "forbidden": np.zeros([0], np.int32),
        "prefix": np.zeros([len(features), 0], np.int32),
        **changes,
    }
    tensors = {name: tf.constant(value) for name, value in given.items()}
    return {"features": tf.constant(features, tf.float32), **tensors}
