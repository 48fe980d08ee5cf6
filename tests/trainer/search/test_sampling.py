"""Drawn captions: how often each word is drawn, what decides it, and what is said of its probability."""

import numpy as np
import pytest
import tensorflow as tf

from tests.support.steps import table_step
from tfrecords_schema.vocabulary import END, PAD, START, UNK
from trainer.search.constraints import Constraints
from trainer.search.sampling import sample

PROBABILITIES = np.array([0.3, 0.2, 0.1, 0.05, 0.15, 0.12, 0.08])  # of PAD, START, END, UNK and three words
SPECIAL = {"start": START, "end": END, "pad": PAD}


def numbers(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def draw(uniform, probabilities=PROBABILITIES, allowed=None, **how):
    """Captions whose words have the same probabilities everywhere; uniform `[B, K, T]`."""
    logits = tf.math.log(tf.constant(probabilities, tf.float32))
    step = lambda ids, state, context: (tf.tile(logits[None], [tf.size(ids), 1]), state)  # noqa: E731
    return sample(step, tf.zeros([len(uniform)]), uniform, **SPECIAL, allowed=allowed or Constraints(), **how)


def by_hand(temperature: float, top_p: float, never=(PAD, START, UNK)) -> np.ndarray:
    """The distribution that words are drawn from, by sorting in numpy."""
    chances = PROBABILITIES ** (1 / temperature)
    chances[list(never)] = 0
    chances /= chances.sum()
    order = np.argsort(-chances)
    size = 1 + int((np.cumsum(chances[order]) < top_p).sum())
    kept = np.zeros_like(chances)
    kept[order[:size]] = chances[order[:size]]
    return kept / kept.sum()


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.7), (0.7, 0.6), (1.0, 0.0)])
def test_words_are_drawn_as_often_as_they_are_probable(temperature, top_p):
    """Evenly spaced numbers instead of random ones: shares are exact to one part of their count."""
    even = (np.arange(10_000, dtype=np.float32) + 0.5)[None, :, None] / 10_000
    for how in (
        {"temperature": temperature, "top_p": top_p},
        {"temperature": tf.constant(temperature), "top_p": tf.constant(top_p)},
    ):
        words = draw(even, **how).ids.numpy()[0, :, 0]
        shares = np.bincount(words, minlength=len(PROBABILITIES)) / len(words)
        np.testing.assert_allclose(shares, by_hand(temperature, top_p), atol=2e-4)
    assert (np.diff(words) >= 0).all(), "a greater number never gives a smaller id"
    shares = np.bincount(draw(even, allowed=Constraints(forbid_unk=False)).ids.numpy()[0, :, 0], minlength=7) / 10_000
    np.testing.assert_allclose(shares, by_hand(1, 1, never=(PAD, START)), atol=2e-4)


def test_words_of_one_caption_are_independent():
    ids = draw(numbers(1, 5_000, 2)).ids.numpy()[0]
    ids = ids[ids[:, 0] != END]
    first, second = ids[:, 0] == 4, ids[:, 1] == 4
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_words_that_tie_at_the_edge_of_the_nucleus_are_all_kept():
    even = (np.arange(1_000, dtype=np.float32) + 0.5)[None, :, None] / 1_000
    words = draw(even, [0.0, 0.0, 0.4, 0.0, 0.2, 0.2, 0.2], top_p=0.5).ids.numpy()[0, :, 0]
    np.testing.assert_allclose(np.bincount(words, minlength=7) / 1_000, [0, 0, 0.4, 0, 0.2, 0.2, 0.2], atol=1e-3)


def test_a_word_of_no_probability_is_never_drawn():
    """Also at either end of the numbers, and where sums of many words are rounded."""
    edges = np.array([0, np.nextafter(np.float32(1), np.float32(0)), 1.0], np.float32)  # 1 is what rounding up gives
    for words in ([5], [4, 6], [6]):
        probabilities = np.zeros(9)
        probabilities[words] = 1 / len(words)
        drawn = draw(np.repeat(edges[None, :, None], 5, 2), probabilities).ids.numpy()[0]
        assert drawn[0].tolist() == [words[0]] * 5 and drawn[1].tolist() == drawn[2].tolist() == [words[-1]] * 5
    generator = np.random.default_rng(0)
    probabilities = generator.random(20_000) ** 8 * (generator.random(20_000) < 0.5)
    uniform = np.concatenate([numbers(1, 2_000, 1), edges[None, :, None]], axis=1)
    words = draw(uniform, probabilities / probabilities.sum()).ids.numpy()
    assert (probabilities[words] > 0).all()


def toy(images: int):
    """Step function and states of images whose words depend on all words before; see test_beam_search."""
    tables = np.random.default_rng(5).normal(0, 1.5, (images, 6, 29, 9))
    return tables, table_step(tables)


