"""Dropout whose masks follow from a seed, so that a step made again after a crash drops what it dropped before."""

from __future__ import annotations

import zlib

import tensorflow as tf

_REPLICAS = 1 << 16  # more than there can be


def seed_for(seed: int, step, replica):
    """The seed `[2]` of one step on one replica, for `drop` and for sampling."""
    return tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64) * _REPLICAS + tf.cast(replica, tf.int64)])


def fold(seed, what):
    """Another seed `[2]` for each name or number."""
    data = zlib.crc32(what.encode()) & 0x7FFFFFFF if isinstance(what, str) else what
    return tf.random.experimental.stateless_fold_in(seed, data)


def drop(x, rate: float, seed, name: str):
    """x with a share `rate` of its numbers set to 0 and the rest scaled up; x itself where `seed` is None.

    `name` tells the masks of one step apart.
    """
    if seed is None or not rate:
        return x
    # In float32: TensorFlow's own dropout draws in the type of x, and bfloat16's 128 numbers miss most rates.
    is_kept = tf.random.stateless_uniform(tf.shape(x), fold(seed, name)) >= rate
    return tf.where(is_kept, x * tf.cast(1 / (1 - rate), x.dtype), tf.zeros([], x.dtype))
