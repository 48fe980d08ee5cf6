"""Drawn captions: how often each word is drawn, and what the seed decides."""

import numpy as np
import tensorflow as tf

from trainer.sampling import sample

LOGITS = np.log([0.4, 0.3, 0.1, 0.05, 0.15])  # of PAD, START, END, UNK, a word


def draw(size: int, seed: int, max_steps: int = 4, forbidden=()):
    step = lambda ids, state: (tf.tile(tf.constant(LOGITS, tf.float32)[None], [size, 1]), state + 1)  # noqa: E731
    special = {"start": 1, "end": 2, "pad": 0}
    state = tf.zeros([size])
    return sample(
        step, state, size, max_steps, tf.constant([seed, 0], tf.int64), **special, forbidden=forbidden
    ).numpy()


def test_words_are_drawn_as_often_as_they_are_probable():
    """START and PAD are left out, and the rest share what they had."""
    first = draw(20_000, 0)[:, 0]
    shares = np.bincount(first, minlength=5) / len(first)
    np.testing.assert_allclose(shares, [0, 0, 1 / 3, 1 / 6, 1 / 2], atol=0.015)
    shares = np.bincount(draw(20_000, 0, forbidden=(3,))[:, 0], minlength=5) / 20_000
    np.testing.assert_allclose(shares, [0, 0, 0.4, 0, 0.6], atol=0.015)


def test_the_seed_decides_and_words_of_one_caption_are_independent():
    ids = draw(5_000, 1)
    assert np.array_equal(ids, draw(5_000, 1)) and not np.array_equal(ids, draw(5_000, 2))
    both = (ids[:, 0] != 2) & (ids[:, 1] != 2)
    first, second = ids[both, 0] == 4, ids[both, 1] == 4
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_after_end_there_is_padding_only():
    for row in draw(200, 3, max_steps=9):
        if 2 in row:
            assert (row[list(row).index(2) + 1 :] == 0).all()
        assert np.count_nonzero(row == 2) <= 1 and row[0] != 0
