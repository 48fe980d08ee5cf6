"""Which words a caption may go on with: for beam search and for sampling, inside a TensorFlow graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfrecords_schema.vocabulary import END, PAD, START, UNK


class Constraints(NamedTuple):
    """A function (scores, ids, i) -> scores. START and PAD are never allowed; the rest is chosen here.

    Each may be a Python value or a scalar tensor.

    Attributes:
      min_length: ids of a caption, START and END counted as in `max_length`; before that there is no END.
      no_repeat_ngram: n, so that no n words in a row are in a caption twice, as fairseq's and Hugging Face's
        `no_repeat_ngram_size`; 0 for off. END is not counted among the words.
      forbid_unk: UNK is not said.
    """

    min_length: Any = 0
    no_repeat_ngram: Any = 0
    forbid_unk: Any = True

    def __call__(self, scores, ids, i):
        """Minus infinity for the words that must not come next.

        Args:
          scores: float `[N, V]`, of all words.
          ids: int32 `[N, T]`, the captions so far: START is left out, PAD from place i on.
          i: int32 scalar, how many ids they have.
        """
        not_now = tf.stack([True, True, self.forbid_unk, i + 2 < self.min_length])  # with START and this END: i + 2 ids
        scores = without([PAD, START, UNK, END], scores, not_now)
        n = tf.convert_to_tensor(self.no_repeat_ngram)
        return tf.cond(n > 0, lambda: _without_repeats(scores, ids, i, n), lambda: scores)


def without(words: Sequence[int], scores, now=True):
    """Scores `[..., V]` with minus infinity for `words`, or those of them where the mask `now` is true."""
    mask = tf.one_hot(list(words), tf.shape(scores)[-1], on_value=True, off_value=False, dtype=tf.bool)  # [words, V]
    mask = tf.reduce_any(mask & tf.reshape(now, [-1, 1]), axis=0)
    return tf.where(mask, float("-inf"), scores)


def _without_repeats(scores, ids, i, n):
    """Scores `[N, V]` without the words that followed an earlier occurrence of the last n - 1 words."""
    steps = tf.shape(ids)[1]
    n = tf.minimum(n, steps + 1)  # longer ones fit nowhere
    back = tf.range(1, n)  # [n - 1]
    places = tf.range(steps)  # [T]
    # Places before the first are read as the first here, and left out below.
    before = tf.gather(ids, tf.maximum(places[:, None] - back, 0), axis=1)  # [N, T, n - 1], before each place
    last = tf.gather(ids, tf.maximum(i - back, 0), axis=1)  # [N, n - 1]
    repeats = tf.reduce_all(before == last[:, None], axis=2)  # [N, T]
    repeats &= (places >= n - 1) & (places < i) & (ids != END)
    rows_and_places = tf.where(repeats)  # few: not the whole of [N, T, V]
    words = tf.cast(tf.gather_nd(ids, rows_and_places), tf.int64)
    banned = tf.stack([rows_and_places[:, 0], words], axis=1)
    return tf.tensor_scatter_nd_update(scores, banned, tf.fill([tf.shape(banned)[0]], float("-inf")))
