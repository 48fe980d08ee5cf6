"""Cells that are given the product of their input, against Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.model.cells import advance, biases, input_kernels, weights_with


def one_word(layer, x, state, kernel=None):
    """The whole of a cell: both products, with their biases."""
    (of_input, of_state), (inputs, _) = biases(layer.cell, x.dtype), input_kernels(layer.cell, x.dtype, 7)
    kernel = tf.cast(layer.cell.recurrent_kernel.value if kernel is None else kernel, x.dtype)
    return advance(layer.cell, tf.matmul(x, inputs) + of_input, tf.matmul(state[0], kernel) + of_state, state)


@pytest.fixture(params=[keras.layers.LSTM, keras.layers.GRU])
def layer(request):
    layer = request.param(5, return_sequences=True, bias_initializer="random_normal")
    layer.build((None, None, 7))
    return layer


def test_one_word_equals_keras(layer):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(4, 7)), tf.float32)
    state = tuple(tf.constant(rng.normal(size=(4, 5)), tf.float32) for _ in np.atleast_1d(layer.cell.state_size))
    output, expected = layer.cell(x, list(state))
    found = one_word(layer, x, state)
    np.testing.assert_allclose(found[0], output, atol=1e-6)
    assert len(found) == len(expected) == len(state)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_an_input_of_two_parts(layer):
    """The product of a whole input is the sum of its parts'."""
    x = tf.random.stateless_normal([3, 7], [1, 2])
    first, second = input_kernels(layer.cell, x.dtype, 4)
    parts = tf.matmul(x[:, :4], first) + tf.matmul(x[:, 4:], second)
    np.testing.assert_allclose(parts, x.numpy() @ layer.cell.kernel.numpy(), atol=1e-5)


def test_another_recurrent_kernel(layer):
    kernel = tf.random.stateless_normal(layer.cell.recurrent_kernel.shape, [3, 4])
    x = tf.random.stateless_normal([2, 3, 7], [5, 6])
    expected, _ = layer.stateless_call(*weights_with(layer, kernel), x)
    state = tuple(tf.zeros([2, 5]) for _ in np.atleast_1d(layer.cell.state_size))
    for time in range(3):
        state = one_word(layer, x[:, time], state, kernel)
        np.testing.assert_allclose(state[0], expected[:, time], atol=1e-5)


def test_half_precision_stays_half(layer):
    x = tf.zeros([2, 7], tf.bfloat16)
    state = tuple(tf.zeros([2, 5], tf.bfloat16) for _ in np.atleast_1d(layer.cell.state_size))
    assert {t.dtype for t in one_word(layer, x, state)} == {tf.bfloat16}
