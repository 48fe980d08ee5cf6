"""Captions being made, or made: what beam search and sampling give."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf


class Hypotheses(NamedTuple):
    """The captions of each image: of a search best first, of sampling in the order drawn.

    Attributes:
      ids: int32 `[B, K, T]`; START is left out, END is the last id, then PAD. A hypothesis that reached the greatest
        length has no END.
      log_prob: float32 `[B, K]`, the sum of the natural log probabilities of a hypothesis' ids, END included; minus
        infinity in a place that is empty because fewer than K different captions exist.
      length: int32 `[B, K]`, how many ids a hypothesis has, END included.
      word_log_prob: float32 `[B, K, T]`, of each id, given those before it; zeros after END.
      recorded: float32 `[B, K, T, R]`, what was recorded when each id was chosen, zeros after END; or ().
    """

    ids: Any
    log_prob: Any
    length: Any
    word_log_prob: Any
    recorded: Any = ()


def none_yet(images, width, steps, pad: int, recorded: int | None) -> Hypotheses:
    """Empty places `[images, width]` for captions of at most `steps` ids, with R = `recorded` values a word, if any."""
    return Hypotheses(
        ids=tf.fill([images, width, steps], pad),
        log_prob=tf.fill([images, width], float("-inf")),
        length=tf.zeros([images, width], tf.int32),
        word_log_prob=tf.zeros([images, width, steps]),
        recorded=() if recorded is None else tf.zeros([images, width, steps, recorded]),
    )


def length_normaliser(length, alpha):
    """GNMT's divisor of log probabilities, `((5 + length) / 6) ** alpha` (https://arxiv.org/abs/1609.08144, eq. 14)."""
    return tf.pow((5.0 + tf.cast(length, tf.float32)) / 6.0, alpha)


def penalised(found: Hypotheses, alpha):
    """What finished hypotheses are ranked by, `[B, K]`."""
    return found.log_prob / length_normaliser(found.length, alpha)


def joined(*found: Hypotheses) -> Hypotheses:
    """All of each image, `[B, K1 + K2 + ..., ...]`."""
    return tf.nest.map_structure(lambda *each: tf.concat(each, axis=1), *found)


def chosen(found, places):
    """A nest of tensors `[B, N, ...]` at places `[B, K]` of each image: `[B, K, ...]`."""
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, places, batch_dims=1), found)


def gathered(tensors, places):
    """A nest of tensors at some of its first dimension's places."""
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, places), tensors)
