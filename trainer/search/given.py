"""What the model makes of captions that are given: the log probability of each word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def log_probs_of(step: Callable, state: Any, ids, *, start: int, pad: int, context: Any = ()):
    """float32 `[B, T]`: the natural log probability of each id of a caption, given its image and the ids before it.

    Args:
      step: (ids int32 `[B]`, state, context) -> (logits float `[B, V]`, state).
      state: nest of tensors `[B, ...]` before the first word.
      ids: int32 `[B, T]`, without START; what stands behind a caption's END is PAD, and has 0.
      start, pad: ids.
      context: nest of tensors `[B, ...]` that no step changes.
    """
    steps = tf.shape(ids)[1]
    words = tf.transpose(ids)  # [T, B]

    def one_word(i, last, state, found):
        logits, state = step(last, state, context)
        log_probs = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        return i + 1, words[i], state, found.write(i, tf.gather(log_probs, words[i], batch_dims=1))

    first = tf.fill(tf.shape(ids)[:1], start)
    found = tf.TensorArray(tf.float32, steps, element_shape=[None])
    *_, found = tf.while_loop(lambda i, *_: i < steps, one_word, (tf.constant(0), first, state, found))
    return tf.where(ids == pad, 0.0, tf.transpose(found.stack()))
