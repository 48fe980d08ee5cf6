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
    """The A images that are still searched, K hypotheses each."""

    image: Any  # [A], places in the batch
    found: Hypotheses  # [A, K, ...]
    ended: Any  # [A, K]
    last: Any  # [A * K], the ids that `step` reads next
    state: Any  # [A * K, ...]
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
    divided by `length_normaliser`; ties go to the one that ranked higher before, then to the smaller id. An image whose
    hypotheses have all ended leaves the batch: the longest caption of a batch is much longer than most. A hypothesis
    from which no word is allowed dies; its place is empty.

    Args:
      step: (ids int32 `[A * K]`, state, context) -> (logits float `[A * K, V]`, state), for any number A of images.
      state: nest of tensors `[B, ...]` before the first word; one a hypothesis afterwards.
      batch_size: B.
      beam_width: K, scalar; may be a tensor.
      max_steps: T, scalar; may be a tensor.
      length_penalty: GNMT's alpha, scalar, 0 for none.
      start, end, pad: ids.
      allowed: (log probabilities `[N, V]`, ids `[N, T]`, i) -> the same with minus infinity for words that must not
        come next; see constraints.py. What is left is not scaled up for it.
      context: nest of tensors `[B, ...]` that all hypotheses of an image share, and no step changes.
      record: (state after a step) -> float `[A * K, R]`, to be kept for the word that this step chose.
    """
    batch_size, beam_width = tf.convert_to_tensor(batch_size), tf.convert_to_tensor(beam_width)
    alpha = tf.cast(length_penalty, tf.float32)
    nothing = Hypotheses(
        ids=tf.fill([batch_size, beam_width, max_steps], pad),
        # All hypotheses of an image are equal at first; only one may have descendants, or the beam would hold copies.
        log_prob=tf.one_hot(tf.zeros([batch_size], tf.int32), beam_width, 0.0, float("-inf")),
        length=tf.zeros([batch_size, beam_width], tf.int32),
        recorded=_nothing_recorded(record, state, batch_size, beam_width, max_steps),
    )
    beams = _Beams(
        image=tf.range(batch_size),
        found=nothing,
        ended=tf.zeros([batch_size, beam_width], tf.bool),
        last=tf.fill([batch_size * beam_width], start),
        state=tf.nest.map_structure(lambda tensor: tf.repeat(tensor, beam_width, axis=0), state),
        context=context,
    )

    def one_word(i, beams: _Beams, results: Hypotheses):
        logits, state = step(beams.last, beams.state, beams.context)
        word_log_probs = tf.nn.log_softmax(tf.cast(logits, tf.float32))  # [A * K, V]
        word_log_probs = allowed(word_log_probs, tf.reshape(beams.found.ids, [-1, max_steps]), i)
        recorded = record(state) if record else ()
        beams = _extended(beams._replace(state=state), word_log_probs, recorded, i, alpha, end, pad)
        is_over = tf.reduce_all(beams.ended | tf.math.is_inf(beams.found.log_prob), axis=1)  # [A]
        results = _kept(results, beams, is_over)
        return i + 1, _only(beams, ~is_over, beam_width), results

    _, beams, results = tf.while_loop(
        lambda i, beams, results: (i < max_steps) & (tf.size(beams.image) > 0),
        one_word,
        (tf.constant(0), beams, nothing),
        shape_invariants=(tf.TensorShape([]), _shapes(beams), _shapes(beams).found),
    )
    results = _kept(results, beams, tf.ones_like(beams.image, tf.bool))
    return _ranked(results, alpha, beam_width)


def _extended(beams: _Beams, word_log_probs, recorded, i, alpha, end: int, pad: int) -> _Beams:
    """The K best of all one-word extensions of each image's hypotheses, at step i; word_log_probs is `[A * K, V]`."""
    found, ended = beams.found, beams.ended
    images, beam_width, max_steps = tf.unstack(tf.shape(found.ids))
    vocabulary = tf.shape(word_log_probs)[-1]
    # What has ended goes on in one way only, with PAD, at no cost.
    frozen = tf.one_hot(pad, vocabulary, 0.0, float("-inf"))
    by_beam = tf.reshape(word_log_probs, [images, beam_width, vocabulary])
    candidates = found.log_prob[:, :, None] + tf.where(ended[:, :, None], frozen, by_beam)  # [A, K, V]
    length = found.length + tf.cast(~ended, tf.int32)  # [A, K]
    score = candidates / length_normaliser(length, alpha)[:, :, None]
    _, best = tf.math.top_k(tf.reshape(score, [images, beam_width * vocabulary]), beam_width)  # [A, K]
    parents, words = best // vocabulary, best % vocabulary
    at_i = tf.range(max_steps) == i  # [T]
    if not isinstance(recorded, tuple):
        now = tf.cast(tf.reshape(recorded, [images, beam_width, 1, recorded.shape[-1]]), tf.float32)  # [A, K, 1, R]
        now = tf.where(ended[:, :, None, None], 0.0, now)
        recorded = tf.gather(tf.where(at_i[:, None], now, found.recorded), parents, batch_dims=1)
    rows = tf.reshape(parents + tf.range(images)[:, None] * beam_width, [-1])  # of the parents, in [A * K]
    return beams._replace(
        found=Hypotheses(
            ids=tf.where(at_i, words[:, :, None], tf.gather(found.ids, parents, batch_dims=1)),
            log_prob=tf.gather(tf.reshape(candidates, [images, beam_width * vocabulary]), best, batch_dims=1),
            length=tf.gather(length, parents, batch_dims=1),
            recorded=recorded,
        ),
        ended=tf.gather(ended, parents, batch_dims=1) | (words == end),
        last=tf.reshape(words, [-1]),
        state=tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), beams.state),
    )


