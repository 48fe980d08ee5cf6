"""The layers of a caption decoder and their weights; decoder.py computes with them."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from trainer.config import DecoderConfig
from trainer.model.bahdanau import BahdanauAttention
from trainer.model.luong import LuongAttention
from trainer.model.scaling import FeatureScaling

_CELLS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
STATE_TENSORS = {"lstm": 2, "gru": 1}  # of a cell


def _uniform() -> keras.initializers.Initializer:
    """As im2txt. A new one for each weight: one of Keras' gives the same numbers every time."""
    return keras.initializers.RandomUniform(-0.08, 0.08)


class Layers(keras.Model):
    """What a DecoderConfig asks for. Weights are saved in the order in which layers are made here.

    Attributes:
      runs_whole_layers: whether training runs Keras' recurrent layers over whole captions; see Decoder.
      looks_before, looks_after: whether the first layer looks at the image before a word is read, or when it has been.
    """

    def __init__(self, config: DecoderConfig, dtype: str = "float32"):
        super().__init__(name="decoder", dtype=dtype)
        self.config = config
        self.runs_whole_layers = bool(tf.config.list_physical_devices("GPU"))
        self.looks_before, self.looks_after = config.attention == "bahdanau", config.attention == "luong"
        policy, embedding_dim = {"dtype": self.dtype_policy}, config.embedding_dim
        self.scaling = FeatureScaling(config.feature_scaling, name="scaling")
        self.image_embedding: Any = None
        if config.image_input != "shared_state":
            self.image_embedding = keras.layers.Dense(embedding_dim, name="image_embedding", **policy)
        self.word_embedding = keras.layers.Embedding(
            config.vocabulary_size, embedding_dim, embeddings_initializer=_uniform(), name="word_embedding", **policy
        )
        # `reset_after`, `recurrent_dropout` and the activations stay as they are: others would switch cuDNN off.
        self.recurrent = [
            _CELLS[config.cell](config.units, return_sequences=True, name=f"{config.cell}_{i}", **policy)
            for i in range(config.layers)
        ]
        states = config.layers * STATE_TENSORS[config.cell]
        self.first_states = [
            keras.layers.Dense(config.units, "tanh", name=f"first_state_{i}", **policy)
            for i in range({"first_word": 0, "initial_state": states, "shared_state": 1}[config.image_input])
        ]
        self.attention: Any = None
        if config.attention != "none":
            self.grid_scaling = FeatureScaling(config.feature_scaling, name="grid_scaling")
            self.position_embedding = keras.layers.Dense(embedding_dim, name="position_embedding", **policy)
            if self.looks_after:
                heads = config.attention_heads
                self.attention = LuongAttention(config.attention_units, heads, name="attention", **policy)
            else:
                self.attention = BahdanauAttention(config.attention_units, name="attention", **policy)
                self.gate = keras.layers.Dense(1, "sigmoid", name="gate", **policy)
            self.output_context = keras.layers.Dense(embedding_dim, name="output_context", **policy)
        self.output_embedding: Any = None
        if self.attention or (config.tie_embeddings and config.units != embedding_dim):
            self.output_embedding = keras.layers.Dense(embedding_dim, name="output_embedding", **policy)
        if config.tie_embeddings:
            self.bias = self.add_weight(
                name="bias", shape=(config.vocabulary_size,), initializer="zeros", autocast=False
            )
        else:
            self.logits = keras.layers.Dense(
                config.vocabulary_size, kernel_initializer=_uniform(), name="logits", **policy
            )

    def build(self, input_shape=None):
        """Makes every weight, so that checkpoints can be loaded."""
        config, embedding_dim, units = self.config, self.config.embedding_dim, self.config.units
        features = (None, config.feature_shape[-1])
        self.scaling.build(features)
        image = self.scaling.compute_output_shape(features)
        if self.image_embedding:
            self.image_embedding.build(image)
            image = (None, embedding_dim)
        self.word_embedding.build((None, None))
        size = embedding_dim * (2 if self.looks_before else 1)
        for layer in self.recurrent:
            layer.build((None, None, size))
            size = units + (embedding_dim if self.looks_after else 0)
        for dense in self.first_states:
            dense.build(image)
        if self.attention:
            positions = (None, None, config.feature_shape[-1])
            self.grid_scaling.build(positions)
            self.position_embedding.build(self.grid_scaling.compute_output_shape(positions))
            self.attention.build((None, None, embedding_dim), (None, None, units))
            if self.looks_before:
                self.gate.build((None, units))
            self.output_context.build((None, embedding_dim))
        if self.output_embedding:
            self.output_embedding.build((None, units))
            units = embedding_dim
        if not config.tie_embeddings:
            self.logits.build((None, units))
        self.built = True
