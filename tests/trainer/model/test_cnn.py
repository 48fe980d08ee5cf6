"""A network in two parts: whatever the cut, it computes what the whole does, and only what is above the cut learns."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import tunable
from tests.support.tunable import ABOVE, BELOW, LEFT, RIGHT
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import RESIZE, FeatureSpec
from tfrecords_schema.networks import random_weights, registry
from trainer.model.cnn import Cnn, require_usable

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
CUTS = {
    "all": BELOW + LEFT + RIGHT + ABOVE,
    "low": BELOW + LEFT + RIGHT + ABOVE,
    "low_norm": ("low_norm", *LEFT, *RIGHT, *ABOVE),
    "low_relu": LEFT + RIGHT + ABOVE,
    "left": LEFT + ABOVE,
    "joined": ABOVE,
    "high_norm": ("high_norm",),
}


pytestmark = pytest.mark.usefixtures("tunable_network")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return tunable.save(tmp_path_factory.mktemp("weights") / "given.weights.h5")


def spec(grid: bool = False, extractor: str = tunable.NAME) -> FeatureSpec:
    endpoint = registry.NETWORKS[extractor].endpoint(grid)
    return FeatureSpec(extractor, endpoint.label, "given", "00", endpoint.shape, "float32", "float32", RESIZE)


def names(variables) -> list[str]:
    return [variable.path.split("/")[-2] for variable in variables]


def whole(weights: str, grid: bool = False) -> np.ndarray:
    """What Keras' own model makes of the pixels."""
    model = tunable.model(weights)
    output = model.get_layer("map").output if grid else model.output
    found = keras.Model(model.inputs, output).predict(PIXELS / np.float32(127.5) - 1, verbose=0)
    return found.reshape(4, 64, 10) if grid else found


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("first", CUTS)
def test_both_parts_together_compute_what_the_whole_does(weights, first, grid):
    cnn = Cnn(spec(grid), weights, first, batch_norm=True)
    found = cnn.features(cnn.activations(tf.constant(PIXELS)))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, whole(weights, grid), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("first", CUTS)
def test_what_learns_is_the_layer_and_those_behind_it(weights, first, batch_norm):
    expected = {name for name in CUTS[first] if batch_norm or not name.endswith("_norm")}
    if not expected:
        with pytest.raises(
            InputError, match=f"--fine_tune: expected a layer with weights in or above it, found {first}"
        ):
            Cnn(spec(), weights, first, batch_norm=batch_norm)
        return
    cnn = Cnn(spec(), weights, first, batch_norm=batch_norm)
    assert set(names(cnn.trainable_variables)) == expected
    assert set(names(cnn.weights)) == set(CUTS[first])


def test_gradients_reach_the_top_alone(weights):
    cnn = Cnn(spec(), weights, "joined")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(cnn.features(cnn.activations(tf.constant(PIXELS)), training=True) ** 2)
    watched = {variable.name.split(":")[0] for variable in tape.watched_variables()}
    gradients = tape.gradient(loss, [variable.value for variable in cnn.trainable_variables])
    assert watched and all(tf.reduce_any(gradient != 0) for gradient in gradients)
    assert len(cnn.activations(tf.constant(PIXELS))) == 1 and cnn.activations(tf.constant(PIXELS))[0].shape[-1] == 12


def test_where_branches_are_cut_all_that_leads_up_is_kept(weights):
    """`left` learns, `right` does not: the top is given what both come to."""
    assert sorted(one.shape[-1] for one in Cnn(spec(), weights, "left").activations(tf.constant(PIXELS))) == [6, 8]


