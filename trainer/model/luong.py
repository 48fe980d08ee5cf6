"""Attention of a state that is made already (Luong et al. 2015, https://arxiv.org/abs/1508.04025, "global attention").

What a state finds helps to say the next word, and enters the layers above, but is not fed back to the state after it
(as in Lu et al. 2017, https://arxiv.org/abs/1612.01887). So the recurrent layer runs as without attention, and in
training all words of all captions look at their images at once, in large products. Scores are scaled dot products, in
several heads (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762).
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf


class LuongAttention(keras.layers.Layer):
    """B images, R states of each, P positions of E numbers, keys of A numbers, H heads, which divide both.

    Weights of a head are `softmax(query . key / sqrt(A / H))` over the positions; a context is the mean of the
    positions by these weights, each head's of its own E / H numbers, times a gate that the state sets.
    """

    def __init__(self, units: int, heads: int, **kwargs):
        super().__init__(**kwargs)
        # A bias of keys would raise the scores of all positions alike.
        self.keys = keras.layers.Dense(units, use_bias=False, dtype=self.dtype_policy, name="keys")
        self.query = keras.layers.Dense(units, use_bias=False, dtype=self.dtype_policy, name="query")
        self.gate = keras.layers.Dense(1, "sigmoid", dtype=self.dtype_policy, name="gate")
        self.heads, self._scale = heads, math.sqrt(units // heads)

    def build(self, positions_shape, state_shape):
        """For positions `[B, P, E]` and states `[B, R, U]`."""
        self.keys.build(positions_shape)
        self.query.build(state_shape)
        self.gate.build(state_shape)
        self.built = True

    def call(self, states, keys, positions):
        """states `[..., U]`, those of an image side by side -> (contexts `[..., E]`, weights float32 `[..., P]`).

        keys `[B, P, A]` and positions `[B, P, E]`; the weights are the mean of the heads'.
        """
        query = self.query(tf.reshape(states, [tf.shape(keys)[0], -1, states.shape[-1]])) / self._scale
        scores = tf.matmul(self._in_heads(query), self._in_heads(keys), transpose_b=True)  # [B, H, R, P]
        weights = tf.nn.softmax(tf.cast(scores, tf.float32))
        contexts = tf.matmul(tf.cast(weights, positions.dtype), self._in_heads(positions))  # [B, H, R, E / H]
        contexts, weights = tf.transpose(contexts, [0, 2, 1, 3]), tf.reduce_mean(weights, 1)
        many = tf.shape(states)[:-1]
        contexts = tf.reshape(contexts, tf.concat([many, [positions.shape[2]]], 0))
        return contexts * self.gate(states), tf.reshape(weights, tf.concat([many, [positions.shape[1]]], 0))

    def _in_heads(self, x):
        """`[B, R, D]` -> `[B, H, R, D / H]`."""
        shape = [tf.shape(x)[0], -1, self.heads, x.shape[2] // self.heads]
        return tf.transpose(tf.reshape(x, shape), [0, 2, 1, 3])
