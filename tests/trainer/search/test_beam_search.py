"""Beam search over toy step functions, against every possible caption."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.steps import table_step
from trainer.search import beam_search as module
from trainer.search.constraints import Constraints

PAD, START, END, UNK = 0, 1, 2, 3


def beam_search(*args, **kwargs):
    """What is found, without the words of live hypotheses."""
    return module.beam_search(*args, **kwargs)[0]


SPECIAL = {"start": START, "end": END, "pad": PAD}
IDS = {**SPECIAL, "allowed": Constraints(forbid_unk=False)}  # every id but START and PAD


def every_caption(table, max_steps, alpha=0.0, constraints=IDS["allowed"]):
    """All hypotheses of one image as (score, ids, log_prob), best first, what was cut last, by plain enumeration."""
    hashes, words = table.shape[1], table.shape[2]
    log_probs = table - np.log(np.exp(table).sum(-1, keepdims=True))
    found = []
    for length in range(1, max_steps + 1):
        for ids in itertools.product([i for i in range(words) if i not in (PAD, START)], repeat=length):
            if END in ids[:-1] or (ids[-1] != END and length < max_steps) or not fits(ids, constraints):
                continue
            history, total = 0, 0.0
            for time, (before, word) in enumerate(zip((START, *ids), ids, strict=False)):
                history = (history * 7 + before) % hashes
                total += log_probs[min(time, table.shape[0] - 1), history, word]
            found.append((total / ((5 + length) / 6) ** alpha, ids, total))
    return sorted(found, key=lambda entry: (entry[1][-1] != END, -entry[0]))


def fits(ids, constraints) -> bool:
    """Whether a whole caption keeps to what was asked for."""
    said, n = [word for word in ids if word != END], constraints.no_repeat_ngram
    ngrams = [tuple(said[place : place + n]) for place in range(len(said) - n + 1)] if n else []
    long_enough = END not in ids or len([START, *ids]) >= constraints.min_length
    return long_enough and len(set(ngrams)) == len(ngrams) and not (constraints.forbid_unk and UNK in ids)


def captions(hypotheses, image=0):
    """(ids up to their length, log_prob) of one image's places that are not empty."""
    ids, log_prob, length = (tensor.numpy()[image] for tensor in hypotheses[:3])
    return [(tuple(i[:n]), p) for i, p, n in zip(ids, log_prob, length, strict=True) if np.isfinite(p)]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([0.0, 0.6, 1.5]), st.integers(1, 3))
def test_a_wide_beam_finds_every_caption_in_order(seed, max_steps, alpha, batch):
    """Width >= vocabulary ** length equals brute force, n-best order and log probabilities included."""
    finds_every_caption(seed, max_steps, alpha, batch, IDS["allowed"])


@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(),
        Constraints(forbid_unk=False, min_length=4),
        Constraints(forbid_unk=False, min_length=99),
        *(Constraints(forbid_unk=False, no_repeat_ngram=n) for n in (1, 2, 3)),
        Constraints(min_length=5, no_repeat_ngram=2),
        Constraints(min_length=4, no_repeat_ngram=1),
    ],
)
def test_a_wide_beam_finds_every_caption_that_is_allowed(constraints):
    for seed, alpha in ((1, 0.0), (2, 0.8)):
        finds_every_caption(seed, 4, alpha, 2, constraints)


def finds_every_caption(seed, max_steps, alpha, batch, constraints):
    tables = np.random.default_rng(seed).normal(0, 2, (batch, max_steps, 5, 5))
    step, state = table_step(tables)
    found = beam_search(step, state, batch, 5**max_steps, max_steps, alpha, **SPECIAL, allowed=constraints)
    for image in range(batch):
        expected = every_caption(tables[image], max_steps, alpha, constraints)
        got = captions(found, image)
        assert {ids for ids, _ in got} == {ids for _, ids, _ in expected}, "each caption once, and no other"
        by_ids = {ids: log_prob for _, ids, log_prob in expected}
        np.testing.assert_allclose([p for _, p in got], [by_ids[ids] for ids, _ in got], atol=1e-5)
        np.testing.assert_allclose(
            [p / ((5 + len(ids)) / 6) ** alpha for ids, p in got], [score for score, _, _ in expected], atol=1e-5
        )


def reference_beam_search(table, width, max_steps, alpha):
    """The same for one image in plain Python, to the greatest length: nothing is given up before as hopeless."""
    live, finished = [((), 0.0)], []
    log_probs = table - np.log(np.exp(table).sum(-1, keepdims=True))
    for time in range(max_steps):
        grown = []
        for ids, total in live:
            history = 0
            for before in (START, *ids):
                history = (history * 7 + before) % table.shape[1]
            row = log_probs[min(time, table.shape[0] - 1), history]
            grown += [((*ids, w), total + row[w]) for w in range(table.shape[2]) if w not in (PAD, START)]
        grown.sort(key=lambda beam: -beam[1])
        finished += [beam for beam in grown[:width] if beam[0][-1] == END]
        live = [beam for beam in grown if beam[0][-1] != END][:width]
    finished.sort(key=lambda beam: -beam[1] / ((5 + len(beam[0])) / 6) ** alpha)
    return (finished[:width] + live)[:width]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([0.0, 0.7, 2.0]), st.sampled_from([-3.0, 0.0, 3.0]))
