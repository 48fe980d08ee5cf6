"""Losses against their formulas in numpy; which way self-critical training moves probabilities."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import decoders
from tfrecords_schema.vocabulary import END, PAD, START, UNK
from trainer.config import TrainConfig
from trainer.model.packing import pack
from trainer.model.variables import tensors
from trainer.training import objectives

SEED = tf.constant([1, 2], tf.int64)


def loss(decoder, batch, seed=SEED, progress=1.0, **settings):
    return objectives.cross_entropy(decoder, batch, seed, progress, TrainConfig(**settings))


def test_label_smoothing_equals_cross_entropy_with_smoothed_words():
    decoder, batch = decoders.make(), decoders.batch(4)
    log_probs = decoders.log_softmax(decoders.forced(decoder, batch.features, batch.ids[:, 0])[0])
    targets = batch.ids[:, 0, 1:]
    wanted = 0.8 * np.eye(decoders.WORDS)[targets] + 0.2 / decoders.WORDS
    expected = -(wanted * log_probs).sum(-1)[targets != PAD].sum()
    found = loss(decoder, batch, label_smoothing=0.2)
    assert float(found.total) == pytest.approx(expected, rel=1e-5)
    assert float(found.reported["loss"][0]) == pytest.approx(float(loss(decoder, batch).total), rel=1e-6), "plain"
    assert float(loss(decoder, batch, seed=None, label_smoothing=0.2).total) == float(found.reported["loss"][0])


def test_the_attention_penalty_equals_its_formula():
    decoder = decoders.make("attention")
    batch = decoders.batch(3, shape=(4, 5))
    _, attention = decoders.forced(decoder, batch.features, batch.ids[:, 0])
    penalty = ((1 - attention.sum(1)) ** 2).sum()
    without, with_it = (loss(decoder, batch, attention_penalty=weight) for weight in (0.0, 2.5))
    assert float(with_it.total) - float(without.total) == pytest.approx(2.5 * penalty, rel=1e-4)
    assert float(with_it.reported["loss"][0]) == float(without.total)


def test_scheduled_sampling_replaces_its_share_of_words_but_never_start():
    decoder = decoders.make(scale=0.1)
    batch = decoders.batch(400)
    ids = batch.ids[:, 0]
    packed = pack(ids)
    caption, time = packed.caption.numpy(), packed.places[:, 1].numpy()
    for share in (0.0, 0.5, 1.0):
        mixed = objectives._mixed_with_own(decoder, batch.features, packed, share, SEED).numpy()
        assert (mixed[time == 0] == START).all()
        changed = (mixed != ids[caption, time])[time > 0].mean()
        assert changed == pytest.approx(share * (1 - 1 / decoders.WORDS), abs=0.05)
    assert float(loss(decoder, batch, scheduled_sampling=0.5, progress=0.0).total) == float(loss(decoder, batch).total)
    assert float(loss(decoder, batch, scheduled_sampling=0.5).total) != float(loss(decoder, batch).total)


@pytest.mark.parametrize("kind", ["lstm", pytest.param("attention", marks=pytest.mark.slow)])
def test_self_critical_training_raises_what_is_rewarded_above_the_greedy_caption(kind):
    """The reward is a certain word at the beginning; after some steps nearly all captions begin with it."""
    decoder = decoders.make(kind, scale=0.2)
    shape = decoder.config.feature_shape
    batch = decoders.batch(8, shape=shape)._replace(image=np.arange(100, 108, dtype=np.int32))
    optimizer, seen = keras.optimizers.Adam(0.02), []

    def reward(images, ids):
        seen.append((images, ids))
        return (ids[:, 0] == 5).astype(np.float32)

    @tf.function
    def one(step):
        with tf.GradientTape() as tape:
            found = objectives.self_critical(decoder, batch, tf.stack([0, step]), reward, 3, 6)
        gradients = tape.gradient(found.total, tensors(decoder.trainable_weights))
        optimizer.apply_gradients([(g, w) for g, w in zip(gradients, decoder.trainable_weights, strict=True)])
        return found.reported

    batch, shown = type(batch)(*map(tf.constant, batch)), []
    for step in range(150):
        shown.append(one(tf.constant(step, tf.int64)))
    first, last = shown[0], shown[-1]
    images, ids = seen[0]
    assert images.tolist() == [*range(100, 108), *np.repeat(range(100, 108), 3)], "greedy ones first, then the samples"
    assert ids.shape == (32, 6) and not np.isin(ids, [START, UNK]).any()
    for row in ids:  # nothing but PAD after END
        end = list(row).index(END) if END in row else len(row)
        assert (row[end + 1 :] == PAD).all() and (row[:end] != PAD).all()
    assert mean(first["reward"]) < 0.5 and mean(last["reward"]) > 0.9
    assert float(first["reward"][1]) == 24


def mean(figure) -> float:
    return float(figure[0]) / float(figure[1])


@pytest.mark.parametrize("baseline", ["greedy", "samples"])
def test_the_self_critical_gradient_is_the_advantage_times_that_of_the_log_probability(baseline):
    decoder = decoders.make()
    batch = decoders.batch(4)
    drawn = []

    def reward(images, ids):
        drawn[:] = [ids[4:]]
        return np.arange(len(ids), dtype=np.float32)  # greedy 0..3, samples 4..11

    found = objectives.self_critical(decoder, batch, SEED, reward, 2, 6, baseline)
    ids = drawn[0]
    features = np.repeat(batch.features, 2, axis=0)
    words = np.concatenate([np.full((8, 1), START), ids[:, :-1]], axis=1)
    logits = decoders.forced(decoder, features, np.concatenate([words, ids[:, -1:]], axis=1))[0]
    logits[..., [PAD, START, UNK]] = -np.inf  # they are never drawn
    log_probs = decoders.log_softmax(logits)
    picked = np.where(ids != PAD, np.take_along_axis(log_probs, ids[..., None], -1)[..., 0], 0)
    advantage = {
        "greedy": np.arange(4, 12) - np.repeat(np.arange(4), 2),
        "samples": np.array([-1, 1] * 4),  # two an image: each is compared with the other
    }[baseline]
    assert float(found.total) == pytest.approx(-(picked.sum(1) * advantage).sum(), rel=1e-5)
    assert float(found.tokens) == (ids != PAD).sum()


def test_images_that_only_fill_a_batch_up_count_for_nothing():
    decoder = decoders.make()
    batch = decoders.batch(4)
    batch.ids[3, :, 1:] = PAD
    reward = lambda images, ids: np.where(images == 3, 100, 1).astype(np.float32)  # noqa: E731
    found = objectives.self_critical(decoder, batch, SEED, reward, 2, 6)
    assert float(found.total) == 0 and float(found.reported["reward"][1]) == 6 and mean(found.reported["reward"]) == 1


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_share_of_cross_entropy_in_self_critical_training(share):
    """Paulus et al., eq. 16: of each image the mean over its samples, and one caption that people wrote."""
    decoder, batch = decoders.make(), decoders.batch(4)
    batch.ids[3, :, 1:] = PAD  # fills the batch up
    reward = lambda images, ids: np.arange(len(ids), dtype=np.float32)  # noqa: E731
    alone, both = (objectives.self_critical(decoder, batch, SEED, reward, 2, 6, "samples", s) for s in (0.0, share))
    log_probs = decoders.log_softmax(decoders.forced(decoder, batch.features, batch.ids[:, 0])[0])
    targets = batch.ids[:, 0, 1:]
    written = -np.take_along_axis(log_probs, targets[..., None], -1)[..., 0][targets != PAD].sum()
    assert float(both.total) == pytest.approx((1 - share) * float(alone.total) + share * 2 * written, rel=1e-5)
    assert float(both.tokens) == float(alone.tokens)
    assert float(both.reported["loss"][0]) == pytest.approx(written, rel=1e-5)
    assert float(both.reported["loss"][1]) == (targets != PAD).sum() and "loss" not in alone.reported
