"""Captions without their padding, and whole captions side by side of one image."""

import numpy as np
import pytest
import tensorflow as tf

from tests.support import decoders
from tfrecords_schema.vocabulary import END, PAD, START
from trainer.model.bahdanau import Scores
from trainer.model.packing import pack
from trainer.model.variables import tensors

IDS = np.array(
    [[START, 7, END, PAD, PAD], [START, PAD, PAD, PAD, PAD], [START, 4, 5, END, PAD], [START, 8, END, PAD, PAD]],
    np.int32,
)


def test_the_words_of_all_captions_the_first_ones_first():
    packed = pack(IDS)
    assert packed.order.numpy().tolist() == [2, 0, 3, 1]
    assert packed.counts.numpy().tolist() == [3, 3, 1]
    assert packed.words.numpy().tolist() == [START, START, START, 4, 7, 8, 5]
    assert packed.targets.numpy().tolist() == [4, 7, 8, 5, END, END, END]
    assert packed.caption.numpy().tolist() == [2, 0, 3, 2, 0, 3, 2]
    spread = packed.spread(packed.words[:, None])
    assert spread[..., 0].numpy().tolist() == [[START, 7, 0], [0] * 3, [START, 4, 5], [START, 8, 0]]
    assert packed.gathered(spread).numpy().tolist() == packed.words[:, None].numpy().tolist()


def test_captions_that_only_fill_up_have_one_step_of_no_rows():
    packed = pack(IDS[1:2])
    assert packed.counts.numpy().tolist() == [0] and packed.spread(packed.words[:, None]).shape == (1, 1, 1)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "gru_initial_state", "attention", "luong"])
def test_several_captions_of_an_image_equal_each_with_its_own(kind, whole):
    decoder = decoders.make(kind)
    decoder.runs_whole_layers = whole
    batch = decoders.batch(6, shape=decoder.config.feature_shape)
    features = batch.features[::3]
    together, _ = decoders.forced(decoder, features, batch.ids[:, 0])
    alone, _ = decoders.forced(decoder, np.repeat(features, 3, axis=0), batch.ids[:, 0])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    "kind", ["lstm", "two_layers", "gru_initial_state", "attention", "attention_gru", "luong_layers"]
)
def test_gradients_equal_those_of_single_steps(kind):
    """Those of the loop are put together by hand, and those of single steps are TensorFlow's."""
    decoder = decoders.make(kind)
    batch = decoders.batch(4, shape=decoder.config.feature_shape)
    ids = batch.ids[:, 0]
    weights = tensors(decoder.trainable_weights)

    def entropy(targets, logits):
        return tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))

    with tf.GradientTape() as tape:
        packed = pack(ids)
        logits, attention = decoder((batch.features, packed), seed=None)
        loss = entropy(packed.targets, logits) + (tf.reduce_sum(attention**3) if decoder.attention else 0)
    found = tape.gradient(loss, weights)
    with tf.GradientTape() as tape:
        image = decoder.encode(batch.features)
        state, expected_loss = decoder.initial_state(image), 0.0
        for time in range(ids.shape[1] - 1):
            logits, state = decoder.step(ids[:, time], state, image)
            real = ids[:, time + 1] != PAD
            expected_loss += entropy(ids[real, time + 1], logits[real])
            if decoder.attention:
                expected_loss += tf.reduce_sum(state.attention[real] ** 3)
    expected = tape.gradient(expected_loss, weights)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5)
    for weight, one, other in zip(decoder.trainable_weights, found, expected, strict=True):
        one, other = (tf.convert_to_tensor(each).numpy() for each in (one, other))
        assert np.abs(other).max() > 1e-4, weight.path
        np.testing.assert_allclose(one, other, atol=1e-4 * max(1, np.abs(other).max()), err_msg=weight.path)


def test_scores_equal_their_formula_and_so_does_the_way_back():
    """Of numbers of every size but those beyond 20, whose tanh is 1 in float32 too."""
    generator = np.random.default_rng(0)
    keys, query = generator.normal(0, 6, (5, 3, 4)).astype("f4"), generator.normal(0, 6, (4, 4)).astype("f4")
    score, upstream = generator.normal(size=4).astype("f4"), generator.normal(size=(4, 3)).astype("f4")
    scores = Scores(tf.constant(keys), tf.constant(score))
    tanh = np.tanh(np.float64(query)[:, None] + keys[:4])
    np.testing.assert_allclose(scores(tf.constant(query)), tanh @ score, atol=1e-5)
    expected = np.einsum("np,npa,a->na", upstream, 1 - tanh**2, score)
    np.testing.assert_allclose(scores.of_query(tf.constant(query), tf.constant(upstream)), expected, atol=1e-5)
    large = tf.constant([[50.0, -50, 50, -50]])
    np.testing.assert_allclose(scores(large)[0], [score @ [1, -1, 1, -1]] * 3, atol=1e-5)
