"""Beam search whose captions differ: groups of hypotheses, each kept away from the words of those before it."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from trainer.search.hypotheses import Hypotheses, chosen, joined, penalised


def diverse_beam_search(
    search: Callable, groups, beam_width, diversity_penalty, length_penalty, nothing: Hypotheses, end: int
) -> Hypotheses:
    """Diverse beam search (Vijayakumar et al. 2016, https://arxiv.org/abs/1610.02424) with Hamming diversity.

    Each group searches with its share of the beam. When it chooses a word other than END, `diversity_penalty` is taken
    off the log probability for each live hypothesis of an earlier group that chose this word in the same step. That
    guides the choice alone: log probabilities, and the ranking of what was found, are the model's own. As a group
    depends on those before it and never on those behind, they run one after the other. One group is `beam_search`.

    Args:
      search: (beam width, penalty) -> what `beam_search` gives, for one group.
      groups: G, scalar; may be a tensor. Divides beam_width.
      beam_width: K, scalar; may be a tensor.
      diversity_penalty: scalar, at least 0.
      length_penalty: that `search` ranks with.
      nothing: `[B, 0, ...]`.

    Returns:
      Hypotheses `[B, K, ...]` of all groups, best first, what was cut last. A caption may be found by two groups.
    """
    width = tf.convert_to_tensor(beam_width) // groups
    strength = tf.cast(diversity_penalty, tf.float32)

    def away_from(used):
        """A `penalty` for words `[B, U, T]` of earlier groups."""

        def penalty(log_probs, i, images):
            words = tf.gather(used[:, :, i], images)  # [N, U]
            rows = tf.repeat(tf.range(tf.shape(words)[0]), tf.shape(words)[1])
            places = tf.stack([rows, tf.reshape(words, [-1])], axis=1)
            taken_off = tf.fill([tf.size(words)], strength)
            # The first group is kept away from nothing, and is not to pay for it.
            return tf.cond(
                tf.size(words) > 0, lambda: tf.tensor_scatter_nd_sub(log_probs, places, taken_off), lambda: log_probs
            )

        return penalty

    def another(group, found, used):
        more, words = search(width, away_from(used))
        return group + 1, joined(found, more), tf.concat([used, words], axis=1)

    free = tf.nest.map_structure(lambda t: tf.TensorShape([None] * min(len(t.shape), 3) + list(t.shape[3:])), nothing)
    _, found, _ = tf.while_loop(
        lambda group, *_: group < groups,
        another,
        (tf.constant(0), nothing, nothing.ids),
        shape_invariants=(tf.TensorShape([]), free, free.ids),
    )
    return tf.cond(tf.convert_to_tensor(groups) > 1, lambda: _ranked(found, length_penalty, end), lambda: found)


def _ranked(found: Hypotheses, length_penalty, end: int) -> Hypotheses:
    """Best first, those without END last."""
    order = tf.argsort(-penalised(found, tf.cast(length_penalty, tf.float32)), axis=1, stable=True)
    found = chosen(found, order)
    is_cut = tf.cast(~tf.reduce_any(found.ids == end, axis=2), tf.int32)
    return chosen(found, tf.argsort(is_cut, axis=1, stable=True))
