"""Batched beam search over a step function. Knows no model class, and runs inside a TensorFlow graph."""

from __future__ import annotations

from collections.abc import Callable
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


class _Beams(NamedTuple):
    """Where the search stands. Of B * K hypotheses only L go through `step`, those of A images."""

    found: Hypotheses  # [B, K, ...]
    ended: Any  # [B, K]
    rows: Any  # [L], which hypotheses, numbered in [B * K]
    last: Any  # [L], the ids that `step` reads next
    state: Any  # [L, ...]
    images: Any  # [A], which images, numbered in [B]
    context: Any  # [A, ...]


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
    allowed: Callable,
    context: Any = (),
    record: Callable | None = None,
) -> Hypotheses:
    """Keeps the K best hypotheses of each image, word by word.

    A hypothesis that ends is frozen: it keeps its ids and its score, and competes with those that go on under the
    length penalty, until all K have ended or `max_steps` ids are reached. Hypotheses are chosen by log probability
    divided by `length_normaliser`; ties go to the one that ranked higher before, then to the smaller id. A hypothesis
    from which no word is allowed dies; its place is empty.

    Only what goes on is computed. Without a context that is each hypothesis that has not ended: one an image at first,
    and fewer and fewer at the end, since the longest caption of a batch is much longer than most. With one it is all K
    hypotheses of each image that has any to go on with.

    Args:
      step: (ids int32 `[N]`, state, context) -> (logits float `[N, V]`, state): for any N without a context; with one
        for K hypotheses of each of its images, side by side.
      state: nest of tensors `[B, ...]` before the first word; one a hypothesis afterwards.
      batch_size: B.
      beam_width: K, scalar; may be a tensor.
      max_steps: T, scalar; may be a tensor.
      length_penalty: GNMT's alpha, scalar, 0 for none.
      start, end, pad: ids.
      allowed: (log probabilities `[N, V]`, ids `[N, T]`, i) -> the same with minus infinity for words that must not
        come next; see constraints.py. What is left is not scaled up for it.
      context: nest of tensors `[B, ...]` that all hypotheses of an image share, and no step changes; or ().
      record: (state after a step) -> float `[N, R]`, to be kept for the word that this step chose.
    """
    batch_size, beam_width = tf.convert_to_tensor(batch_size), tf.convert_to_tensor(beam_width)
    alpha = tf.cast(length_penalty, tf.float32)
    is_whole = bool(tf.nest.flatten(context))  # whether all K hypotheses of an image go through `step` together

    def going_on(found: Hypotheses, ended):
        """(rows, images) that are to go through `step` next."""
        alive = ~ended & tf.math.is_finite(found.log_prob)  # [B, K]
        images = tf.reduce_any(alive, axis=1)  # [B]
        rows = tf.repeat(images, beam_width) if is_whole else tf.reshape(alive, [-1])
        return _where(rows), _where(images)

    def one_word(i, beams: _Beams):
        logits, state = step(beams.last, beams.state, beams.context)
        log_probs = tf.nn.log_softmax(tf.cast(logits, tf.float32))  # [L, V]
        ids = tf.reshape(beams.found.ids, [-1, max_steps])
        log_probs = allowed(log_probs, tf.gather(ids, beams.rows), i)
        recorded = record(state) if record else ()
        found, ended, parents = _extended(beams, log_probs, recorded, i, alpha, end, pad)
        rows, images = going_on(found, ended)
        places = _inverse(beams.rows, batch_size * beam_width)  # of the old rows, in [L]
        parents = tf.gather(places, tf.gather(parents, rows))
        last = tf.gather(tf.reshape(found.ids, [-1, max_steps])[:, i], rows)
        kept = tf.gather(_inverse(beams.images, batch_size), images)  # in [A]
        state, context = gathered(state, parents), gathered(beams.context, kept)
        return i + 1, _Beams(found, ended, rows, last, state, images, context)

    nothing = Hypotheses(
        ids=tf.fill([batch_size, beam_width, max_steps], pad),
        # All hypotheses of an image are equal at first; only one may have descendants, or the beam would hold copies.
        log_prob=tf.one_hot(tf.zeros([batch_size], tf.int32), beam_width, 0.0, float("-inf")),
        length=tf.zeros([batch_size, beam_width], tf.int32),
        recorded=_nothing_recorded(record, state, batch_size, beam_width, max_steps),
    )
    ended = tf.zeros([batch_size, beam_width], tf.bool)
    rows, images = going_on(nothing, ended)
    last = tf.fill(tf.shape(rows), start)
    beams = _Beams(nothing, ended, rows, last, gathered(state, rows // beam_width), images, context)
    _, beams = tf.while_loop(
        lambda i, beams: (i < max_steps) & (tf.size(beams.rows) > 0),
        one_word,
        (tf.constant(0), beams),
        shape_invariants=(tf.TensorShape([]), _shapes(beams)),
    )
    return _ranked(beams.found, alpha, beam_width)


def _extended(beams: _Beams, log_probs, recorded, i, alpha, end: int, pad: int):
    """The K best of all one-word extensions of each image's hypotheses, at step i.

    Args:
      log_probs: `[L, V]`, of the words that may come next.
      recorded: `[L, R]`, or ().

    Returns:
      (found `[B, K, ...]`, ended `[B, K]`, for each of B * K hypotheses which one it extends).
    """
    found, ended, rows = beams.found, beams.ended, beams.rows[:, None]
    images, beam_width, max_steps = tf.unstack(tf.shape(found.ids))
    # No more than the K best words of a hypothesis can be among the K best of its image.
    best, words = tf.math.top_k(log_probs, tf.minimum(beam_width, tf.shape(log_probs)[-1]))  # [L, k]
    k = tf.shape(best)[1]
    shape = [images * beam_width, k]
    # What has ended goes on in one way only, with PAD, at no cost.
    frozen = tf.one_hot(tf.zeros_like(ended, tf.int32), k, 0.0, float("-inf"))  # [B, K, k]
    best = tf.reshape(tf.scatter_nd(rows, best, shape), [images, beam_width, k])
    words = tf.reshape(tf.tensor_scatter_nd_update(tf.fill(shape, pad), rows, words), [images, beam_width, k])
    words = tf.where(ended[:, :, None], pad, words)
    candidates = found.log_prob[:, :, None] + tf.where(ended[:, :, None], frozen, best)  # [B, K, k]
    length = found.length + tf.cast(~ended, tf.int32)  # [B, K]
    score = candidates / length_normaliser(length, alpha)[:, :, None]
    _, chosen = tf.math.top_k(tf.reshape(score, [images, beam_width * k]), beam_width)  # [B, K]
    parents = chosen // k
    words = tf.gather(tf.reshape(words, [images, beam_width * k]), chosen, batch_dims=1)
    at_i = tf.range(max_steps) == i  # [T]
    kept = found.recorded
    if not isinstance(recorded, tuple):
        now = tf.scatter_nd(rows, tf.cast(recorded, tf.float32), [images * beam_width, recorded.shape[-1]])
        now = tf.where(ended[:, :, None, None], 0.0, tf.reshape(now, [images, beam_width, 1, -1]))  # [B, K, 1, R]
        kept = tf.gather(tf.where(at_i[:, None], now, kept), parents, batch_dims=1)
    found = Hypotheses(
        ids=tf.where(at_i, words[:, :, None], tf.gather(found.ids, parents, batch_dims=1)),
        log_prob=tf.gather(tf.reshape(candidates, [images, beam_width * k]), chosen, batch_dims=1),
        length=tf.gather(length, parents, batch_dims=1),
        recorded=kept,
    )
    ended = tf.gather(ended, parents, batch_dims=1) | (words == end)
    return found, ended, tf.reshape(parents + tf.range(images)[:, None] * beam_width, [-1])


def _where(mask):
    """The places, int32 `[.]`, where a vector is true."""
    return tf.cast(tf.where(mask)[:, 0], tf.int32)


def _inverse(places, size):
    """int32 `[size]`: where each number below `size` stands in `places`; 0 for those that do not."""
    return tf.scatter_nd(places[:, None], tf.range(tf.size(places)), [size])


def gathered(tensors, places):
    """A nest of tensors at some of its first dimension's places."""
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, places), tensors)


def _shapes(beams: _Beams) -> _Beams:
    """The shapes in the loop: fewer and fewer rows go on, and the beam's width may be a tensor."""

    def free(dimensions: int, tensors):
        return tf.nest.map_structure(
            lambda tensor: tf.TensorShape(
                [None] * min(dimensions, len(tensor.shape)) + list(tensor.shape[dimensions:])
            ),
            tensors,
        )

    return _Beams(*(free(3 if name in ("found", "ended") else 1, value) for name, value in beams._asdict().items()))


def _nothing_recorded(record: Callable | None, state, batch_size, beam_width, max_steps):
    """Zeros `[B, K, T, R]` for what `record` gives, or ()."""
    if record is None:
        return ()
    return tf.zeros([batch_size, beam_width, max_steps, record(state).shape[-1]])


def _ranked(found: Hypotheses, alpha, beam_width) -> Hypotheses:
    """By the score they competed with, best first."""
    _, order = tf.math.top_k(found.log_prob / length_normaliser(found.length, alpha), beam_width)
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, order, batch_dims=1), found)
