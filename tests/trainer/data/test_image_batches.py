"""Batches of images: each once an epoch with all its captions, the same order whenever asked for, in memory or not."""

import numpy as np
import pytest
import tensorflow as tf

from tests.support.small import write_features
from tfrecords_schema.record import IMAGE
from tfrecords_schema.vocabulary import PAD, START
from trainer.data import dataset, stored_images
from trainer.data.batches import Batches
from trainer.data.image_batches import ImageBatches

STREAMED, CACHED = 1, 1e9  # budgets in bytes: of no shard, of all


@pytest.fixture(scope="module")
def directory(tiny_network, coco_dir, tmp_path_factory):
    """24 training images with 120 captions in six shards."""
    output = tmp_path_factory.mktemp("data") / "features"
    write_features(output, tiny_network, coco_dir, vocab_size=14, records_per_shard=4, store_images=True)
    return dataset.open_directory(str(output))


@pytest.fixture(scope="module")
def records(directory):
    """The training images, parsed, in the order of the shards."""
    return [{key: t.numpy() for key, t in r.items()} for r in dataset.images(directory, "train")]


def batches(directory, budget=CACHED, size=5, **more):
    return ImageBatches(directory, "train", size, budget, 3, 32, **more)


def epoch(made, number=0, start=0):
    return list(made.dataset(number, start).as_numpy_iterator())


@pytest.mark.parametrize("budget", [CACHED, STREAMED, 20_000])
@pytest.mark.parametrize("multiple", [1, 2])
def test_every_image_is_there_once_with_all_its_captions(directory, records, budget, multiple):
    made = batches(directory, budget, multiple=multiple)
    found = epoch(made)
    assert len(found) == made.steps(0)
    seen = []
    for batch in found:
        assert len(batch.image) % multiple == 0 and (batch.ids[:, :, 0] == START).all()
        for pixels, ids, image in zip(batch.inputs[0], batch.ids, batch.image, strict=True):
            expected = stored_images.square(tf.constant(records[image][IMAGE]), 32)
            np.testing.assert_array_equal(pixels, expected)
            captions = [row[row != PAD].tolist() for row in ids if (row[1:] != PAD).any()]
            if captions:  # else it fills the batch up
                seen.append(int(image))
                assert captions == [row[row != PAD].tolist() for row in records[image]["caption/ids"]]
    assert sorted(seen) == list(range(24))


def test_an_epoch_can_be_entered_anywhere_and_each_has_its_own_order(directory):
    for budget in (CACHED, STREAMED):
        made = batches(directory, budget, size=3, augment=True)
        whole = epoch(made, 1)
        for start in (1, 4, len(whole)):
            again = epoch(batches(directory, budget, size=3, augment=True), 1, start)
            tf.nest.map_structure(np.testing.assert_array_equal, again, whole[start:])
        orders = [np.concatenate([batch.image for batch in epoch(made, number)]).tolist() for number in (0, 1)]
        assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


def test_images_are_distorted_otherwise_in_each_epoch(directory):
    made = batches(directory, size=24, augment=True)
    (first,), (second,), (again,) = epoch(made, 0), epoch(made, 1), epoch(made, 0)

    def by_image(batch):
        return batch.inputs[0][np.argsort(batch.image)]

    assert np.array_equal(by_image(first), by_image(again))
    assert all((a != b).any() for a, b in zip(by_image(first), by_image(second), strict=True))


def test_one_caption_of_each_image(directory, records):
    made = batches(directory, one_caption=True)
    for number in (0, 1):
        for batch in epoch(made, number):
            assert batch.ids.shape[1] == 1
            for ids, image in zip(batch.ids[:, 0], batch.image, strict=True):
                assert any(np.array_equal(ids[ids != PAD], row[row != PAD]) for row in records[image]["caption/ids"])


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.float16, tf.uint8])
def test_activations_in_place_of_pixels(directory, dtype):
    kept = [tf.cast(tf.reshape(tf.range(24 * width), [24, width]) % 251, dtype).numpy() for width in (3, 2)]
    made = batches(directory, STREAMED, kept=kept)
    for batch in made.dataset(0):
        assert all(given.dtype == dtype for given in batch.inputs)
        for given, whole in zip(batch.inputs, kept, strict=True):
            np.testing.assert_array_equal(given.numpy(), whole[batch.image.numpy()])
    assert made.is_cached and not batches(directory, STREAMED).is_cached


def test_images_take_no_memory_where_only_features_are_learned_from(directory):
    """24 features of 48 numbers in float16, 120 captions of 16 ids: 20 kB, beside JPEGs of more."""
    shards = directory.info.splits["train"].shards
    assert sum(shard.bytes for shard in shards) > 40_000
    assert Batches(directory, "train", 5, 20_000, 3).is_cached
    assert not Batches(directory, "train", 5, 16_000, 3).is_cached
