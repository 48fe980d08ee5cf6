"""Every kind of decoder: whole sequences equal single steps, padding changes nothing, and all can learn."""

import dataclasses
import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import decoders
from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import END, PAD, START
from trainer.config import TrainConfig
from trainer.model.bahdanau import BahdanauAttention, attend
from trainer.model.decoder import Decoder
from trainer.model.dropout import drop
from trainer.model.luong import LuongAttention
from trainer.model.packing import pack
from trainer.model.variables import tensors
from trainer.search.caption_module import CaptionModule
from trainer.training import objectives
from trainer.training.update import make_update


def shape_of(decoder):
    return decoder.config.feature_shape


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kind", decoders.KINDS)
def test_whole_sequences_equal_single_steps(kind, whole):
    """Keras' layers, as on a GPU, the loop of training elsewhere, and the cells of beam search, on the same weights."""
    decoder = decoders.make(kind)
    decoder.runs_whole_layers = whole
    batch = decoders.batch(4, shape=shape_of(decoder))
    ids = batch.ids[:, 0]
    logits, attention = decoders.forced(decoder, batch.features, ids)  # [4, 6, 11]
    image = decoder.encode(batch.features)
    state = decoder.initial_state(image)
    for time in range(ids.shape[1] - 1):
        found, state = decoder.step(ids[:, time], state, image)
        real = ids[:, time + 1] != PAD
        np.testing.assert_allclose(found[real], logits[real, time], atol=1e-5)
        if decoder.attention:
            np.testing.assert_allclose(state.attention[real], attention[real, time], atol=1e-6)
    assert (attention is not None) == bool(decoder.attention)


def test_one_layer_makes_the_first_state_of_all():
    """Features -> dense, tanh -> the state of three GRUs, and no weights between."""
    decoder = decoders.make("shared_state")
    features = decoders.batch(4).features
    (dense,) = decoder.first_states
    scaled = decoder.scaling(features).numpy()
    expected = np.tanh(scaled @ dense.kernel.numpy() + dense.bias.numpy())
    state = decoder.initial_state(decoder.encode(features))
    assert dense.kernel.shape == (5, 8) and len(state.layers) == 3
    assert not any("image_embedding" in weight.path for weight in decoder.weights)
    for (tensor,) in state.layers:
        np.testing.assert_allclose(tensor, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "gru_initial_state", "attention", "luong_layers"])
