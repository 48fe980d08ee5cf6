"""The caption decoder of Show and Tell (Vinyals et al. 2015, https://arxiv.org/abs/1411.4555)."""

from __future__ import annotations

import keras
import tensorflow as tf

from trainer.config import DecoderConfig
from trainer.scaling import FeatureScaling, pool


class ShowAndTell(keras.Model):
    """image feature -> dense -> the LSTM's first input; then word by word.

    The LSTM layer runs whole sequences in training; beam search steps the same layer's cell. F is the feature's size, T
    the number of words, V of the vocabulary, U the LSTM's units. Where features are a grid, `[B, positions, F]`, this
    decoder sees its mean.
    """

    def __init__(self, config: DecoderConfig):
        super().__init__(name="show_and_tell")
        self.config = config
        uniform = keras.initializers.RandomUniform(-0.08, 0.08)  # as im2txt
        self.scaling = FeatureScaling(config.feature_scaling, name="scaling")
        self.image_embedding = keras.layers.Dense(config.embedding_dim, name="image_embedding")
        self.word_embedding = keras.layers.Embedding(
            config.vocabulary_size, config.embedding_dim, embeddings_initializer=uniform, name="word_embedding"
        )
        self.lstm = keras.layers.LSTM(config.units, return_sequences=True, name="lstm")
        self.dropout = keras.layers.Dropout(config.dropout, name="dropout")
        self.logits = keras.layers.Dense(config.vocabulary_size, kernel_initializer=uniform, name="logits")

    def build(self, input_shape=None):
        """Makes every weight, so that checkpoints can be loaded."""
        embedded = (None, None, self.config.embedding_dim)
        pooled = (None, self.config.feature_shape[-1])
        self.scaling.build(pooled)
        self.image_embedding.build(self.scaling.compute_output_shape(pooled))
        self.word_embedding.build((None, None))
        self.lstm.build(embedded)
        self.logits.build((None, None, self.config.units))
        self.built = True

    def call(self, inputs, training: bool = False):
        """(features `[B, F]`, ids `[B, T]`, START first) -> logits `[B, T, V]` of the word after each id."""
        features, ids = inputs
        image = self._embed_image(features)[:, None]  # [B, 1, E]
        words = self.word_embedding(ids)  # [B, T, E]
        sequence = tf.concat([image, words], axis=1)  # [B, 1+T, E]
        states = self.lstm(self.dropout(sequence, training=training), training=training)  # [B, 1+T, U]
        return self.logits(self.dropout(states[:, 1:], training=training))

    def initial_state(self, features):
        """features `[N, F]` -> the state after the image, two tensors `[N, U]`."""
        zeros = tf.zeros([tf.shape(features)[0], self.config.units])
        _, state = self.lstm.cell(self._embed_image(features), [zeros, zeros])
        return state

    def step(self, ids, state):
        """ids `[N]` of the last words, and the state -> (logits `[N, V]` of the next words, new state)."""
        output, state = self.lstm.cell(self.word_embedding(ids), state)
        return self.logits(output), state

    def _embed_image(self, features):  # [N, F] or [N, positions, F] -> [N, E]
        return self.image_embedding(self.scaling(pool(features)))