def test_batch_norms_stay_as_they_are_unless_they_learn(weights):
    """In training, against means and variances computed here."""
    for learns in (False, True):
        cnn = Cnn(spec(grid=True), weights, "joined", batch_norm=learns)
        before = [weight.value.numpy() for weight in cnn.weights]
        activations = cnn.activations(tf.constant(PIXELS))
        exact = cnn.features(activations).numpy()
        found = cnn.features(activations, training=True).numpy()
        after = [weight.value.numpy() for weight in cnn.weights]
        changed = {
            weight.path.split("/")[-1]
            for weight, old, new in zip(cnn.weights, before, after, strict=True)
            if not np.array_equal(old, new)
        }
        assert changed == ({"moving_mean", "moving_variance"} if learns else set())
        assert np.array_equal(found, exact) != learns
        if learns:
            high = tunable.weights_by_layer(weights)
            kernel, (gamma, beta, _, _) = high["high"][0], high["high_norm"]
            made = tf.nn.conv2d(activations[0], kernel, 2, "SAME").numpy()
            mean, variance = made.mean((0, 1, 2)), made.var((0, 1, 2))
            expected = np.maximum((made - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0)
            np.testing.assert_allclose(found, expected.reshape(4, 64, 10), rtol=1e-3, atol=1e-4)


def test_what_is_saved_is_the_whole_network_as_it_is_now(weights, tmp_path):
    cnn = Cnn(spec(), weights, "joined")
    assert not cnn.is_changed()
    cnn.trainable_variables[0].assign(cnn.trainable_variables[0] * 0.5)
    assert cnn.is_changed()
    cnn.save(str(tmp_path / "tuned.weights.h5"))
    before, after = tunable.weights_by_layer(weights), tunable.weights_by_layer(tmp_path / "tuned.weights.h5")
    changed = {name for name in before for a, b in zip(before[name], after[name], strict=True) if (a != b).any()}
    assert changed == {"high"}
    np.testing.assert_allclose(
        cnn.features(cnn.activations(tf.constant(PIXELS))), whole(tmp_path / "tuned.weights.h5"), rtol=1e-4, atol=1e-5
    )
    cnn.save(str(tmp_path / "again.weights.h5"))
    assert (tmp_path / "again.weights.h5").read_bytes() == (tmp_path / "tuned.weights.h5").read_bytes()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precisions_are_near(weights, precision):
    cnn = Cnn(spec(), weights, "joined", precision)
    activations = cnn.activations(tf.constant(PIXELS))
    assert activations[0].dtype == precision and all(weight.dtype == "float32" for weight in cnn.weights)
    found, exact = cnn.features(activations).numpy(), whole(weights)
    assert np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


def test_a_layer_that_is_not_there(weights):
    named = "low_norm, low_relu, left, right, joined, high, high_norm, map"
    with pytest.raises(
        InputError, match=f"--fine_tune: expected all or a layer of tunable, such as {named}, found 'x'$"
    ):
        Cnn(spec(), weights, "x")


@pytest.mark.parametrize(
    ("change", "extractor", "has_images", "message"),
    [
        ({}, "extractor/0.h5", False, "with images in its records, found none in DIR; make it with .* --store_images"),
        ({"extractor": "saved_model"}, "extractor/0", True, "expected features of .*, found those of 'saved_model'"),
        ({"weights": "random"}, "", True, r"expected the network's weights in DIR, found none \(random\); make"),
    ],
)
def test_directories_that_cannot_be_learned_from(change, extractor, has_images, message):
    with pytest.raises(InputError, match=f"^--fine_tune: .*{message}"):
        require_usable(dataclasses.replace(spec(), **change), extractor, has_images, "DIR")
    require_usable(spec(), "extractor/0.h5", True, "DIR")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "first", "learning"),
    [("inception_v3", "mixed8", 18), ("vgg16", "block5_conv1", 10), ("efficientnet_v2_s", "block6o_add", 1)],
)
def test_networks_of_the_registry(tmp_path, name, first, learning):
    network = registry.NETWORKS[name]
    model = random_weights.build(network)
    model.save_weights(tmp_path / "given.weights.h5")
    pixels = np.random.default_rng(0).integers(0, 256, (2, network.size, network.size, 3), np.uint8)
    cnn = Cnn(spec(extractor=name), str(tmp_path / "given.weights.h5"), first)
    output = model.get_layer(network.pooled.layer).output if network.pooled.layer else model.output
    expected = keras.Model(model.inputs, output).predict(network.preprocess(pixels.astype(np.float32)), verbose=0)
    found = cnn.features(cnn.activations(tf.constant(pixels)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * float(np.abs(expected).max()))
    assert len(cnn.trainable_variables) == learning
