"""Captions drawn word by word from a step function's distribution. Knows no model class, runs inside a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from trainer.beam_search import without
from trainer.dropout import fold


def sample(step: Callable, state: Any, size, max_steps: int, seed, *, start: int, end: int, pad: int, forbidden=()):
    """One caption for each of N states; the same one for the same seed.

    Words are drawn by adding Gumbel noise to their logits and taking the largest (https://arxiv.org/abs/1611.01144,
    eq. 1). `start`, `pad` and `forbidden` are never drawn.

    Args:
      step: (ids int32 `[N]`, state) -> (logits float `[N, V]`, state).
      state: nest of tensors `[N, ...]` before the first word.
      size: N.
      max_steps: T.
      seed: int32 `[2]`, as of stateless random functions.

    Returns:
      ids int32 `[N, T]`: END is the last id of a caption, then PAD; START is left out, and END where T ids did not
      reach it.
    """

    def going_on(time, last, ended, state, ids):
        return (time < max_steps) & ~tf.reduce_all(ended)

    def one_word(time, last, ended, state, ids):
        logits, state = step(last, state)
        uniform = tf.random.stateless_uniform(tf.shape(logits), fold(seed, time), minval=1e-20)
        noisy = without((start, pad, *forbidden), logits - tf.math.log(-tf.math.log(uniform)))
        words = tf.where(ended, pad, tf.argmax(noisy, axis=-1, output_type=tf.int32))
        ids = tf.where(tf.range(max_steps) == time, words[:, None], ids)
        return time + 1, words, ended | (words == end), state, ids

    shapes = tf.nest.map_structure(lambda tensor: tf.TensorShape([None, *tensor.shape[1:]]), state)
    first = (0, tf.fill([size], start), tf.zeros([size], tf.bool), state, tf.fill([size, max_steps], pad))
    invariants = (
        tf.TensorShape([]),
        tf.TensorShape([None]),
        tf.TensorShape([None]),
        shapes,
        tf.TensorShape([None, max_steps]),
    )
    *_, ids = tf.while_loop(going_on, one_word, first, shape_invariants=invariants)
    return ids
