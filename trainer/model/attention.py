"""Additive attention over image positions (Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, appendix A.1.2).

Weights of P positions for a state are `softmax(v . tanh(W state + U position))`, and a context is the mean of positions
by these weights, times a gate. B images, N states, P positions of E numbers, keys and queries of A numbers.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from trainer.model.packing import Packed


class BahdanauAttention(keras.layers.Layer):
    """The weights; the functions below compute. `keys`, `U position`, does not depend on the state: once an image."""

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


def attend(asked, keys, positions, score):
    """What N states look at: (gated context `[N, E]`, weights float32 `[N, P]`).

    States may be several an image (the hypotheses of a beam): N = B * K, those of one image side by side; what is known
    of positions is never copied for them.

    Args:
      asked: `[N, A + 1]`, of each state its query `W state` and the logit of its gate.
      keys, positions: `[B, P, A]` and `[B, P, E]`.
      score: `[A]`, v.
    """
    images, count, units = tf.shape(keys)[0], tf.shape(keys)[1], keys.shape[2]
    query = tf.reshape(asked[:, :-1], [images, -1, 1, units])  # [B, K, 1, A]
    tanh = tf.tanh(query + keys[:, None])  # [B, K, P, A]
    scores = tf.reshape(tf.matmul(tf.reshape(tanh, [-1, units]), score[:, None]), [-1, count])
    weights = tf.nn.softmax(tf.cast(scores, tf.float32))  # [N, P]
    shared = tf.reshape(tf.cast(weights, positions.dtype), [images, -1, count])
    context = tf.reshape(tf.matmul(shared, positions), [-1, positions.shape[2]])
    return context * tf.sigmoid(asked[:, -1:]), weights


def unattend(asked, keys, positions, score, context, weights, of_context, of_weights):
    """The way back through `attend` with N = B: gradients of its results -> of `asked` `[N, A + 1]`, and two more.

    These are of the context before its gate, `[N, E]`, and of the scores, float32 `[N, P]`: what `of_seen` makes those
    of keys, positions and score of, for all words together.
    """
    gate = tf.sigmoid(asked[:, -1:])
    of_gate = tf.reduce_sum(of_context * context, 1, keepdims=True) * (1 - gate)  # context has the gate in it
    of_context *= gate
    of_weights += tf.cast(tf.linalg.matvec(positions, of_context), tf.float32)
    of_scores = weights * (of_weights - tf.reduce_sum(weights * of_weights, 1, keepdims=True))
    squares = tf.square(tf.tanh(asked[:, None, :-1] + keys))  # again: to keep it for each word would take longer
    each = tf.cast(of_scores, keys.dtype)
    of_query = (tf.reduce_sum(each, 1, keepdims=True) - tf.linalg.matvec(squares, each, transpose_a=True)) * score
    return tf.concat([of_query, of_gate], 1), of_context, of_scores


def of_seen(packed: Packed, query, keys, score, weights, of_scores, of_context):
    """Gradients of keys, positions and score from those of M packed words.

    query `[M, A]`, keys `[B, P, A]`, score `[A]`, weights and of_scores float32 `[M, P]`, of_context `[M, E]`.
    """
    images = tf.shape(keys)[0]
    image = packed.caption // (tf.size(packed.order) // images)  # [M]
    order, counts = tf.argsort(image), tf.math.bincount(image, minlength=images, maxlength=images)
    parts = (query, tf.cast(of_scores, keys.dtype), tf.cast(weights, keys.dtype), of_context)
    arrays = [
        tf.TensorArray(x.dtype, images, infer_shape=False, element_shape=[None, x.shape[1]]).split(
            tf.gather(x, order), counts
        )
        for x in parts
    ]

    def one_image(i, of_score, of_keys, of_positions):
        query, scores, weights, context = (array.read(i) for array in arrays)  # of its R words
        tanh = tf.tanh(keys[i][:, None] + query)  # [P, R, A]
        by_position = tf.transpose(scores)  # [P, R]
        of_score += tf.matmul(tf.reshape(by_position, [1, -1]), tf.reshape(tanh, [-1, keys.shape[2]]))[0]
        squares = tf.linalg.matvec(tf.square(tanh), by_position, transpose_a=True)  # [P, A]
        learned = (tf.reduce_sum(by_position, 1, keepdims=True) - squares) * score
        of_positions = of_positions.write(i, tf.matmul(weights, context, transpose_a=True))
        return i + 1, of_score, of_keys.write(i, learned), of_positions

    of_keys = tf.TensorArray(keys.dtype, images, element_shape=keys.shape[1:])
    of_positions = tf.TensorArray(keys.dtype, images, element_shape=[keys.shape[1], of_context.shape[1]])
    start = (0, tf.zeros_like(score), of_keys, of_positions)
    _, of_score, of_keys, of_positions = tf.while_loop(lambda i, *_: i < images, one_image, start)
    return [of_keys.stack(), of_positions.stack(), of_score]
