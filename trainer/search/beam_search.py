"""Batched beam search over a step function. Knows no model class, and runs inside a TensorFlow graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from trainer.search.hypotheses import Hypotheses, chosen, gathered, joined, length_normaliser, none_yet, penalised
from trainer.search.top_k import top_k


class _Beams(NamedTuple):
    """Where the search stands. Of B * K live hypotheses only L go through `step`, those of A images."""

    live: Hypotheses  # [B, K, ...], best first; minus infinity in places of the dead
    finished: Hypotheses  # [B, K, ...], best first
    rows: Any  # [L], which live hypotheses, numbered in [B * K]
    last: Any  # [L], the ids that `step` reads next
    state: Any  # [L, ...]
    images: Any  # [A], which images, numbered in [B]
    context: Any  # [A, ...]
    words: Any  # [B, K, T], what the live hypotheses chose in each step


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
    penalty: Callable | None = None,
    ends_each: bool = False,
) -> tuple[Hypotheses, Any]:
    """Keeps the K best live hypotheses of each image, word by word, and apart from them its K best finished ones.

    Of all extensions of an image's live hypotheses by one word, the K best by log probability are looked at: those of
    them that end are finished. The K best of those that do not end live on. So a live hypothesis never takes the place
    of a finished one (im2txt's `TopN`, T5X's `decoding.beam_search`). The finished are ranked by log probability
    divided by `length_normaliser`. Ties go to what ended first, then to what ranked higher before, then to the smaller
    id.

    A live hypothesis dies when no word is allowed, and when it cannot beat the worst of K finished ones any more: as
    log probabilities only fall, what it has, divided by the normaliser of the greatest length, is the best that can
    become of it. The search ends when all are dead, or at the greatest length. What was cut there ranks below all that
    ended. If K is at least the number of captions there are, all are found, in their order.

    Only what lives is computed. Without a context that is each live hypothesis: one an image at first, and fewer and
    fewer at the end, since the longest caption of a batch is much longer than most. With one it is all K hypotheses of
    each image that has any.

    Args:
      step: (ids int32 `[N]`, state, context) -> (logits float `[N, V]`, state): for any N without a context; with one
        for K hypotheses of each of its images, side by side.
      state: nest of tensors `[B, ...]` before the first word; one a hypothesis afterwards.
      batch_size: B.
      beam_width: K, scalar; may be a tensor.
      max_steps: T, scalar; may be a tensor.
      length_penalty: GNMT's alpha, scalar, 0 for none, never negative.
      start, end, pad: ids.
      allowed: (log probabilities `[N, V]`, ids `[N, T]`, i, images `[N]`) -> the same with minus infinity for words
        that must not come next; see constraints.py. What is left is not scaled up for it.
      context: nest of tensors `[B, ...]` that all hypotheses of an image share, and no step changes; or ().
      record: (state after a step) -> float `[N, R]`, to be kept for the word that this step chose.
      penalty: (log probabilities `[N, V]`, i, images `[N]`) -> what words other than END are to be chosen by in this
        step in place of their log probabilities, which do not change; see diverse.py.
      ends_each: whether, as in im2txt, what is looked at is the K best words of each hypothesis by itself. So each may
        end that has END among them, and goes on with one word less then.

    Returns:
      (Hypotheses, int32 `[B, K, T]`: the words that the live hypotheses chose in each step, PAD for the dead).
    """
    batch_size, beam_width = tf.convert_to_tensor(batch_size), tf.convert_to_tensor(beam_width)
    alpha = tf.cast(length_penalty, tf.float32)
    is_whole = bool(tf.nest.flatten(context))  # whether all K hypotheses of an image go through `step` together

    def going_on(live: Hypotheses):
        """(rows, images) that are to go through `step` next."""
        alive = tf.math.is_finite(live.log_prob)  # [B, K]
        images = tf.reduce_any(alive, axis=1)  # [B]
        rows = tf.repeat(images, beam_width) if is_whole else tf.reshape(alive, [-1])
        return _where(rows), _where(images)

    def one_word(i, beams: _Beams):
        logits, state = step(beams.last, beams.state, beams.context)
        log_probs = tf.nn.log_softmax(tf.cast(logits, tf.float32))  # [L, V]
        ids = tf.reshape(beams.live.ids, [-1, max_steps])
        of = beams.rows // beam_width  # [L], the image of each
        log_probs = allowed(log_probs, tf.gather(ids, beams.rows), i, of)
        ranked = penalty(log_probs, i, of) if penalty else log_probs
        recorded = record(state) if record else ()
        live, finished, parents = _extended(beams, log_probs, ranked, recorded, i, alpha, end, ends_each)
        can_win = live.log_prob / length_normaliser(max_steps, alpha) > penalised(finished, alpha)[:, -1:]
        live = live._replace(log_prob=tf.where(can_win, live.log_prob, float("-inf")))
        rows, images = going_on(live)
        places = _inverse(beams.rows, batch_size * beam_width)  # of the old rows, in [L]
        parents = tf.gather(places, tf.gather(parents, rows))
        last = tf.gather(tf.reshape(live.ids, [-1, max_steps])[:, i], rows)
        kept = tf.gather(_inverse(beams.images, batch_size), images)  # in [A]
        state, context = gathered(state, parents), gathered(beams.context, kept)
        words = tf.where(tf.math.is_finite(live.log_prob), live.ids[:, :, i], pad)
        return i + 1, _Beams(live, finished, rows, last, state, images, context, _with(beams.words, i, words))

    recorded = record(state).shape[-1] if record else None
    nothing = none_yet(batch_size, beam_width, max_steps, pad, recorded)
    # All hypotheses of an image are equal at first; only one may have descendants, or the beam would hold copies.
    first = tf.one_hot(tf.zeros([batch_size], tf.int32), beam_width, 0.0, float("-inf"))
    live = nothing._replace(log_prob=first)
    rows, images = going_on(live)
    last = tf.fill(tf.shape(rows), start)
    beams = _Beams(live, nothing, rows, last, gathered(state, rows // beam_width), images, context, nothing.ids)
    _, beams = tf.while_loop(
        lambda i, beams: (i < max_steps) & (tf.size(beams.rows) > 0),
        one_word,
        (tf.constant(0), beams),
        shape_invariants=(tf.TensorShape([]), _shapes(beams)),
    )
    return _best(beams, beam_width), beams.words


def _extended(beams: _Beams, log_probs, ranked, recorded, i, alpha, end: int, ends_each: bool):
    """The live hypotheses with one word more, at step i.

    Args:
      log_probs: `[L, V]`, of the words that may come next.
      ranked: `[L, V]`, what all of them but END are chosen by.
      recorded: `[L, R]`, or ().

    Returns:
      (live `[B, K, ...]`, finished `[B, K, ...]`, for each of B * K live ones which one it extends).
    """
    live = beams.live
    images, beam_width, _ = tf.unstack(tf.shape(live.ids))

    def of_all(values, missing):
        """`[L, n]` -> `[B, K, n]`."""
        every = tf.fill([images * beam_width, tf.shape(values)[1]], tf.cast(missing, values.dtype))
        every = tf.tensor_scatter_nd_update(every, beams.rows[:, None], values)
        return tf.reshape(every, [images, beam_width, tf.shape(values)[1]])

    def flat(values):
        return tf.reshape(values, [images, -1])

    # No more than the K best words of a hypothesis, beside END, can be among the K best of its image.
    rank, words = top_k(ranked, tf.minimum(beam_width + (0 if ends_each else 1), tf.shape(ranked)[-1]))  # [L, k]
    k, has_end = tf.shape(words)[1], tf.reduce_any(words == end, axis=1)  # [L]
    of_words = rank if ranked is log_probs else tf.gather(log_probs, words, batch_dims=1)
    rank, of_words = (tf.where(words == end, float("-inf"), values) for values in (rank, of_words))
    of_words = flat(of_all(of_words, float("-inf")))  # [B, K * k]
    rank = flat(live.log_prob[:, :, None] + of_all(rank, float("-inf")))
    words = flat(of_all(words, 0))
    of_end = tf.where(has_end, log_probs[:, end], float("-inf")) if ends_each else log_probs[:, end]
    of_end = flat(of_all(of_end[:, None], float("-inf")))  # [B, K]
    recorded = tf.nest.map_structure(lambda each: of_all(tf.cast(each, tf.float32), 0.0), recorded)  # [B, K, R]

    def extended(parents, words, log_prob) -> Hypotheses:
        """Those in the places `parents` `[B, K]`, each with a word of some log probability."""
        old = chosen(live, parents)
        return Hypotheses(
            ids=_with(old.ids, i, words),
            log_prob=old.log_prob + log_prob,
            length=tf.fill(tf.shape(parents), i + 1),
            word_log_prob=_with(old.word_log_prob, i, log_prob),
            recorded=tf.nest.map_structure(
                lambda *two: _with(two[0], i, two[1]), old.recorded, chosen(recorded, parents)
            ),
        )

    def with_ended() -> Hypotheses:
        parents = tf.where(is_end, place, 0)
        ended = extended(
            parents, tf.fill(tf.shape(place), end), tf.where(is_end, chosen(of_end, parents), float("-inf"))
        )
        both = joined(beams.finished, ended)
        _, order = tf.math.top_k(penalised(both, alpha), beam_width)
        return chosen(both, order)

    may_end = live.log_prob + of_end
    looked_at = may_end if ends_each else tf.concat([may_end, rank], axis=1)
    best, place = tf.math.top_k(looked_at, beam_width)  # [B, K]
    is_end = (place < beam_width) & tf.math.is_finite(best)
    finished = tf.cond(tf.reduce_any(is_end), with_ended, lambda: beams.finished)  # most steps end nothing
    _, place = tf.math.top_k(rank, beam_width)
    parents = place // k
    live = extended(parents, chosen(words, place), chosen(of_words, place))
    return live, finished, tf.reshape(parents + tf.range(images)[:, None] * beam_width, [-1])


def _with(tensor, i, now):
    """`[B, K, T, ...]` with `now` `[B, K, ...]` at step i."""
    at_i = tf.reshape(tf.range(tf.shape(tensor)[2]) == i, [-1] + [1] * (len(tensor.shape) - 3))
    return tf.where(at_i, now[:, :, None], tensor)


def _where(mask):
    """The places, int32 `[.]`, where a vector is true."""
    return tf.cast(tf.where(mask)[:, 0], tf.int32)


def _inverse(places, size):
    """int32 `[size]`: where each number below `size` stands in `places`; 0 for those that do not."""
    return tf.scatter_nd(places[:, None], tf.range(tf.size(places)), [size])


def _shapes(beams: _Beams) -> _Beams:
    """The shapes in the loop: fewer and fewer rows go on, and the beam's width may be a tensor."""

    def free(dimensions: int, tensors):
        return tf.nest.map_structure(
            lambda tensor: tf.TensorShape(
                [None] * min(dimensions, len(tensor.shape)) + list(tensor.shape[dimensions:])
            ),
            tensors,
        )

    return _Beams(
        *(free(3 if name in ("live", "finished", "words") else 1, value) for name, value in beams._asdict().items())
    )


def _best(beams: _Beams, beam_width) -> Hypotheses:
    """The finished, then, if they are fewer than K, what was cut."""
    both = joined(beams.finished, beams.live)
    is_there = tf.cast(tf.math.is_finite(both.log_prob), tf.float32)
    _, order = tf.math.top_k(is_there, beam_width)  # of equals, the first
    return chosen(both, order)
