"""The best words of many hypotheses."""

from __future__ import annotations

import tensorflow as tf


def top_k(scores, k):
    """As `tf.math.top_k(scores, k)` for scores `[N, V]`: (values `[N, k]`, places `[N, k]`), of equals the first.

    That takes one number after the other. Here the greatest number of each block of some is found first, which is a
    sum's work, and then only the k blocks with the greatest are looked at: no other block can have one of the k best.
    """
    rows, size = tf.unstack(tf.shape(scores))
    # As many blocks as numbers in k blocks; rounded down, so that there are k blocks at least.
    block = tf.cast(tf.sqrt(tf.cast(size, tf.float32) / tf.cast(k, tf.float32)), tf.int32)
    blocks = -(-size // block)
    padded = tf.pad(scores, [[0, 0], [0, blocks * block - size]], constant_values=float("-inf"))
    padded = tf.reshape(padded, [rows, blocks, block])
    _, best = tf.math.top_k(tf.reduce_max(padded, axis=2), k)
    best = tf.sort(best)  # [N, k]; in the order of the places, for equals
    values, within = tf.math.top_k(tf.reshape(tf.gather(padded, best, batch_dims=1), [rows, k * block]), k)
    return values, tf.gather(best, within // block, batch_dims=1) * block + within % block