def test_equals_a_plain_python_beam_search(seed, width, alpha, eagerness):
    """Of models that end late, in the middle and early."""
    tables = np.random.default_rng(seed).normal(0, 2, (3, 6, 11, 7))
    tables[..., END] += eagerness
    step, state = table_step(tables)
    found = beam_search(step, state, 3, width, 6, alpha, **IDS)
    for image in range(3):
        expected = reference_beam_search(tables[image], width, 6, alpha)
        got = captions(found, image)
        assert [ids for ids, _ in got] == [ids for ids, _ in expected]
        np.testing.assert_allclose([p for _, p in got], [p for _, p in expected], atol=1e-4)


def log_table(rows, words=6):
    """Logits from probabilities of a few words; the rest share what is left."""
    table = np.full((len(rows), words), 1e-9)
    for row, chances in zip(table, rows, strict=True):
        for word, chance in chances.items():
            row[word] = chance
    return np.log(table / table.sum(-1, keepdims=True)).astype(np.float32)


def test_states_move_with_their_words_when_the_best_path_changes_parents():
    """Only the state knows the first word, and the first word alone decides what follows.

    3 leads (0.6), but splits in two; so (4, 5) takes the first place from the second beam. Had the states stayed where
    they were, it would go on for a word more, as captions with 3 do.
    """
    first_word, after_3, after_4 = log_table([{3: 0.6, 4: 0.4}, {3: 0.5, 5: 0.5}, {5: 1.0}])
    ends, goes_on = log_table([{END: 1.0}, {3: 1.0}])

    def step(ids, state, context=()):
        time, first = state
        time_ = time[:, None]
        first = tf.where(time == 1, ids, first)
        is_3 = (first == 3)[:, None]
        second, third = tf.where(is_3, after_3, after_4), tf.where(is_3 & (time_ == 2), goes_on, ends)
        return tf.where(time_ == 0, first_word, tf.where(time_ == 1, second, third)), (time + 1, first)

    zeros = tf.zeros([1], tf.int32)
    found = captions(beam_search(step, (zeros, zeros), 1, 2, 4, 0.0, **IDS))
    assert found[0][0] == (4, 5, END) and found[0][1] == pytest.approx(np.log(0.4), abs=1e-5)
    assert found[1][0] in {(3, 3, 3, END), (3, 5, 3, END)} and found[1][1] == pytest.approx(np.log(0.3), abs=1e-5)


def test_a_finished_caption_is_not_forgotten():
    """Two words of 0.5 follow, then twenty of 0.05: all that goes on is far less probable than END at once."""
    words = range(3, 23)
    first = {3: 0.60, END: 0.25, 4: 0.15}
    table = log_table([first, {3: 0.5, 4: 0.5}, {3: 0.5, 4: 0.5}, *[dict.fromkeys(words, 0.05)] * 3, {END: 1.0}], 23)

    def step(ids, time, context=()):
        return tf.gather(table, time), time + 1

    found = captions(beam_search(step, tf.zeros([1], tf.int32), 1, 2, 7, 0.0, **IDS))
    assert found[0][0] == (END,) and found[0][1] == pytest.approx(np.log(0.25), abs=1e-5)
    assert found[1][1] == pytest.approx(np.log(0.6 * 0.5**2 * 0.05**3), abs=1e-4)


def test_what_ended_ranks_above_what_was_cut():
    """END at once has probability 0.05, later ones none: both that go on are likelier, and never end."""
    first, later = log_table([{END: 0.05, 3: 0.55, 4: 0.4}, {3: 1.0}])

    def step(ids, time, context=()):
        return tf.where((time == 0)[:, None], first, later), time + 1

    found = beam_search(step, tf.zeros([1], tf.int32), 1, 3, 8, 0.0, **IDS)
    best, *others = captions(found)
    assert best[0] == (END,) and best[1] == pytest.approx(np.log(0.05), abs=1e-5)
    assert [ids for ids, _ in others] == [(3,) * 8, (4,) + (3,) * 7]
    assert found.ids.numpy()[0, 0].tolist() == [END] + [PAD] * 7
    assert found.length.numpy().tolist() == [[1, 8, 8]]


def test_nothing_is_computed_that_cannot_win():
    """END has 0.9 at once, then 0.9 of what is left: two captions are found at the second step, and that is all."""
    row = log_table([{END: 0.9, 3: 0.07, 4: 0.03}])[0]
    steps = []

    def step(ids, time, context=()):
        steps.append(ids.shape[0])
        return tf.repeat(row[None], ids.shape[0], axis=0), time + 1

    found = captions(beam_search(step, tf.zeros([1], tf.int32), 1, 2, 20, 0.0, **IDS))
    assert [ids for ids, _ in found] == [(END,), (3, END)] and steps == [1, 2]


