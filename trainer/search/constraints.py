"""Which words a caption may go on with: for beam search and for sampling, inside a TensorFlow graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tfrecords_schema.vocabulary import END, PAD, START, UNK


class Constraints(NamedTuple):
    """A function (scores, ids, i, images) -> scores. START and PAD are never allowed; the rest is chosen here.

    Each may be a Python value or a tensor.

    Attributes:
      min_length: ids of a caption, START and END counted as in `max_length`; before that there is no END.
      no_repeat_ngram: n, so that no n words in a row are in a caption twice, as fairseq's and Hugging Face's
        `no_repeat_ngram_size`; 0 for off. END is not counted among the words.
      forbid_unk: UNK is not said.
      forbidden: ids `[F]` of further words that are not said.
      prefix: ids `[B, P]`, then PAD: what each image's captions begin with, whatever else is forbidden.
    """

    min_length: Any = 0
    no_repeat_ngram: Any = 0
    forbid_unk: Any = True
    forbidden: Any = ()
    prefix: Any = ((),)

    def __call__(self, scores, ids, i, images):
        """Minus infinity for the words that must not come next.

        Args:
          scores: float `[N, V]`, of all words.
          ids: int32 `[N, T]`, the captions so far: START is left out, PAD from place i on.
          i: int32 scalar, how many ids they have.
          images: int32 `[N]`, which of the B images each is of.
        """
        prefix = tf.convert_to_tensor(self.prefix, tf.int32)
        return tf.cond(
            i < tf.shape(prefix)[1],
            lambda: self._beginning(scores, ids, i, tf.gather(prefix[:, i], images)),
            lambda: self._free(scores, ids, i),
        )

    def _beginning(self, scores, ids, i, words):
        """Scores where the next word is given, `[N]`; PAD where it is free."""
        is_given = (words != PAD)[:, None]
        others = tf.one_hot(words, tf.shape(scores)[-1], on_value=False, off_value=True, dtype=tf.bool)
        return tf.where(is_given, tf.where(others, float("-inf"), scores), self._free(scores, ids, i))

    def _free(self, scores, ids, i):
        """Scores where nothing is given."""
        not_now = tf.stack([True, True, self.forbid_unk, i + 2 < self.min_length])  # with START and this END: i + 2 ids
        # One vector is added to all scores: another pass over `[N, V]` would cost as much as choosing from it.
        unsaid = without([PAD, START, UNK, END], tf.zeros(tf.shape(scores)[-1:]), not_now)
        scores += without(self.forbidden, unsaid)
        n = tf.convert_to_tensor(self.no_repeat_ngram)
        return tf.cond(n > 0, lambda: _without_repeats(scores, ids, i, n), lambda: scores)


def without(words: Any, scores, now=True):
    """Scores `[..., V]` with minus infinity for `words`, or those of them where the mask `now` is true."""
    words = tf.convert_to_tensor(words, tf.int32)
    mask = tf.one_hot(words, tf.shape(scores)[-1], on_value=True, off_value=False, dtype=tf.bool)  # [words, V]
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
