"""The best by blocks are the best of all, of equals the first."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.search.top_k import top_k

_SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=70)
_FEW = st.sampled_from([-np.inf, -2.0, 0.0, 0.5, 3.0])  # so that many are equal


@settings(max_examples=60, deadline=None)
@given(scores=arrays.arrays(np.float32, _SHAPES, elements=_FEW), share=st.floats(0, 1))
def test_equals_sorting(scores, share):
    k = max(1, round(share * scores.shape[1]))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    values, places = top_k(tf.constant(scores), k)
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, order, axis=1))


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 3001])
@pytest.mark.parametrize("k", [1, 2, 11])
def test_equals_tensorflow(size, k):
    scores = tf.random.stateless_normal([5, size], [size, k])
    k = min(k, size)
    for found, expected in zip(top_k(scores, tf.constant(k)), tf.math.top_k(scores, k), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_no_rows():
    values, places = top_k(tf.zeros([0, 9]), 2)
    assert values.shape == places.shape == (0, 2)
