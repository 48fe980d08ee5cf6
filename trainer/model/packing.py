"""Captions of all lengths without their padding: the first words of all, then the second ones, and so on.

Captions are sorted by length, the longest first, so that those with a word at time t are the first `counts[t]`, and a
loop over the words works on ever fewer rows (as PyTorch's pack_padded_sequence). N captions, T words in the longest, M
words in all of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tfrecords_schema.vocabulary import PAD


class Packed(NamedTuple):
    """The words of N captions.

    Attributes:
      words, targets: int32 `[M]`, each word that is read, START among them, and the one that follows, END among them.
      order: int32 `[N]`, the captions from the longest to the shortest.
      counts: int32 `[T]`, captions with a word at each time; their sum is M.
      places: int32 `[M, 2]`, each word's place in `order`, and its time.
    """

    words: Any
    targets: Any
    order: Any
    counts: Any
    places: Any

    @property
    def caption(self):
        """int32 `[M]`, whose the words are."""
        return tf.gather(self.order, self.places[:, 0])

    def owner(self, of_images):
        """int32 `[N]`, captions in `order`: the image of each, where they are as many for each of B images."""
        return self.order // (tf.size(self.order) // tf.shape(of_images)[0])

    @property
    def _slots(self):
        """int32 `[M, 2]`, each word's caption and time."""
        return tf.stack([self.caption, self.places[:, 1]], axis=1)

    def spread(self, x):
        """x `[M, D]`, of each word -> `[N, T, D]`, captions as they were given, and 0 where there is no word."""
        return tf.scatter_nd(self._slots, x, [tf.size(self.order), tf.size(self.counts), x.shape[1]])

    def gathered(self, x):
        """x `[N, T, D]` -> `[M, D]`, of each word."""
        return tf.gather_nd(x, self._slots)


def pack(ids) -> Packed:
    """ids int32 `[N, 1 + more]`: START, words, END, PAD; a caption that is not there has only PAD after START."""
    real = ids[:, 1:] != PAD
    length = tf.math.count_nonzero(real, axis=1, dtype=tf.int32)
    order = tf.argsort(length, direction="DESCENDING", stable=True)
    counts = tf.math.count_nonzero(real, axis=0, dtype=tf.int32)
    counts = counts[: tf.maximum(tf.reduce_max(length), 1)]  # no loop of no steps where all only fill a batch up
    ids = tf.gather(ids, order)
    places = tf.cast(tf.where(tf.transpose(ids[:, 1:]) != PAD), tf.int32)[:, ::-1]
    return Packed(tf.gather_nd(ids, places), tf.gather_nd(ids, tf.add(places, [0, 1])), order, counts, places)
