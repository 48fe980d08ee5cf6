"""Which words are allowed, against a plain Python account of the rules."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords_schema.vocabulary import END, PAD, START, UNK
from trainer.search.constraints import Constraints, without

WORDS = 8


def is_allowed(
    word: int, said: list[int], min_length: int, n: int, forbid_unk: bool, forbidden: list[int], prefix: list[int]
) -> bool:
    """Whether `word` may follow the words `said`."""
    if len(said) < len(prefix):
        return word == prefix[len(said)]
    if word in forbidden:
        return False
    if word in (PAD, START) or (word == UNK and forbid_unk):
        return False
    if word == END:
        return len([START, *said, END]) >= min_length
    ngrams = [tuple(said[place : place + n]) for place in range(len(said) - n + 1)]
    return n == 0 or len(said) < n - 1 or (*said[len(said) - n + 1 :], word) not in ngrams


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None]),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], tf.bool),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None], tf.int32),
    ]
)
def in_a_graph(scores, ids, i, min_length, n, forbid_unk, forbidden, prefix, images):
    return Constraints(min_length, n, forbid_unk, forbidden, prefix)(scores, ids, i, images)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 9).flatmap(
        lambda length: st.lists(
            st.lists(st.integers(UNK, WORDS - 1), min_size=length, max_size=length), min_size=1, max_size=4
        )
    ),
    st.integers(0, 4),
    st.integers(0, 12),
    st.integers(0, 11),
    st.booleans(),
    st.lists(st.integers(END, WORDS - 1), max_size=2),
    st.lists(st.lists(st.integers(UNK, WORDS - 1), max_size=9), min_size=1, max_size=3),
)
def test_the_mask_equals_plain_python(said, room, min_length, n, forbid_unk, forbidden, prefixes):
    """With every size unknown to the graph, and with Python numbers; `room` places are not filled yet."""
    i = len(said[0])
    ids = np.pad(np.array(said, np.int32), ((0, 0), (0, room)), constant_values=PAD)
    scores = np.random.default_rng(0).normal(size=(len(said), WORDS)).astype(np.float32)
    images = np.arange(len(said)) % len(prefixes)
    rules = (min_length, n, forbid_unk, forbidden)
    mask = [
        [is_allowed(word, row, *rules, prefixes[image]) for word in range(WORDS)]
        for row, image in zip(said, images, strict=True)
    ]
    expected = np.where(mask, scores, -np.inf)
    prefix = np.zeros([len(prefixes), max(map(len, prefixes))], np.int32)
    for row, words in zip(prefix, prefixes, strict=True):
        row[: len(words)] = words
    given = (min_length, n, forbid_unk, np.array(forbidden, np.int32), prefix)
    np.testing.assert_array_equal(in_a_graph(scores, ids, i, *given, images), expected)
    np.testing.assert_array_equal(Constraints(*given)(scores, tf.constant(ids), i, images), expected)


@pytest.mark.parametrize(
    "said, n, banned",
    [
        ([], 1, set()),
        ([4, 5], 1, {4, 5}),
        ([4, 5, 4], 2, {5}),
        ([4, 4], 2, {4}),
        ([4, 5, 4, 6, 4], 2, {5, 6}),
        ([4, 5, 6, 4, 5], 3, {6}),
        ([4, 5, 6, 4, 5], 4, set()),
        ([4, 5, 6, 4, 5], 2**31 - 1, set()),
    ],
)
def test_ngrams_that_would_come_twice(said, n, banned):
    ids = np.full((1, 7), PAD, np.int32)
    ids[0, : len(said)] = said
    found = Constraints(no_repeat_ngram=n, forbid_unk=False)(tf.zeros([1, WORDS]), tf.constant(ids), len(said), [0])
    assert {word for word in range(WORDS) if np.isinf(found[0, word])} == {PAD, START, *banned}


def test_end_is_never_a_repeat():
    """A caption that has ended beside one that goes on: END is in its ids, and is still allowed."""
    ids = tf.constant([[4, END, PAD, PAD], [4, 5, 4, PAD]])
    found = Constraints(no_repeat_ngram=1)(tf.zeros([2, WORDS]), ids, 3, [0, 1]).numpy()
    assert (found[:, END] == 0).all() and np.isinf(found[1, [4, 5]]).all()


def test_end_counts_as_one_of_the_least_length():
    """START a b END are four ids: END may be the third of those without START."""
    ids = tf.fill([1, 5], 4)
    found = [Constraints(min_length=4)(tf.zeros([1, WORDS]), ids, i, [0])[0, END].numpy() for i in range(4)]
    assert found == [-np.inf, -np.inf, 0, 0]


def test_without_leaves_all_else_as_it_is():
    scores = tf.reshape(tf.range(8.0), [1, 2, 4])
    assert without((0, 2), scores).numpy().tolist() == [[[-np.inf, 1, -np.inf, 3], [-np.inf, 5, -np.inf, 7]]]
    assert without((0, 2), scores, [False, True]).numpy()[0, 1].tolist() == [4, 5, -np.inf, 7]
