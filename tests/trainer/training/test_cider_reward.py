"""CIDEr-D as a reward: pycocoevalcap's numbers, on anything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider_scorer import CiderScorer

from tfrecords_schema.vocabulary import END, PAD
from trainer.training.cider_reward import CiderReward


def words(ids) -> str:
    return " ".join(map(str, ids))


def peer(references, images, captions) -> list[float]:
    """pycocoevalcap's scores of captions (lists of ids), with document frequencies of all references."""
    corpus = CiderScorer()
    for image in references:
        corpus += ("", [words(caption) for caption in image])
    corpus.compute_doc_freq()
    scores, size = [], len(references)
    for start in range(0, len(captions), size):
        # A scorer takes the number of its captions for the number of images, so each gets as many.
        scorer = CiderScorer()
        scorer.document_frequency = corpus.document_frequency
        for i in range(start, start + size):
            caption, image = (captions[i], images[i]) if i < len(captions) else ([], 0)
            scorer += (words(caption), [words(reference) for reference in references[image]])
        scores += scorer.compute_cider()
    return scores[: len(captions)]


def padded(captions, width: int = 0) -> np.ndarray:
    ids = np.full((len(captions), max([width, *map(len, captions)])), PAD, np.int32)
    for row, caption in zip(ids, captions, strict=True):
        row[: len(caption)] = caption
    return ids


# Few words, so that n-grams meet; END and a rare large id among them; captions without END too, and empty ones.
WORDS = st.sampled_from([3, 4, 5, 6, 7, 70_000])
CAPTION = st.builds(lambda words, end: [*words, *([END] if end else [])], st.lists(WORDS, max_size=12), st.booleans())


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_equals_pycocoevalcap(data):
    references = data.draw(st.lists(st.lists(CAPTION, min_size=1, max_size=4), min_size=1, max_size=6))
    captions = data.draw(st.lists(CAPTION, min_size=1, max_size=6))
    images = data.draw(st.lists(st.integers(0, len(references) - 1), min_size=len(captions), max_size=len(captions)))
    found = CiderReward(references).reward(np.array(images), padded(captions, width=data.draw(st.integers(0, 15))))
    assert found.dtype == np.float32 and found.shape == (len(captions),)
    np.testing.assert_allclose(found, peer(references, images, captions), rtol=1e-6, atol=1e-6)


def random_captions(generator, count: int) -> list[list[int]]:
    return [[*(generator.zipf(1.3, generator.integers(1, 15)) % 300 + 3).tolist(), END] for _ in range(count)]


def test_equals_pycocoevalcap_on_a_batch_of_samples():
    generator = np.random.default_rng(0)
    references = [random_captions(generator, generator.integers(1, 7)) for _ in range(40)]
    images = np.repeat(generator.permutation(40)[:16], 5)
    captions = random_captions(generator, len(images))
    for i in range(0, len(images), 3):  # near a reference, so that long n-grams match
        captions[i] = list(references[images[i]][0])
        captions[i][0] = 5
    found = CiderReward(references).reward(images, padded(captions))
    np.testing.assert_allclose(found, peer(references, images, captions), rtol=1e-6, atol=1e-6)
    assert found.max() > 1


REFERENCES = [[[4, 5, 6, 7, END]], [[4, 8, 9, 10, END]], [[11, 12, 13, 14, END]]]


def test_the_reference_itself_gets_ten_and_strange_words_nothing():
    reward = CiderReward(REFERENCES)
    found = reward.reward(np.array([0, 1, 2, 0]), padded([REFERENCES[0][0], [20, 21, 22], [], [11, 12, 13, 14]]))
    np.testing.assert_allclose(found, [10, 0, 0, 0], atol=1e-6)


def test_worked_by_hand():
    """[4, 5] against [4, 5, 6, 7, END]: idf of 4 is log(3/2), of END 0, of all others log 3."""
    a, b = np.log(3 / 2), np.log(3)
    unigrams = (a**2 + b**2) / (np.hypot(a, b) * np.sqrt(a**2 + 3 * b**2))
    bigrams = b**2 / (b * 2 * b)
    expected = 10 / 4 * (unigrams + bigrams) * np.exp(-(3**2) / (2 * 6**2))
    found = CiderReward(REFERENCES).reward(np.array([0]), padded([[4, 5]], width=9))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_ending_is_rewarded():
    """A caption that stops short of END is worth less than one that goes on to it."""
    references = [[[4, 5, 6, END]], [[7, 8, 9, 5, END]]]
    ended, cut = CiderReward(references).reward(np.array([0, 0]), padded([[4, 5, 6, END], [4, 5, 6]]))
    assert ended > cut + 1


def test_order_batch_mates_and_padding_change_nothing():
    generator = np.random.default_rng(1)
    references = [random_captions(generator, 5) for _ in range(9)]
    images = generator.integers(0, 9, 30)
    ids = padded(random_captions(generator, 30))
    reward = CiderReward(references)
    whole = reward.reward(images, ids)
    order = generator.permutation(30)
    np.testing.assert_allclose(reward.reward(images[order], ids[order]), whole[order], rtol=1e-6)
    np.testing.assert_allclose(reward.reward(images, np.pad(ids, ((0, 0), (0, 7)))), whole, rtol=1e-6)
    alone = [reward.reward(images[i : i + 1], ids[i : i + 1])[0] for i in range(30)]
    np.testing.assert_allclose(alone, whole, rtol=1e-6)


@pytest.mark.parametrize("references", [[], [[]], [[[]]], [[[4, END]]], [[], [[4, END]], [[5, END]]]])
def test_next_to_nothing_to_compare_with_gives_zero(references):
    reward = CiderReward(references)
    assert reward.reward(np.zeros(0, int), np.zeros((0, 5), np.int32)).shape == (0,)
    if references:
        assert reward.reward(np.array([0]), padded([[4, END]])) == [0]
        assert reward.reward(np.array([0]), np.zeros((1, 0), np.int32)) == [0]


def test_memory_stays_in_bounds():
    """10 kB an image of five captions of seven words."""
    generator = np.random.default_rng(2)
    reward = CiderReward([random_captions(generator, 5) for _ in range(500)])
    assert sum(array.nbytes for order in reward._orders for array in order) / 500 < 10_000
