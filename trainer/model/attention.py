"""Additive attention over image positions (Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, appendix A.1.2)."""

from __future__ import annotations

import keras
import tensorflow as tf


class BahdanauAttention(keras.layers.Layer):
    """Weights of P positions for a state: `softmax(v . tanh(W state + U position))`.

    `keys`, `U position`, does not depend on the state and is computed once an image. States may be several an image
    (the hypotheses of a beam): N = B * K, those of one image side by side; positions are never copied for them.
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.keys = keras.layers.Dense(units, dtype=self.dtype_policy, name="keys")
        self.query = keras.layers.Dense(units, use_bias=False, dtype=self.dtype_policy, name="query")
        self.score = keras.layers.Dense(1, use_bias=False, dtype=self.dtype_policy, name="score")
        self.units = units

    def build(self, positions_shape, state_shape):
        """For positions `[B, P, D]` and states `[N, U]`."""
        self.keys.build(positions_shape)
        self.query.build(state_shape)
        self.score.build((None, None, None, self.units))
        self.built = True

    def call(self, state, keys, positions):
        """state `[N, U]`, keys `[B, P, A]`, positions `[B, P, D]` -> (context `[N, D]`, weights float32 `[N, P]`)."""
        images, count = tf.shape(keys)[0], tf.shape(keys)[1]
        query = self.query(state)  # [N, A]
        query = tf.reshape(query, [images, -1, 1, self.units])  # [B, K, 1, A]
        scores = self.score(tf.tanh(query + keys[:, None]))[..., 0]  # [B, K, P]
        weights = tf.nn.softmax(tf.cast(scores, tf.float32))
        context = tf.matmul(tf.cast(weights, positions.dtype), positions)  # [B, K, D]
        return tf.reshape(context, [-1, positions.shape[-1]]), tf.reshape(weights, [-1, count])