def test_a_caption_depends_on_its_own_numbers_alone():
    tables, _ = toy(6)
    uniform = numbers(6, 3, 6)
    together = None
    for images in ([0, 1, 2, 3, 4, 5], [2], [2, 2], [5, 2], [0, 1, 2], [3, 2, 1, 0], [2, 4, 2, 4, 2]):
        step, state = table_step(tables[images])
        drawn = sample(step, state, uniform[images], **SPECIAL, allowed=Constraints())
        together = together or drawn
        for place, image in enumerate(images):
            assert np.array_equal(drawn.ids[place], together.ids[image])
            np.testing.assert_allclose(drawn.log_prob[place], together.log_prob[image], atol=1e-5)
    step, state = table_step(tables)
    again = sample(step, state, uniform[:, [2, 0]], **SPECIAL, allowed=Constraints())
    assert np.array_equal(again.ids, together.ids.numpy()[:, [2, 0]]), "nor on how many are drawn"
    other = sample(step, state, numbers(6, 3, 6, seed=1), **SPECIAL, allowed=Constraints())
    assert not np.array_equal(other.ids, together.ids)


def test_what_is_drawn_equals_plain_python():
    """Words, log probabilities over all words, lengths and what was recorded, under every constraint at once."""
    tables, (step, state) = toy(4)
    uniform = numbers(4, 25, 6)
    record = lambda state: tf.cast(tf.stack([state[1], state[2]], axis=1), tf.float32)  # noqa: E731  (time, hash)
    allowed = Constraints(min_length=4, no_repeat_ngram=1, forbid_unk=True)
    drawn = sample(step, state, uniform, **SPECIAL, allowed=allowed, temperature=0.8, top_p=0.9, record=record)
    lengths = set()
    for image, draw_ in np.ndindex(4, 25):
        ids, total, history, recorded = [], 0.0, 0, []
        for time in range(6):
            history = (history * 7 + (ids[-1] if ids else START)) % 29
            recorded.append([time + 1, history])
            log_probs = tables[image, time, history] - np.log(np.exp(tables[image, time, history]).sum())
            never = [PAD, START, UNK, *ids, *([END] if time + 2 < 4 else [])]
            chances = np.exp(log_probs / 0.8)
            chances[never] = 0
            chances /= chances.sum()
            falling = np.sort(chances)[::-1]
            chances[chances < falling[(np.cumsum(falling) < 0.9).sum()]] = 0
            word = int((np.cumsum(chances) / chances.sum() <= uniform[image, draw_, time]).sum())
            ids.append(word)
            total += log_probs[word]
            if word == END:
                break
        length = len(ids)
        lengths.add(length)
        assert drawn.ids[image, draw_].numpy().tolist() == ids + [PAD] * (6 - length)
        assert drawn.length[image, draw_] == length
        assert float(drawn.log_prob[image, draw_]) == pytest.approx(total, abs=1e-4)
        assert drawn.recorded[image, draw_].numpy().tolist() == recorded + [[0, 0]] * (6 - length)
    assert lengths >= {3, 4, 6}


def test_where_no_word_is_allowed_a_caption_ends_at_minus_infinity():
    """Three words that must not come twice, and no END before five: the caption is stuck after the third."""
    stuck = draw(numbers(1, 20, 6), allowed=Constraints(min_length=99, no_repeat_ngram=1))
    assert np.isneginf(stuck.log_prob).all() and (stuck.length.numpy() == 3).all()
    assert all(sorted(ids) == [PAD, PAD, PAD, 4, 5, 6] for ids in stuck.ids.numpy()[0])
    mixed = draw(numbers(1, 200, 6), allowed=Constraints(no_repeat_ngram=1))
    assert np.isfinite(mixed.log_prob).all() and (np.max(mixed.length) == 4), "END is always a way out"


def test_in_a_graph_with_every_size_unknown():
    tables, _ = toy(3)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None]), tf.TensorSpec([]), tf.TensorSpec([])])
    def graph(uniform, temperature, top_p):
        step, state = table_step(tables)
        return sample(step, state, uniform, **SPECIAL, allowed=Constraints(), temperature=temperature, top_p=top_p)

    for shape, top_p in (((3, 1, 1), 1.0), ((3, 4, 6), 0.5)):
        uniform = numbers(*shape)
        step, state = table_step(tables)
        eager = sample(step, state, uniform, **SPECIAL, allowed=Constraints(), temperature=0.7, top_p=top_p)
        found = graph(uniform, 0.7, top_p)
        assert found.ids.shape == shape and np.array_equal(found.ids, eager.ids)
        np.testing.assert_allclose(found.log_prob, eager.log_prob, atol=1e-5)
