"""Captions drawn word by word from a step function's distribution. Knows no model class, runs inside a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from trainer.search.hypotheses import Hypotheses, gathered

_BELOW_ONE = 1 - 2.0**-24  # the greatest float32 below 1


def sample(
    step: Callable,
    state: Any,
    uniform,
    *,
    start: int,
    end: int,
    pad: int,
    allowed: Callable,
    context: Any = (),
    temperature=1.0,
    top_p=1.0,
    record: Callable | None = None,
) -> Hypotheses:
    """K captions for each of B images. Each depends on its image and its own numbers alone, not on its neighbours.

    The logits are divided by the temperature, words that are not allowed are taken out, and the rest share what they
    had. Of these the nucleus is kept (Holtzman et al. 2020, https://arxiv.org/abs/1904.09751): the smallest set of most
    probable words whose probability reaches `top_p`, with all that tie at its edge. The word is the first, by id,
    whose cumulative probability exceeds its number. Captions that have ended leave the batch.

    Args:
      step: (ids int32 `[A]`, state, context) -> (logits float `[A, V]`, state), for any number A of captions.
      state: nest of tensors `[B, ...]` before the first word; one a caption afterwards.
      uniform: float32 `[B, K, T]`, at least 0 and less than 1: a number for each word.
      start, end, pad: ids.
      allowed: (log probabilities `[A, V]`, ids `[A, T]`, i, images `[A]`) -> the same with minus infinity for words
        that must not come next; see constraints.py.
      context: nest of tensors `[B, ...]` that no step changes; `step` is given one for each of its captions.
      temperature: scalar above 0; may be a tensor.
      top_p: scalar from 0 (the most probable word alone) to 1 (all words; nothing is sorted); may be a tensor.
      record: (state after a step) -> float `[A, R]`, to be kept for the word that this step chose.

    Returns:
      The captions in the order of their numbers. `log_prob` is the model's own, at temperature 1 and over all words,
      whatever the words were drawn from; minus infinity where a caption came to a place from which no word is allowed.
    """
    images, draws, steps = tf.unstack(tf.shape(uniform))
    uniform = tf.reshape(tf.minimum(tf.cast(uniform, tf.float32), _BELOW_ONE), [images * draws, steps])

    def one_word(i, rows, last, state, drawn: Hypotheses):
        of = rows // draws  # [A], the image of each
        logits, state = step(last, state, gathered(context, of))
        log_probs = tf.nn.log_softmax(tf.cast(logits, tf.float32))  # [A, V]
        chances = _chances(allowed(log_probs, tf.gather(drawn.ids, rows), i, of), temperature, top_p)
        words, is_possible = _inverse_cdf(chances, tf.gather(uniform[:, i], rows))
        log_prob = tf.where(is_possible, tf.gather(log_probs, words, batch_dims=1), float("-inf"))
        places = tf.stack([rows, tf.fill(tf.shape(rows), i)], axis=1)  # [A, 2]
        drawn = drawn._replace(
            ids=tf.tensor_scatter_nd_update(drawn.ids, places, tf.where(is_possible, words, pad)),
            log_prob=tf.tensor_scatter_nd_add(drawn.log_prob, rows[:, None], log_prob),
            word_log_prob=tf.tensor_scatter_nd_update(drawn.word_log_prob, places, log_prob),
        )
        if record:
            recorded = tf.where(is_possible[:, None], tf.cast(record(state), tf.float32), 0.0)
            drawn = drawn._replace(recorded=tf.tensor_scatter_nd_update(drawn.recorded, places, recorded))
        going_on = tf.where(is_possible & (words != end))[:, 0]
        return i + 1, *gathered((rows, words, state), going_on), drawn

    rows = tf.range(images * draws)
    nothing = Hypotheses(
        ids=tf.fill(tf.shape(uniform), pad),
        log_prob=tf.zeros_like(rows, tf.float32),
        length=(),
        word_log_prob=tf.zeros(tf.shape(uniform)),
        recorded=tf.zeros([images * draws, steps, record(state).shape[-1]]) if record else (),
    )
    changing = (rows, tf.fill(tf.shape(rows), start), gathered(state, rows // draws))
    any_number = tf.nest.map_structure(lambda tensor: tf.TensorShape([None, *tensor.shape[1:]]), changing)
    *_, drawn = tf.while_loop(
        lambda i, rows, *_: (i < steps) & (tf.size(rows) > 0),
        one_word,
        (tf.constant(0), *changing, nothing),
        shape_invariants=(tf.TensorShape([]), *any_number, tf.nest.map_structure(lambda t: t.shape, nothing)),
    )
    drawn = drawn._replace(length=tf.math.count_nonzero(drawn.ids != pad, axis=1, dtype=tf.int32))
    return tf.nest.map_structure(lambda t: tf.reshape(t, [images, draws, *tf.unstack(tf.shape(t))[1:]]), drawn)


def _chances(scores, temperature, top_p):
    """Log probabilities `[A, V]` -> what words are drawn in proportion to; 1 for the most probable.

    Not a number throughout where no word is allowed.
    """
    chances = tf.exp((scores - tf.reduce_max(scores, axis=1, keepdims=True)) / tf.cast(temperature, tf.float32))
    top_p = tf.cast(top_p, tf.float32)
    return tf.cond(top_p < 1, lambda: _nucleus(chances, top_p), lambda: chances)


def _nucleus(chances, top_p):
    """Chances `[A, V]` with 0 outside of the nucleus."""
    falling = tf.sort(chances, axis=1, direction="DESCENDING")
    enough = top_p * tf.reduce_sum(chances, axis=1, keepdims=True)
    is_kept = tf.cumsum(falling, axis=1, exclusive=True) < enough
    edge = tf.reduce_min(tf.where(is_kept, falling, 1.0), axis=1, keepdims=True)
    return tf.where(chances >= edge, chances, 0.0)


def _inverse_cdf(chances, uniform):
    """Chances `[A, V]`, numbers `[A]` -> (words int32 `[A]`, whether there is one `[A]`)."""
    reached = tf.cumsum(chances, axis=1)
    total = reached[:, -1]
    words = tf.searchsorted(reached, (uniform * total)[:, None], side="right")[:, 0]
    words = tf.minimum(words, tf.shape(chances)[1] - 1)
    # Cumulative sums are rounded, on some devices not in order: a word of no chance is never taken.
    hit = tf.gather(chances, words, batch_dims=1) > 0
    return tf.where(hit, words, tf.argmax(chances, axis=1, output_type=tf.int32)), total > 0
