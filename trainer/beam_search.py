"""Batched beam search over a step function. Knows no model class, and runs inside a TensorFlow graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf


class Hypotheses(NamedTuple):
    """The captions found, best first.

    Attributes:
      ids: int32 `[B, K, T]`; START is left out, END is the last id, then PAD. A hypothesis that reached the greatest
        length has no END.
      log_prob: float32 `[B, K]`, the sum of the natural log probabilities of a hypothesis' ids, END included; minus
        infinity in a place that is empty because fewer than K different captions exist.
      length: int32 `[B, K]`, how many ids a hypothesis has, END included.
      recorded: float32 `[B, K, T, R]`, what was recorded when each id was chosen, zeros after END; or ().
    """

    ids: Any
    log_prob: Any
    length: Any
    recorded: Any = ()


def length_normaliser(length, alpha):
    """GNMT's divisor of log probabilities, `((5 + length) / 6) ** alpha` (https://arxiv.org/abs/1609.08144, eq. 14)."""
    return tf.pow((5.0 + tf.cast(length, tf.float32)) / 6.0, alpha)


def beam_search(
    step: Callable,
    state: Any,
    batch_size,
    beam_width,
    max_steps,
    length_penalty,
    *,
    start: int,
    end: int,
    pad: int,
    forbidden: Sequence[int] = (),
    record: Callable | None = None,
) -> Hypotheses:
    """Keeps the K best hypotheses of each image, word by word.

    A hypothesis that ends is frozen: it keeps its ids and its score, and competes with those that go on under the
    length penalty, until all K have ended or `max_steps` ids are reached. Hypotheses are chosen by log probability
    divided by `length_normaliser`; ties go to the one that ranked higher before, then to the smaller id.

    Args:
      step: (ids int32 `[N]`, state) -> (logits float `[N, V]`, state), with N = B * K.
      state: nest of tensors `[B, ...]` before the first word.
      batch_size: B.
      beam_width: K, scalar; may be a tensor.
      max_steps: T, scalar; may be a tensor.
      length_penalty: GNMT's alpha, scalar, 0 for none.
      start, end, pad: ids. `start` and `pad` are never chosen.
      forbidden: further ids that are never chosen.
      record: (state after a step) -> float `[N, R]`, to be kept for the word that this step chose.
    """
    batch_size, beam_width = tf.convert_to_tensor(batch_size), tf.convert_to_tensor(beam_width)
    alpha = tf.cast(length_penalty, tf.float32)
    flat = tf.stack([batch_size * beam_width])

    def to_beams(tensor):  # [B, ...] -> [B * K, ...]
        return tf.repeat(tensor, beam_width, axis=0)

    def choose(tensor, parents):  # [B * K, ...] by parents [B, K], places in the same image's beam
        offsets = tf.range(batch_size)[:, None] * beam_width
        return tf.gather(tensor, tf.reshape(parents + offsets, flat))

    # All hypotheses of an image are the same at first; only one may have descendants, or the beam would hold K copies.
    first = tf.one_hot(tf.zeros([batch_size], tf.int32), beam_width, 0.0, float("-inf"))  # [B, K]
    carried = (
        tf.constant(0),
        tf.fill([batch_size, beam_width, max_steps], pad),  # ids
        first,  # log_prob
        tf.zeros([batch_size, beam_width], tf.int32),  # length
        tf.zeros([batch_size, beam_width], tf.bool),  # ended
        tf.fill(flat, start),  # last ids
        tf.nest.map_structure(to_beams, state),
        _nothing_recorded(record, state, batch_size, beam_width, max_steps),
    )

    def going_on(i, ids, log_prob, length, ended, last, state, recorded):
        return (i < max_steps) & ~tf.reduce_all(ended | tf.math.is_inf(log_prob))

    def one_word(i, ids, log_prob, length, ended, last, state, recorded):
        logits, state = step(last, state)
        vocabulary = tf.shape(logits)[-1]
        word_log_prob = _word_log_probs(logits, (start, pad, *forbidden))
        word_log_prob = tf.reshape(word_log_prob, [batch_size, beam_width, vocabulary])
        # What has ended goes on in one way only, with PAD, at no cost.
        frozen = tf.one_hot(pad, vocabulary, 0.0, float("-inf"))
        word_log_prob = tf.where(ended[:, :, None], frozen, word_log_prob)

        candidates = log_prob[:, :, None] + word_log_prob  # [B, K, V]
        candidate_length = length + tf.cast(~ended, tf.int32)  # [B, K]
        score = candidates / length_normaliser(candidate_length, alpha)[:, :, None]
        _, best = tf.math.top_k(tf.reshape(score, [batch_size, beam_width * vocabulary]), beam_width)  # [B, K]
        parents, words = best // vocabulary, best % vocabulary

        log_prob = tf.gather(tf.reshape(candidates, [batch_size, beam_width * vocabulary]), best, batch_dims=1)
        ids = tf.gather(ids, parents, batch_dims=1)
        ids = tf.where(tf.range(max_steps) == i, words[:, :, None], ids)
        length = tf.gather(candidate_length, parents, batch_dims=1)
        if record:
            at_i = tf.range(max_steps)[:, None] == i  # [T, 1]
            now = tf.reshape(record(state), [batch_size, beam_width, 1, -1])  # [B, K, 1, R]
            now = tf.where(ended[:, :, None, None], 0.0, tf.cast(now, tf.float32))
            recorded = tf.gather(tf.where(at_i, now, recorded), parents, batch_dims=1)
        ended = tf.gather(ended, parents, batch_dims=1) | (words == end)
        state = tf.nest.map_structure(lambda tensor: choose(tensor, parents), state)
        return i + 1, ids, log_prob, length, ended, tf.reshape(words, flat), state, recorded

    shapes = tf.nest.map_structure(lambda tensor: tf.TensorShape([None, *tensor.shape[1:]]), carried[-2])
    _, ids, log_prob, length, _, _, _, recorded = tf.while_loop(
        going_on,
        one_word,
        carried,
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([None, None, None]),
            *[tf.TensorShape([None, None])] * 3,
            tf.TensorShape([None]),
            shapes,
            tf.TensorShape([None, None, None, None]) if record else (),
        ),
    )
    return _ranked(Hypotheses(ids, log_prob, length, recorded), alpha, beam_width)


def _nothing_recorded(record: Callable | None, state, batch_size, beam_width, max_steps):
    """Zeros `[B, K, T, R]` for what `record` gives, or ()."""
    if record is None:
        return ()
    return tf.zeros([batch_size, beam_width, max_steps, record(state).shape[-1]])


def _word_log_probs(logits, never: Sequence[int]):  # [N, V] -> [N, V]
    """Log softmax over all words; `never` are left out of the choice, and what is left is not scaled up for it."""
    log_probs = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    mask = tf.reduce_sum(tf.one_hot(list(never), tf.shape(logits)[-1]), axis=0) > 0
    return tf.where(mask, float("-inf"), log_probs)


def _ranked(found: Hypotheses, alpha, beam_width) -> Hypotheses:
    """By the score they competed with, best first."""
    _, order = tf.math.top_k(found.log_prob / length_normaliser(found.length, alpha), beam_width)
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, order, batch_dims=1), found)