def test_width_one_is_greedy():
    tables = np.random.default_rng(3).normal(0, 1, (4, 8, 13, 9))
    step, state = table_step(tables)
    found = beam_search(step, state, 4, 1, 8, 0.0, **IDS)
    for image in range(4):
        ids, history = [], 0
        for time in range(8):
            history = (history * 7 + (ids[-1] if ids else START)) % 13
            row = tables[image, time, history].copy()
            row[[PAD, START]] = -np.inf
            ids.append(int(row.argmax()))
            if ids[-1] == END:
                break
        assert captions(found, image)[0][0] == tuple(ids)


def test_forbidden_words_are_never_said_and_cost_nothing():
    tables = np.zeros((1, 4, 3, 6))
    tables[..., UNK] = 5.0  # by far the likeliest
    step, state = table_step(tables)
    found = captions(beam_search(step, state, 1, 4, 4, 0.0, **SPECIAL, allowed=Constraints()))
    assert found and not any(UNK in ids for ids, _ in found)
    chance = 1 / (5 + np.exp(5.0))  # of each other word: what UNK would have had is not shared out
    assert found[0][1] == pytest.approx(len(found[0][0]) * np.log(chance), abs=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 3), st.integers(0, 9))
def test_what_is_found_keeps_to_what_was_asked_for(seed, width, n, min_length):
    """Narrow beams over a model that loves to repeat itself."""
    tables = np.random.default_rng(seed).normal(0, 1, (2, 8, 3, 9))
    tables[..., 4:6] += 3
    step, state = table_step(tables)
    allowed = Constraints(min_length, n, True)
    found = beam_search(step, state, 2, width, 8, 0.6, **SPECIAL, allowed=allowed)
    for image in range(2):
        for ids, _ in captions(found, image):
            assert fits(ids, allowed) and len(ids) >= min(min_length - 1, 5 if n == 1 else 8)


def test_hypotheses_from_which_no_word_is_allowed_die():
    """Three words, none of them twice, and END too late: after three words no image has anything left."""
    step, state = table_step(np.zeros((2, 5, 3, 7)))
    allowed = Constraints(min_length=6, no_repeat_ngram=1)
    found = beam_search(step, state, 2, 4, 5, 0.0, **SPECIAL, allowed=allowed)
    assert np.isneginf(found.log_prob).all()
    found = beam_search(step, state, 2, 9, 5, 0.0, **SPECIAL, allowed=allowed._replace(min_length=5))
    assert len(captions(found, 1)) == 6 and all(sorted(ids) == [END, 4, 5, 6] for ids, _ in captions(found, 1))


def test_images_do_not_meet():
    """An image's captions are the same alone and in a batch."""
    tables = np.random.default_rng(5).normal(0, 2, (6, 5, 11, 7))
    step, state = table_step(tables)
    together = beam_search(step, state, 6, 3, 5, 0.7, **IDS)
    for image in range(6):
        step, state = table_step(tables[image : image + 1])
        alone = captions(beam_search(step, state, 1, 3, 5, 0.7, **IDS))
        assert [ids for ids, _ in alone] == [ids for ids, _ in captions(together, image)]


def test_in_a_graph_with_every_size_unknown():
    tables = np.random.default_rng(6).normal(0, 2, (2, 5, 11, 7))

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32)] * 4 + [tf.TensorSpec([], tf.bool)])
    def search(width, steps, *constraints):
        step, state = table_step(tables)
        allowed = Constraints(*constraints)
        return beam_search(step, state, tf.shape(state[0])[0], width, steps, 0.0, **SPECIAL, allowed=allowed)

    for width, steps, constraints in ((1, 2, (0, 0, False)), (4, 5, (4, 2, True)), (4, 5, (0, 0, True))):
        step, state = table_step(tables)
        eager = beam_search(step, state, 2, width, steps, 0.0, **SPECIAL, allowed=Constraints(*constraints))
        graph = search(width, steps, *constraints)
        assert graph.ids.shape == (2, width, steps)
        assert np.array_equal(eager.ids, graph.ids)


def test_what_is_recorded_stays_with_its_word():
    """The state knows the history's hash after each step; recorded values must tell the same story as the words."""
    step, state = table_step(np.random.default_rng(3).normal(size=(2, 4, 29, 6)))
    record = lambda state: tf.cast(tf.stack([state[1], state[2]], axis=1), tf.float32)  # noqa: E731  (time, hash)
    found = beam_search(step, state, 2, 3, 4, 0.6, **IDS, record=record)
    for image in range(2):
        for ids, length, recorded in zip(
            *(part.numpy()[image] for part in (found.ids, found.length, found.recorded)), strict=True
        ):
            history = 0
            for time, before in enumerate([START, *ids[:-1]][:length]):
                history = (history * 7 + before) % 29
                assert recorded[time].tolist() == [time + 1, history]
            assert (recorded[length:] == 0).all()
