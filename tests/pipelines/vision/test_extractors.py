"""Networks as extractors: the registry's, at every precision and layer, and a SavedModel of one's own."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.vision import devices, extractors
from pipelines.vision.extractors import Extractor
from tests.support import ROOT
from tfrecords_schema.errors import InputError
from tfrecords_schema.networks import random_weights, registry

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


def cosine(a, b):
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_pooled_and_grid_by_hand(tiny_network):
    means = PIXELS.astype(np.float64).reshape(4, 4, 8, 4, 8, 3).mean((2, 4)) / 255  # [4, 4, 4, 3]
    pooled = Extractor(tiny_network, "random", 4).load()
    np.testing.assert_allclose(pooled(PIXELS), means.reshape(4, 48), atol=1e-6)
    grid = Extractor(tiny_network, "random", 4, grid=True).load()
    np.testing.assert_allclose(grid(PIXELS), means.reshape(4, 16, 3), atol=1e-6)
    assert grid.spec("float16").shape == (16, 3) and grid.spec("float16").layer == "pool"


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precisions_are_near_and_leave_keras_as_it_was(tiny_network, precision):
    exact = Extractor(tiny_network, "random", 4).load()(PIXELS)
    found = Extractor(tiny_network, "random", 4, precision=precision).load()(PIXELS)
    assert found.dtype == np.float32 and keras.config.dtype_policy().name == "float32"
    assert cosine(found, exact).min() > 0.9995 and not np.array_equal(found, exact)


def test_the_spec_builds_the_same_extractor_again(tiny_network):
    for grid in (False, True):
        spec = Extractor(tiny_network, "random", 4, grid, "bfloat16").spec("float16")
        again = extractors.of_spec(spec, "random", 8)
        assert (again.grid, again.precision, again.batch_size) == (grid, "bfloat16", 8)
        assert extractors.of_spec(spec, "random", 8, "float32").precision == "float32"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception_v3", "inception_v3_448", "vgg16", "efficientnet_v2_s"])
def test_registered_networks_have_the_shapes_they_say_and_equal_keras_own(name):
    """Through keras.applications' own preprocessing, from the same seeded weights."""
    network = registry.NETWORKS[name]
    pixels = np.random.default_rng(0).integers(0, 256, (2, network.size, network.size, 3), np.uint8)
    model = random_weights.build(network)
    for grid, endpoint in ((False, network.pooled), (True, network.grid)):
        output = model.get_layer(endpoint.layer).output if endpoint.layer else model.output
        expected = keras.Model(model.inputs, output).predict(network.preprocess(pixels.astype(np.float32)), verbose=0)
        found = Extractor(name, "random", 2, grid).load()(pixels)
        assert found.shape == (2, *endpoint.shape)
        np.testing.assert_allclose(
            found, expected.reshape(found.shape), rtol=1e-3, atol=1e-3 * float(np.abs(expected).max())
        )


