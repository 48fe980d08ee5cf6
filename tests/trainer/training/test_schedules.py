"""Learning rates by step, in exact values, and what the optimizers do with them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords_schema.errors import InputError
from trainer.training.schedules import LearningRate, make_optimizer


def rates(schedule: LearningRate, count: int) -> list[float]:
    return [float(schedule(step)) for step in range(count)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": "constant", "steps": 9}, [2, 2, 2]),
        ({"kind": "constant", "steps": 9, "warmup_steps": 4}, [0.5, 1, 1.5, 2, 2, 2]),
        ({"kind": "cosine", "steps": 4}, [2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5, 0, 0, 0]),
        ({"kind": "cosine", "steps": 6, "warmup_steps": 2}, [1, 2, 2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5, 0, 0]),
        ({"kind": "exponential", "steps": 9, "decay_steps": 2}, [2, 2, 1, 1, 0.5, 0.5, 0.25]),
        ({"kind": "exponential", "steps": 9, "decay_steps": 2, "warmup_steps": 1}, [2, 2, 2, 1, 1, 0.5]),
        ({"kind": "exponential", "steps": 9, "decay_steps": 1, "decay_factor": 0.1}, [2, 0.2, 0.02]),
    ],
)
def test_rates_by_step(settings, expected):
    np.testing.assert_allclose(rates(LearningRate(rate=2.0, **settings), len(expected)), expected, rtol=1e-6, atol=1e-7)


SCHEDULES = st.integers(1, 50).flatmap(
    lambda steps: st.builds(
        LearningRate,
        kind=st.sampled_from(["constant", "cosine", "exponential"]),
        rate=st.floats(1e-6, 1.0),
        steps=st.just(steps),
        warmup_steps=st.integers(0, steps - 1),
        decay_steps=st.integers(1, 20),
        decay_factor=st.floats(0.1, 1.0),
    )
)


@settings(deadline=None, max_examples=30)
@given(SCHEDULES)
def test_rises_to_the_rate_then_never_rises_again(schedule):
    found = np.array(rates(schedule, schedule.steps + 2))
    top = max(0, schedule.warmup_steps - 1)
    assert found[0] > 0 and (found >= 0).all()
    assert found[top] == found.max() == pytest.approx(schedule.rate, rel=1e-6)
    assert (np.diff(found[: top + 1]) > 0).all() and (np.diff(found[top:]) <= 0).all()


def test_staircase_is_exact_after_many_steps():
    schedule = LearningRate("exponential", 1.0, 10**9, decay_steps=2**25 + 1)
    assert [float(schedule(2**25 + d)) for d in (0, 1)] == [1.0, 0.5]


def test_same_in_a_graph_under_xla_and_after_its_config():
    schedule = LearningRate("cosine", 0.3, 20, warmup_steps=5)
    again = LearningRate.from_config(schedule.get_config())
    compiled = tf.function(again, jit_compile=True)
    for step in range(22):
        assert float(compiled(tf.constant(step, tf.int64))) == pytest.approx(float(schedule(step)), abs=1e-7)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("linear", 1.0, 9), "--schedule: expected constant, cosine or exponential, found linear"),
        (("cosine", 1.0, 9, 9), "--warmup_steps: expected 0 to 8 for a training of 9 steps, found 9"),
        (("cosine", 1.0, 9, -1), "--warmup_steps: expected 0 to 8"),
        (("exponential", 1.0, 9, 0, 0), "--decay_epochs: expected at least one step, found 0"),
    ],
)
def test_bad_schedules_are_told(arguments, told):
    with pytest.raises(InputError) as caught:
        LearningRate(*arguments)
    assert str(caught.value).startswith(told)


def layer() -> keras.layers.Dense:
    dense = keras.layers.Dense(1, kernel_initializer="ones", bias_initializer="ones")
    dense.build((None, 1))
    return dense


def updates(optimizer, gradients, weights):
    for gradient in gradients:
        optimizer.apply_gradients([(tf.fill(w.shape, gradient), w) for w in weights])


def test_sgd_follows_the_schedule_with_nesterov_momentum():
    dense = layer()
    updates(make_optimizer("sgd", LearningRate("constant", 0.1, 9, warmup_steps=2)), [1.0, 1.0], dense.weights)
    weight, momentum = 1.0, 0.0
    for rate in (0.05, 0.1):
        momentum = 0.9 * momentum - rate
        weight += 0.9 * momentum - rate
    assert float(dense.kernel.value[0, 0]) == pytest.approx(weight, rel=1e-6)


@pytest.mark.parametrize(("momentum", "expected"), [(0.0, -0.2), (0.9, -0.1 - 0.19)])
def test_sgd_as_show_and_tell_had_it(momentum, expected):
    dense = layer()
    optimizer = make_optimizer("sgd", LearningRate("constant", 0.1, 9), momentum=momentum, nesterov=False)
    updates(optimizer, [1.0, 1.0], dense.weights)
    assert float(dense.kernel.value[0, 0]) == pytest.approx(1 + expected, rel=1e-6)


def test_weight_decay_is_adamws_and_leaves_biases_out():
    for kind, expected in {"adam": 1.0, "adamw": 1 - 0.1 * 0.5, "rmsprop": 1.0, "sgd": 1.0}.items():
        dense = layer()
        updates(make_optimizer(kind, LearningRate("constant", 0.1, 9), weight_decay=0.5), [0.0], dense.weights)
        assert float(dense.kernel.value[0, 0]) == pytest.approx(expected, rel=1e-6), kind
        assert float(dense.bias.value[0]) == 1.0


@pytest.mark.parametrize("kind", ["adam", "adamw", "rmsprop", "sgd"])
def test_optimizers_rebuild_themselves(kind):
    optimizer = make_optimizer(kind, LearningRate("cosine", 0.1, 9, warmup_steps=3), weight_decay=0.5)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer) and float(again.learning_rate) == pytest.approx(0.1 / 3)


def test_unknown_optimizer_is_told():
    with pytest.raises(InputError, match=r"^--optimizer: expected adam, adamw, rmsprop or sgd, found lamb$"):
        make_optimizer("lamb", 0.1)
