"""Additive attention over image positions (Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, appendix A.1.2).

Weights of P positions for a state are `softmax(v . tanh(W state + U position))`, and a context is the mean of positions
by these weights, times a gate. B images, N states, P positions of E numbers, keys and queries of A numbers.
"""

from __future__ import annotations

import functools

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
    return look(asked, tf.reshape(tf.matmul(tf.reshape(tanh, [-1, units]), score[:, None]), [-1, count]), positions)


def look(asked, scores, positions):
    """asked `[N, A + 1]`, scores `[N, P]`, positions `[B, P, E]` -> (gated context `[N, E]`, weights `[N, P]`)."""
    weights = tf.nn.softmax(tf.cast(scores, tf.float32))
    shared = tf.reshape(tf.cast(weights, positions.dtype), [tf.shape(positions)[0], -1, tf.shape(positions)[1]])
    context = tf.reshape(tf.matmul(shared, positions), [-1, positions.shape[2]])
    return context * tf.sigmoid(asked[:, -1:]), weights


class Scores:
    """Scores of states for the rows of images that stay the same in a loop, and the way back.

    tanh(q + k) is `1 - 2 r`, r = 1 / (1 + exp(2 q) exp(2 k)): in a loop over the words that is one multiplication and
    one division for each number, since the exponentials are made once. Numbers beyond 20 count as 20, whose tanh is 1.
    On processors XLA makes one pass over memory of it, compiled once for every 16 rows more.
    """

    def __init__(self, keys, score):
        """keys `[N, P, A]`, score `[A]`."""
        self._keys, self._score = _exp2(keys), tf.cast(score, tf.float32)

    def __call__(self, query):
        """query `[n, A]` of the first n rows -> float32 `[n, P]`."""
        return _compiled(_scores)(*self._padded(query), self._score)[: tf.shape(query)[0]]

    def of_query(self, query, of_scores):
        """The gradient `[n, A]` that the scores' `[n, P]` give a query."""
        exp_query, exp_keys = self._padded(query)
        of_scores = tf.pad(of_scores, [[0, tf.shape(exp_query)[0] - tf.shape(query)[0]], [0, 0]])
        found = _compiled(_of_query)(exp_query, exp_keys, of_scores)[: tf.shape(query)[0]]
        return tf.cast(found * self._score, query.dtype)

    def _padded(self, query):
        """Both exponentials, of some rows more than there are."""
        n = tf.shape(query)[0]
        rows = tf.minimum(-(-n // _ROWS) * _ROWS, tf.shape(self._keys)[0])
        return _exp2(tf.pad(query, [[0, rows - n], [0, 0]])), self._keys[:rows]


_ROWS = 16


def _exp2(x):
    return tf.exp(tf.clip_by_value(2 * tf.cast(x, tf.float32), -40, 40))


@functools.cache
def _compiled(function):
    """By XLA, but on GPUs, where it may lack what it needs."""
    return tf.function(function, jit_compile=not tf.config.list_physical_devices("GPU"), reduce_retracing=True)


def _scores(exp_query, exp_keys, score):
    """`[n, A]`, `[n, P, A]`, `[A]` -> `[n, P]`."""
    ratio = 1 / (1 + exp_query[:, None] * exp_keys)
    flat = tf.matmul(tf.reshape(ratio, [-1, tf.shape(score)[0]]), score[:, None])
    return tf.reduce_sum(score) - 2 * tf.reshape(flat, tf.shape(exp_keys)[:2])


def _of_query(exp_query, exp_keys, of_scores):
    """`[n, A]`, `[n, P, A]`, `[n, P]` -> `[n, A]`, to be multiplied by the score's weights."""
    ratio = 1 / (1 + exp_query[:, None] * exp_keys)
    return 4 * tf.reduce_sum(of_scores[..., None] * (ratio * (1 - ratio)), 1)


def _of_keys(exp_query, exp_keys, of_scores):
    """Gradients of an image and R words, `[R, A]`, `[P, A]`, `[R, P]` -> `[P, A]` of keys, and of score weights."""
    ratio = 1 / (1 + exp_query[None] * exp_keys[:, None])  # [P, R, A]
    weight = tf.transpose(of_scores)[..., None]
    of_keys = 4 * tf.reduce_sum(weight * (ratio * (1 - ratio)), 1)
    return of_keys, tf.reduce_sum(weight * (1 - 2 * ratio), 1)


def unattend(asked, scores: Scores, positions, context, weights, of_context, of_weights):
    """The way back through a loop's attention: gradients of its results -> of `asked` `[n, A + 1]`, and two more.

    These are of the context before its gate, `[n, E]`, and of the scores, float32 `[n, P]`: what `of_seen` makes those
    of keys, positions and score of, for all words together.
    """
    gate = tf.sigmoid(asked[:, -1:])
    of_gate = tf.reduce_sum(of_context * context, 1, keepdims=True) * (1 - gate)  # context has the gate in it
    of_context *= gate
    of_weights += tf.cast(tf.linalg.matvec(positions, of_context), tf.float32)
    of_scores = weights * (of_weights - tf.reduce_sum(weights * of_weights, 1, keepdims=True))
    return tf.concat([scores.of_query(asked[:, :-1], of_scores), of_gate], 1), of_context, of_scores


def of_seen(packed: Packed, query, keys, score, weights, of_scores, of_context):
    """Gradients of keys, positions and score from those of M packed words.

    query `[M, A]`, keys `[B, P, A]`, score `[A]`, weights and of_scores float32 `[M, P]`, of_context `[M, E]`.
    """
    images = tf.shape(keys)[0]
    image = tf.gather(packed.owner(keys), packed.places[:, 0])  # [M]
    order, counts = tf.argsort(image), tf.math.bincount(image, minlength=images, maxlength=images)
    parts = (_exp2(query), of_scores, tf.cast(weights, of_context.dtype), of_context)
    arrays = [_array(x.dtype, images, [None, x.shape[1]]).split(tf.gather(x, order), counts) for x in parts]
    exp_keys = _exp2(keys)

    def one_image(i, of_score, of_keys, of_positions):
        query, scores, weights, context = (array.read(i) for array in arrays)  # of its words
        more = [[0, -tf.shape(query)[0] % _ROWS], [0, 0]]
        of_key, once = _compiled(_of_keys)(tf.pad(query, more), exp_keys[i], tf.pad(scores, more))
        of_positions = of_positions.write(i, tf.matmul(weights, context, transpose_a=True))
        return i + 1, of_score + tf.reduce_sum(once, 0), of_keys.write(i, of_key), of_positions

    start = (
        tf.zeros_like(score, tf.float32),
        _array(tf.float32, images, keys.shape[1:]),
        _array(keys.dtype, images, [keys.shape[1], of_context.shape[1]]),
    )
    _, of_score, of_keys, of_positions = tf.while_loop(lambda i, *_: i < images, one_image, (0, *start))
    of_keys = tf.cast(of_keys.stack() * tf.cast(score, tf.float32), keys.dtype)
    return [of_keys, of_positions.stack(), tf.cast(of_score, score.dtype)]


def _array(dtype, size, shape) -> tf.TensorArray:
    return tf.TensorArray(dtype, size, infer_shape=False, element_shape=shape)
