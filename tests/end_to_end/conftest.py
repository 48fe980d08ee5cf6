"""Images, a network and a model that keep the real commands busy for seconds, and what starts them."""

import pathlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from scripts import scenes
from tests.support import ROOT
from tests.support.small import train, write_features


@pytest.fixture(scope="session")
def many_images(tmp_path_factory) -> pathlib.Path:
    """COCO's layout with 400 images."""
    directory = tmp_path_factory.mktemp("many")
    scenes.write_coco(directory, train=380, val=20, size=(160, 120))
    return directory


@pytest.fixture(scope="session")
def network(tmp_path_factory) -> str:
    """A SavedModel of ten seeded convolutions: about 100 images/s on two cores."""
    generator = np.random.default_rng(0)
    module = tf.Module()
    sizes = [(3, 32), *[(32, 32)] * 9]
    module.kernels = [tf.Variable(generator.normal(0, 0.1, (3, 3, *size)).astype(np.float32)) for size in sizes]

    @tf.function(input_signature=[tf.TensorSpec([None, 128, 128, 3], tf.float32, name="images")])
    def serve(images):
        images = images / 255
        for kernel in module.kernels:
            images = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME"))
        return {"features": tf.reduce_mean(images, (1, 2))}

    module.serve = serve
    path = str(tmp_path_factory.mktemp("network") / "model")
    tf.saved_model.save(module, path, signatures={"serving_default": serve})
    return path


@pytest.fixture(scope="session")
def small_images(tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("small")
    scenes.write_coco(directory, train=80, val=20, size=(160, 120))
    return directory


@pytest.fixture(scope="session")
def model(network, many_images, tmp_path_factory) -> str:
    """An export for the features of the small network."""
    directory = tmp_path_factory.mktemp("model")
    write_features(directory / "features", f"saved_model:{network}", many_images, weights="imagenet", batch_size=8)
    train(directory / "features", directory / "job", epochs=2)
    return str(directory / "job/export")


@pytest.fixture(scope="session")
def mixture(many_images, tmp_path_factory) -> list[str]:
    """--images of two kinds: a directory, and a Parquet file that holds images itself."""
    paths = sorted((many_images / "val2017").iterdir())
    cells = pa.table({"image": [path.read_bytes() for path in paths], "name": [f"cell-{path.stem}" for path in paths]})
    table = tmp_path_factory.mktemp("table") / "cells.parquet"
    pq.write_table(cells, table, row_group_size=7)
    return [str(many_images / "train2017"), str(table)]


@pytest.fixture
def start_captions(network, model, mixture):
    """A function that starts the real command, 20 images a file."""

    def start(output, *flags) -> subprocess.Popen:
        command = [sys.executable, "-m", "pipelines.caption", "--images", *mixture, "--id_column", "name"]
        fixed = ["--model", model, "--weights", network, "--output", str(output), "--rows_per_file", "20"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(
            [*command, *fixed, "--batch_size", "8", "--format", "jsonl", "coco", *flags], cwd=ROOT, **pipes
        )

    return start


@pytest.fixture
def start_features(network):
    """A function that starts the real command, 20 images a shard."""

    def start(coco_dir, output, *flags) -> subprocess.Popen:
        command = [sys.executable, "-m", "pipelines.features", "--coco_dir", str(coco_dir), "--output", str(output)]
        fixed = ["--extractor", f"saved_model:{network}", "--min_word_count", "1", "--max_caption_length", "16"]
        sizes = ["--records_per_shard", "20", "--batch_size", "8"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([*command, *fixed, *sizes, *flags], cwd=ROOT, **pipes)

    return start