def save(path, shape, function, dtype=tf.float32) -> str:
    module = tf.Module()
    module.weight = tf.Variable(2.0)
    module.serve = tf.function(
        lambda images: {"output": function(tf.cast(images, tf.float32)) * module.weight},
        input_signature=[tf.TensorSpec(shape, dtype, name="images")],
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    return str(path)


@pytest.mark.parametrize("dtype", [tf.float32, tf.uint8])
def test_a_saved_model_of_ones_own(tmp_path, dtype):
    path = save(tmp_path / "model", [None, 32, 32, 3], lambda images: tf.reduce_mean(images, (1, 2)), dtype)
    extractor = Extractor("saved_model", path, 4)
    spec = extractor.spec("float32")
    assert (extractor.size, spec.shape, spec.extractor, spec.weights) == (32, (3,), "saved_model", path)
    np.testing.assert_allclose(extractor.load()(PIXELS), 2 * PIXELS.mean((1, 2)), rtol=1e-5)
    other = save(tmp_path / "other", [None, 32, 32, 3], lambda images: tf.reduce_max(images, (1, 2)), dtype)
    assert Extractor("saved_model", other, 4).spec("float32").weights_digest != spec.weights_digest


def test_a_saved_model_with_a_map(tmp_path):
    path = save(tmp_path / "model", [None, 32, 32, 3], lambda images: images[:, ::16, ::8])
    extractor = Extractor("saved_model", path, 4, grid=True)
    assert extractor.shape == (2 * 4, 3)
    np.testing.assert_allclose(extractor.load()(PIXELS), 2.0 * PIXELS[:, ::16, ::8].reshape(4, 8, 3))


@pytest.mark.parametrize(
    ("shape", "grid", "precision", "message"),
    [
        ([None, None, None, 3], False, "float32", r"expected one input \[batch, size, size, 3\]"),
        ([None, 32, 16, 3], False, "float32", r"found \[None, 32, 16, 3\]"),
        ([None, 32, 32, 1], False, "float32", r"found \[None, 32, 32, 1\]"),
        ([None, 32, 32, 3], True, "float32", "--feature_grid: expected a map"),
        ([None, 32, 32, 3], False, "bfloat16", "--precision: a SavedModel runs as it was saved"),
    ],
)
def test_saved_models_that_do_not_fit(tmp_path, shape, grid, precision, message):
    path = save(tmp_path / "model", shape, lambda images: tf.reduce_mean(images, (1, 2)))
    with pytest.raises(InputError, match=message):
        Extractor("saved_model", path, 4, grid, precision)


def test_a_few_images_at_once_are_batches_of_few_sizes(tiny_network):
    """With the features that a worker gives, whose batches are all of one size."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    expected = Extractor(tiny_network, "random", 6).load()(pixels)
    extractor = Extractor(tiny_network, "random", 6, at_once=True).load()
    assert [extractor.rows(count) for count in range(1, 7)] == [1, 2, 4, 4, 6, 6]
    for size in (1, 2, 4, 6):
        np.testing.assert_allclose(extractor(pixels[:size]), expected[:size], rtol=1e-6)


def test_a_saved_model_of_one_batch_size_has_it_for_few_images_too(tmp_path):
    path = save(tmp_path / "model", [2, 32, 32, 3], lambda images: tf.reduce_mean(images, (1, 2)))
    extractor = Extractor("saved_model", path, 2, at_once=True).load()
    assert extractor.rows(1) == 2 and extractor(np.ones([2, 32, 32, 3], np.uint8)).shape == (2, 3)


def test_a_saved_model_of_another_batch_size(tmp_path):
    path = save(tmp_path / "model", [2, 32, 32, 3], lambda images: tf.reduce_mean(images, (1, 2)))
    assert Extractor("saved_model", path, 2).shape == (3,)
    with pytest.raises(InputError, match="found one of 2; give --batch_size 2"):
        Extractor("saved_model", path, 4)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("inception_v3:random", "imagenet", "--extractor: expected a network's name or saved_model:DIR, found"),
        ("saved_model:", "imagenet", "--extractor: expected a network's name or saved_model:DIR, found"),
        ("saved_model", "imagenet", "--extractor: expected a network's name or saved_model:DIR, found"),
        ("saved_model:x", "y.h5", "--weights: a SavedModel has its own, found y.h5"),
    ],
)
def test_flags_that_do_not_fit_each_other(name, weights, message):
    with pytest.raises(InputError, match=message):
        extractors.parse(name, weights, 4, False, "float32")


def test_directories_without_a_saved_model(tmp_path):
    with pytest.raises(InputError, match=r"--extractor saved_model:.*: expected a directory with saved_model.pb"):
        Extractor("saved_model", str(tmp_path), 4)
    (tmp_path / "saved_model.pb").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"expected a whole SavedModel, found .*saved_model.pb"):
        Extractor("saved_model", str(tmp_path), 4)


@pytest.mark.slow
def test_looking_at_a_saved_model_leaves_the_devices_to_the_workers(tmp_path):
    """In a process of its own: TensorFlow refuses to set threads once it has taken its devices into use."""
    path = save(tmp_path / "model", [None, 32, 32, 3], lambda images: tf.reduce_mean(images, (1, 2)))
    code = "import sys, tensorflow as tf\n"
    code += "from pipelines.vision.extractors import Extractor\n"
    code += "print(Extractor('saved_model', sys.argv[1], 4).spec('float16').shape)\n"
    code += "tf.config.threading.set_intra_op_parallelism_threads(1)\n"
    found = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "(3,)\n"), found.stderr


def test_a_saved_model_without_its_variables_is_told_of_when_it_is_loaded(tmp_path):
    path = save(tmp_path / "model", [None, 32, 32, 3], lambda images: tf.reduce_mean(images, (1, 2)))
    (tmp_path / "model/variables/variables.index").unlink()
    with pytest.raises(InputError, match=r"saved_model:.*: expected a whole SavedModel, found: .+") as error:
        Extractor("saved_model", path, 4).load()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda d: (d / "variables/variables.index").write_bytes(b"junk"),
        lambda d: (d / "variables/variables.data-00000-of-00001").write_bytes(b""),
        lambda d: (d / "saved_model.pb").unlink() or (d / "saved_model.pb").mkdir(),
        lambda d: (d / "saved_model.pb").write_bytes((d / "saved_model.pb").read_bytes()[:-9]),
        lambda d: (d / "assets/link").symlink_to("nowhere"),
        lambda d: os.mkfifo(d / "assets/pipe"),
    ],
)
def test_a_damaged_saved_model_is_told(tmp_path, break_it):
    path = save(tmp_path / "model", [None, 32, 32, 3], lambda images: tf.reduce_mean(images, (1, 2)))
    break_it(tmp_path / "model")
    with pytest.raises(InputError, match=r"^--extractor saved_model:.*: expected .*, found.*; (make it again|delete)"):
        extractor = Extractor("saved_model", path, 4)
        extractor.spec("float16")
        extractor.load()


def test_each_process_has_a_gpu_of_its_own_until_it_ends(tmp_path):
    """Processes of this test's own hold the locks, as worker processes would; no GPU is needed for that."""
    code = "from pipelines.vision.devices import claim\n"
    code += "import sys; print(claim(2, sys.argv[1]), flush=True); sys.stdin.read()"

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return process, int(process.stdout.readline())

    first, second = start(), start()
    assert (first[1], second[1]) == (0, 1)
    third = start()
    assert third[1] in (0, 1), "more processes than GPUs share them"
    first[0].kill()
    first[0].wait()
    fourth = start()
    assert fourth[1] == 0, "a killed process gives its GPU back"
    for process, _ in (second, third, fourth):
        process.communicate()


def test_a_process_that_loads_another_model_keeps_its_gpu(tmp_path):
    code = "from pipelines.vision.devices import claim\nimport sys; print(claim(2, sys.argv[1]), claim(2, sys.argv[1]))"
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert found.stdout == "0 0\n"


def test_passes_at_a_time_and_their_threads_fill_the_cores(monkeypatch):
    for cores, expected in ((1, 1), (2, 2), (4, 4), (64, 4)):
        monkeypatch.setattr(devices, "cores", lambda cores=cores: cores)
        assert devices.cpu_in_flight() == expected
