"""Batch norm merged into convolutions, weights held as they are multiplied: against Keras' own layers."""

import keras
import numpy as np
import pytest

from tfrecords_schema.networks.folding import folded

PIXELS = np.random.default_rng(1).normal(size=(2, 9, 9, 3)).astype(np.float32)


def with_seeded_weights(model):
    """Every weight drawn anew, so that no factor is one and no shift zero."""
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.2, 1.5, weight.shape).astype(np.float32) for weight in model.get_weights()])
    return model


def chain(*layers):
    inputs = keras.Input([9, 9, 3])
    outputs = inputs
    for layer in layers:
        outputs = layer(outputs)
    return with_seeded_weights(keras.Model(inputs, outputs))


def norms(model) -> int:
    return sum(isinstance(layer, keras.layers.BatchNormalization) and bool(layer.weights) for layer in model.layers)


def conv(**options):
    return keras.layers.Conv2D(4, 3, **options)


CHAINS = {
    "without a bias": lambda: [conv(use_bias=False), keras.layers.BatchNormalization(), keras.layers.ReLU()],
    "with a bias": lambda: [conv(), keras.layers.BatchNormalization(epsilon=0.1)],
    "in groups": lambda: [keras.layers.Conv2D(6, 3, groups=3), keras.layers.BatchNormalization(axis=3)],
    "without a scale": lambda: [conv(), keras.layers.BatchNormalization(scale=False)],
    "without a centre": lambda: [conv(use_bias=False), keras.layers.BatchNormalization(center=False)],
    "depthwise": lambda: [keras.layers.DepthwiseConv2D(3, depth_multiplier=2), keras.layers.BatchNormalization()],
    "two": lambda: [conv(), keras.layers.BatchNormalization(), conv(strides=2), keras.layers.BatchNormalization()],
}


@pytest.mark.parametrize("kind", CHAINS)
def test_the_same_is_computed_without_batch_norms(kind):
    model = chain(*CHAINS[kind]())
    found = folded(model)
    assert norms(model) and not norms(found)
    expected = model(PIXELS, training=False).numpy()
    np.testing.assert_allclose(found(PIXELS, training=False).numpy(), expected, rtol=1e-4, atol=1e-4)


OTHERS = {
    "an activation between": lambda: [conv(activation="relu"), keras.layers.BatchNormalization()],
    "another axis": lambda: [conv(), keras.layers.BatchNormalization(axis=1)],
    "behind a dense layer": lambda: [keras.layers.Flatten(), keras.layers.Dense(3), keras.layers.BatchNormalization()],
    "behind the input": lambda: [keras.layers.BatchNormalization(), conv()],
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_batch_norms_stay(kind):
    model = chain(*OTHERS[kind]())
    assert folded(model) is model


LOWER = {
    "with a norm to merge": lambda: [conv(use_bias=False), keras.layers.BatchNormalization(), keras.layers.ReLU()],
    "with a norm that stays": lambda: [conv(activation="relu"), keras.layers.BatchNormalization()],
    "without norms": lambda: [keras.layers.DepthwiseConv2D(3), keras.layers.Flatten(), keras.layers.Dense(5)],
}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", LOWER)
def test_weights_are_held_as_they_are_multiplied(kind, precision):
    """The same as Keras computes that casts them each time, but where a merged norm is rounded with the kernel."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{precision}")
    try:
        model = chain(*LOWER[kind]())
    finally:
        keras.config.set_dtype_policy(before)
    found = folded(model)
    kinds = {
        variable.dtype: isinstance(layer, keras.layers.BatchNormalization)
        for layer in found.layers
        for variable in layer.variables
    }
    assert kinds == {precision: False} | ({"float32": True} if norms(found) else {})
    expected, lower = (np.asarray(one(PIXELS, training=False), np.float32) for one in (model, found))
    if norms(model) == norms(found):
        np.testing.assert_array_equal(lower, expected)
    else:
        np.testing.assert_allclose(lower, expected, rtol=0.02, atol=0.02 * float(np.abs(expected).max()))


def test_a_convolution_that_others_read_too_is_left_alone():
    inputs = keras.Input([9, 9, 3])
    shared = conv()(inputs)
    normed = keras.layers.BatchNormalization()(shared)
    beside = keras.layers.BatchNormalization()(conv()(inputs))  # and this one is merged
    for outputs in (keras.layers.Add()([shared, normed, beside]), [shared, keras.layers.Add()([normed, beside])]):
        model = with_seeded_weights(keras.Model(inputs, outputs))
        found = folded(model)
        assert (norms(model), norms(found)) == (2, 1)
        for expected, one in zip(keras.tree.flatten(model(PIXELS)), keras.tree.flatten(found(PIXELS)), strict=True):
            np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4)
