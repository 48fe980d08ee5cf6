"""The real network, and the real demo."""

import json
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest

from pipelines.vision import extractors
from tests.support import ROOT
from tfrecords_schema.errors import InputError
from tfrecords_schema.networks import random_weights, registry


@pytest.mark.slow
def test_features_equal_keras_own(tmp_path):
    """Through a weights file, as a user gives one, and Keras' own preprocessing."""
    model = random_weights.build(registry.NETWORKS["inception_v3"])
    path = str(tmp_path / "inception.weights.h5")
    model.save_weights(path)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 299, 299, 3), np.uint8)
    expected = model.predict(keras.applications.inception_v3.preprocess_input(pixels.astype(np.float32)), verbose=0)
    found = extractors.Extractor("inception_v3", path, batch_size=4).load()(pixels)
    assert found.shape == (4, 2048)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.99999

    random = extractors.Extractor("inception_v3", "random", batch_size=4).load()(pixels)
    np.testing.assert_allclose(random, expected, rtol=1e-3, atol=1e-3)


def test_weights_digests_tell_files_apart(tmp_path):
    for name in ("a", "b"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file[name] = 1
    digests = {
        extractors.Extractor("inception_v3", str(weights), 1).spec("float16").weights_digest
        for weights in (tmp_path / "a.h5", tmp_path / "b.h5", "random")
    }
    assert len(digests) == 3


def test_imagenet_weights_come_from_keras_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    file = tmp_path / "models" / registry.NETWORKS["inception_v3"].keras_file[0]
    file.parent.mkdir()
    file.write_bytes(b"cached")
    assert registry.weights_file("inception_v3", "imagenet") == str(file)


def test_imagenet_weights_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("URL fetch failure on https://…: Name or service not known")

    monkeypatch.setattr(keras.utils, "get_file", offline)
    with pytest.raises(
        InputError, match=r"--weights imagenet: not in .*models and the download failed.*--weights FILE"
    ):
        registry.weights_file("inception_v3", "imagenet")


@pytest.mark.slow
def test_the_demo_names_size_colour_and_shape_of_unseen_images(tmp_path):
    """`make demo`, whole: the three commands, real Inception; at least 90 of 100 captions must be right."""
    from PIL import Image

    command = [sys.executable, "-m", "scripts.demo", "--output", str(tmp_path / "demo"), "--min_right", "0"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=1500)
    result = json.loads((tmp_path / "demo/result.json").read_text())
    assert result["unseen"] == 100 and result["share"] >= 0.9
    assert Image.open(tmp_path / "demo/gallery.png").height > 1000