def test_hypotheses_of_one_image_share_what_is_known_of_it(kind):
    """Three hypotheses an image, side by side, against one at a time."""
    decoder = decoders.make(kind)
    features = decoders.batch(2, shape=shape_of(decoder)).features
    image = decoder.encode(features)
    state = tf.nest.map_structure(lambda t: tf.repeat(t, 3, axis=0), decoder.initial_state(image))
    words = np.array([4, 5, 6, 7, 8, 9])
    logits, _ = decoder.step(words, state, image)
    for place, word in enumerate(words):
        alone = decoder.encode(features[place // 3][None])
        expected, _ = decoder.step(np.array([word]), decoder.initial_state(alone), alone)
        np.testing.assert_allclose(logits[place], expected[0], atol=1e-5)


def test_attention_equals_its_formula():
    layer = BahdanauAttention(4)
    layer.build((None, None, 3), (None, 5))
    generator = np.random.default_rng(0)
    positions, state = generator.normal(size=(1, 2, 3)).astype("f4"), generator.normal(size=(1, 5)).astype("f4")
    asked = tf.concat([layer.query(state), [[0.3]]], 1)
    context, weights = attend(asked, layer.keys(positions), positions, layer.score.kernel.value[:, 0])
    kernel, bias = (w.numpy() for w in layer.keys.weights)
    energy = [np.tanh(p @ kernel + bias + state[0] @ layer.query.kernel.numpy()) for p in positions[0]]
    energy = np.array([e @ layer.score.kernel.numpy()[:, 0] for e in energy])
    expected = np.exp(energy) / np.exp(energy).sum()
    np.testing.assert_allclose(weights[0], expected, atol=1e-6)
    np.testing.assert_allclose(context[0], expected @ positions[0] / (1 + np.exp(-0.3)), atol=1e-6)


def test_luongs_attention_equals_its_formula():
    """Two heads, two images with three states each."""
    layer = LuongAttention(4, 2)
    layer.build((None, None, 6), (None, None, 5))
    generator = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(generator.normal(size=weight.shape))
    positions, states = generator.normal(size=(2, 7, 6)).astype("f4"), generator.normal(size=(6, 5)).astype("f4")
    contexts, weights = layer(states, layer.keys(positions), positions)
    (kernel,) = (w.numpy() for w in layer.keys.weights)
    for i, state in enumerate(states):
        query, of_image = state @ layer.query.kernel.numpy(), positions[i // 3]
        gate = 1 / (1 + np.exp(-(state @ layer.gate.kernel.numpy() + layer.gate.bias.numpy())))
        expected, looked = [], []
        for head in (0, 1):
            keys = (of_image @ kernel)[:, 2 * head : 2 * head + 2]
            raised = np.exp(keys @ query[2 * head : 2 * head + 2] / np.sqrt(2))
            looked.append(raised / raised.sum())
            expected.append(looked[-1] @ of_image[:, 3 * head : 3 * head + 3])
        np.testing.assert_allclose(contexts[i], np.concatenate(expected) * gate, atol=1e-5)
        np.testing.assert_allclose(weights[i], np.mean(looked, 0), atol=1e-6)


@pytest.mark.parametrize("kind", decoders.KINDS)
def test_padding_changes_neither_loss_nor_gradients(kind):
    decoder = decoders.make(kind)
    batch = decoders.batch(4, shape=shape_of(decoder))
    padded = batch._replace(ids=np.pad(batch.ids, ((0, 0), (0, 0), (0, 6)), constant_values=PAD))
    found = []
    for given in (batch, padded):
        with tf.GradientTape() as tape:
            loss = objectives.cross_entropy(decoder, given, None, 0.0, TrainConfig())
        gradients = tape.gradient(loss.total, tensors(decoder.trainable_weights))
        found.append((float(loss.total), float(loss.tokens), [tf.convert_to_tensor(g).numpy() for g in gradients]))
    (loss, tokens, gradients), (padded_loss, padded_tokens, padded_gradients) = found
    assert padded_loss == pytest.approx(loss, abs=1e-4) and padded_tokens == tokens
    assert any(np.abs(g).max() > 1e-2 for g in gradients)
    for a, b in zip(gradients, padded_gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def memorise(decoder, batch, steps: int = 400):
    optimizer = keras.optimizers.Adam(0.03)
    strategy = tf.distribute.get_strategy()
    objective = functools.partial(objectives.cross_entropy, config=TrainConfig(attention_penalty=0.1))
    (given,) = batches = tf.data.Dataset.from_tensors(batch)
    update = make_update(decoder, optimizer, objective, strategy, batches, seed=0, clip_norm=5.0)
    for step in range(steps):
        reported, _, _ = update(given, tf.constant(step, tf.int64), tf.constant(0.0))
    return reported


@pytest.mark.slow
@pytest.mark.parametrize("kind", decoders.KINDS)
def test_every_decoder_learns_ten_captions_by_heart(kind):
    decoder = decoders.make(kind, scale=0.4)
    batch = decoders.batch(10, shape=shape_of(decoder))
    total, tokens = memorise(decoder, batch)["accuracy"]
    found = CaptionModule(decoder).caption(batch.features, 3, decoders.LENGTH, 0.0)["ids"].numpy()[:, 0]
    for ids, said in zip(batch.ids[:, 0], found, strict=True):
        caption = [i for i in ids if i not in (START, PAD)]
        assert list(said[: len(caption)]) == caption and caption[-1] == END
    assert float(total) == float(tokens), "every word is predicted"


def test_no_two_weights_begin_with_the_same_numbers():
    decoder = Decoder(dataclasses.replace(decoders.BASE, embedding_dim=8))
    decoder.build()
    drawn = [weight.numpy().ravel()[:50] for weight in decoder.trainable_weights if len(weight.shape) == 2]
    assert len(drawn) == 5
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(drawn, 2))


def test_dropout_is_a_function_of_the_seed():
    """All four kinds: the same seed gives the same numbers, another one others, and none those of the export."""
    for name in ("image_dropout", "embedding_dropout", "state_dropout", "output_dropout"):
        for kind in ("two_layers", "attention", "luong_layers"):
            decoder = decoders.make(kind, **{name: 0.5})
            batch = decoders.batch(4, shape=shape_of(decoder))
            run = functools.partial(decoder, (batch.features, pack(batch.ids[:, 0])))
            seeds = [tf.constant(seed, tf.int64) for seed in ([1, 2], [1, 2], [1, 3])]
            one, same, other = (run(seed=seed)[0].numpy() for seed in seeds)
            without = run(seed=None)[0].numpy()
            assert np.array_equal(one, same) and not np.allclose(one, other) and not np.allclose(one, without)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rate", [0.01, 0.4, 0.95])
def test_the_share_that_is_dropped_is_the_rate_in_every_precision(dtype, rate):
    found = tf.cast(drop(tf.ones([500_000], dtype), rate, tf.constant([1, 2], tf.int64), "words"), tf.float32).numpy()
    assert (found == 0).mean() == pytest.approx(rate, abs=0.002)
    np.testing.assert_allclose(found[found != 0], 1 / (1 - rate), rtol=0.004)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "gru_initial_state", "attention", "attention_gru", "luong_layers"])
def test_dropped_recurrent_weights_are_those_of_every_step(kind, whole):
    """Whole layers with dropped weights equal cells that step with the same ones."""
    decoder = decoders.make(kind, state_dropout=0.5)
    decoder.runs_whole_layers = whole
    batch = decoders.batch(3, shape=shape_of(decoder))
    seed = tf.constant([3, 4], tf.int64)
    ids = batch.ids[:, 0]
    whole, _ = decoders.forced(decoder, batch.features, ids, seed=seed)
    kernels = decoder._recurrent_kernels(seed)
    assert all(0.3 < np.mean(kernel.numpy() == 0) < 0.7 for kernel in kernels)
    image = decoder.encode(batch.features)
    state = decoder.initial_state(image, kernels)
    for time in range(ids.shape[1] - 1):
        words = decoder.word_embedding(ids[:, time])
        output, state = decoder._advance(words, decoder._input_product(0, words), state, image, kernels)
        real = ids[:, time + 1] != PAD
        np.testing.assert_allclose(decoder._logits(output)[real], whole[real, time], atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "attention_gru", "luong", "tied"])
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_near_float32_and_keeps_float32_weights(kind, dtype):
    decoder, mixed = decoders.make(kind, scale=0.3), decoders.make(kind, scale=0.3, dtype=dtype)
    batch = decoders.batch(4, shape=shape_of(decoder))
    assert {w.dtype for w in mixed.weights} == {"float32"}
    expected, found = (d((batch.features, pack(batch.ids[:, 0])), seed=None)[0] for d in (decoder, mixed))
    assert found.dtype == tf.float32 and not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_nothing_switches_the_fused_kernels_off():
    """What Keras asks of a layer before it uses cuDNN's kernel."""
    for cell in ("lstm", "gru"):
        decoder = decoders.make("two_layers", cell=cell)
        for layer in decoder.recurrent:
            assert layer.use_cudnn == "auto" and not layer.unroll and layer.recurrent_dropout == 0
            assert layer.activation is keras.activations.tanh
            assert layer.recurrent_activation is keras.activations.sigmoid
            assert layer.use_bias and (cell == "lstm" or layer.reset_after)


def test_attention_needs_a_grid():
    with pytest.raises(InputError, match=r"--attention bahdanau: expected features \[positions, F\].*--feature_grid"):
        decoders.make("attention", feature_shape=(5,))


def test_heads_divide_what_they_share():
    with pytest.raises(InputError, match="--attention_heads: expected a divisor of --embedding_dim 6, found 4"):
        decoders.make("luong", attention_heads=4)
