"""Batches: everything once, hardly any padding, the same order whenever it is asked for, in memory or not."""

import numpy as np
import pytest

from tests.support.small import write_features
from tfrecords_schema.vocabulary import END, PAD, START, UNK, tokenise
from trainer.data import dataset
from trainer.data.batches import Batches, _side_by_side, references, windows_of


@pytest.fixture(scope="module")
def directory(tiny_network, coco_dir, tmp_path_factory):
    """24 training images with 120 captions in six shards."""
    output = tmp_path_factory.mktemp("data") / "features"
    write_features(output, tiny_network, coco_dir, vocab_size=14, records_per_shard=4)
    return dataset.open_directory(str(output))


@pytest.fixture(scope="module")
def records(directory):
    """The training images, parsed, in the order of the shards."""
    return [{key: t.numpy() for key, t in r.items()} for r in dataset.images(directory, "train")]


STREAMED = 1  # a budget of bytes that no shard fits in: each is a window of its own
CACHED = 1e9


def batches(directory, budget=CACHED, size=16, **more):
    return Batches(directory, "train", size, budget, seed=3, **more)


def pairs(made):
    """(place of the image, words) of every caption that is not there to fill up."""
    return sorted(
        (int(image), tuple(i for i in ids if i != PAD))
        for batch in made
        for image, captions in zip(batch.image, batch.ids, strict=True)
        for ids in captions
        if (ids[1:] != PAD).any()
    )


@pytest.mark.parametrize("budget", [CACHED, STREAMED, 3000])
@pytest.mark.parametrize("multiple", [1, 3])
def test_every_caption_is_there_once_with_its_image(directory, records, budget, multiple):
    made = batches(directory, budget, multiple=multiple)
    found = list(made.epoch(0))
    expected = [(n, tuple(i for i in ids if i != PAD)) for n, r in enumerate(records) for ids in r["caption/ids"]]
    assert pairs(found) == sorted(expected) and len(expected) == 120
    assert len(found) == made.steps(0)
    for batch in found:
        assert len(batch.ids) % multiple == 0 and (batch.ids[..., 0] == START).all()
        assert (batch.ids[..., -1] != PAD).any(), "no wider than its longest caption"
        for image, feature in zip(batch.image, batch.features, strict=True):
            assert np.array_equal(feature, records[image]["image/feature"])


def test_a_shard_without_images_is_no_window():
    for seed in range(20):
        assert sorted(windows_of([5, 0, 7, 0], 2, [seed])) == [[0], [2]]


def test_streaming_really_streams(directory):
    assert batches(directory).is_cached and len(batches(directory)._windows(0)) == 1
    made = batches(directory, STREAMED)
    assert not made.is_cached and len(made._windows(0)) == 6
    assert len({tuple(map(tuple, made._windows(epoch))) for epoch in range(4)}) > 1, "shards in another order"


@pytest.mark.parametrize("budget", [CACHED, STREAMED])
@pytest.mark.parametrize("one", [False, True])
def test_an_epoch_can_be_entered_anywhere(directory, budget, one):
    made = batches(directory, budget, one_caption=one, size=5 if one else 20)
    whole = list(made.epoch(2))
    for start in range(len(whole) + 1):
        rest = list(made.epoch(2, start))
        assert len(rest) == len(whole) - start
        for a, b in zip(rest, whole[start:], strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_epochs_differ_and_seeds_too(directory):
    orders = [[tuple(b.ids.ravel()) for b in batches(directory).epoch(epoch)] for epoch in range(3)]
    assert orders[0] != orders[1] != orders[2]
    other = Batches(directory, "train", 16, CACHED, seed=4)
    assert [tuple(b.ids.ravel()) for b in other.epoch(0)] != orders[0]


@pytest.mark.parametrize("budget", [CACHED, STREAMED])
def test_one_caption_an_image_is_drawn_anew_in_each_epoch(directory, records, budget):
    made = batches(directory, budget, one_caption=True)
    drawn = [pairs(made.epoch(epoch)) for epoch in range(5)]
    for found in drawn:
        assert [image for image, _ in found] == list(range(24))
    own = [[tuple(i for i in ids if i != PAD) for ids in record["caption/ids"]] for record in records]
    assert {own[image].index(words) for found in drawn for image, words in found} == set(range(5)), "any of its five"
    assert len(set(map(tuple, drawn))) == 5


def test_captions_of_like_length_come_together(directory):
    def padding(made):
        sizes = [(np.count_nonzero(b.ids), b.ids.size) for b in made]
        return 1 - sum(n for n, _ in sizes) / sum(size for _, size in sizes)

    assert padding(batches(directory).epoch(0)) < 0.06
    by_hand = [b.ids for b in batches(directory, size=120).epoch(0)]
    assert 1 - np.count_nonzero(by_hand[0]) / by_hand[0].size > 0.1, "what it would be otherwise"


def test_the_dataset_gives_the_same_batches(directory):
    made = batches(directory)
    for a, b in zip(made.dataset(1, 2).as_numpy_iterator(), made.epoch(1, 2), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_references_are_the_captions_with_ids_of_their_own_for_unknown_words(directory, records):
    found = references(directory, "train")
    size = len(directory.vocabulary)
    unknown = {}
    for image, record in zip(found, records, strict=True):
        for ids, stored, text in zip(image, record["caption/ids"], record["caption/text"], strict=True):
            stored = [i for i in stored if i not in (START, PAD)]
            assert len(ids) == len(stored) and ids[-1] == END and UNK not in ids
            for own, old, word in zip(ids, stored, [*tokenise(text.decode()), ""], strict=False):
                assert own == old or (old == UNK and own >= size and unknown.setdefault(own, word) == word)
    assert unknown, "the test data has words that the vocabulary lacks"


@pytest.mark.parametrize("budget", [CACHED, STREAMED])
def test_of_a_grid_all_captions_of_an_image_come_together(made_grid_features, budget):
    """Five captions an image: 20 of them are four images."""
    grid = dataset.open_directory(str(made_grid_features))
    made = batches(grid, budget, size=20, multiple=3)
    found = list(made.epoch(0))
    assert len(found) == made.steps(0) == 6
    assert sorted(image for b in found for image in b.image[:4]) == list(range(24))
    for batch in found:
        assert batch.features.shape == (6, 16, 3) and batch.ids.shape[:2] == (6, 5)
        assert (batch.ids[:4, :, 1] != PAD).all() and (batch.ids[4:, :, 1:] == PAD).all()
        assert (batch.ids[..., -1] != PAD).any() and (batch.ids[..., 0] == START).all()
    own = {n: {tuple(ids) for ids in r["caption/ids"].numpy()} for n, r in enumerate(dataset.images(grid, "train"))}
    for batch in found:
        for image, ids in zip(batch.image[:4], batch.ids, strict=False):
            width = ids.shape[1]
            assert {tuple(row) for row in ids} == {row[:width] for row in own[int(image)]}


def test_images_with_fewer_captions_leave_places_empty():
    assert _side_by_side(np.array([0, 0, 0, 2, 3, 3])).tolist() == [[0, 1, 2], [3, -1, -1], [4, 5, -1]]