def _kept(results: Hypotheses, beams: _Beams, is_over) -> Hypotheses:
    """`results` `[B, ...]` with what was found for the images that are over, a mask `[A]`."""
    places = tf.boolean_mask(beams.image, is_over)[:, None]
    put = lambda all_, found: tf.tensor_scatter_nd_update(all_, places, tf.boolean_mask(found, is_over))  # noqa: E731
    return tf.nest.map_structure(put, results, beams.found)


def _only(beams: _Beams, going_on, beam_width) -> _Beams:
    """The images under a mask `[A]`."""
    rows = tf.repeat(going_on, beam_width)  # [A * K]

    def some(tensors, mask):
        return tf.nest.map_structure(lambda tensor: tf.boolean_mask(tensor, mask), tensors)

    return _Beams(
        image=some(beams.image, going_on),
        found=some(beams.found, going_on),
        ended=some(beams.ended, going_on),
        last=some(beams.last, rows),
        state=some(beams.state, rows),
        context=some(beams.context, going_on),
    )


def _shapes(beams: _Beams) -> _Beams:
    """The shapes in the loop: the number of images changes, and the beam's width may be a tensor."""

    def free(dimensions: int, tensors):
        return tf.nest.map_structure(
            lambda tensor: tf.TensorShape(
                [None] * min(dimensions, len(tensor.shape)) + list(tensor.shape[dimensions:])
            ),
            tensors,
        )

    return _Beams(*(free(1 if name in ("state", "context") else 3, value) for name, value in beams._asdict().items()))


def _nothing_recorded(record: Callable | None, state, batch_size, beam_width, max_steps):
    """Zeros `[B, K, T, R]` for what `record` gives, or ()."""
    if record is None:
        return ()
    return tf.zeros([batch_size, beam_width, max_steps, record(state).shape[-1]])


def _ranked(found: Hypotheses, alpha, beam_width) -> Hypotheses:
    """By the score they competed with, best first."""
    _, order = tf.math.top_k(found.log_prob / length_normaliser(found.length, alpha), beam_width)
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, order, batch_dims=1), found)
