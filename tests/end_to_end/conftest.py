"""Images, a network and a model that keep the real commands busy for seconds, and what starts them."""

import pathlib
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts import scenes
from tests.support import ROOT
from tests.support.processes import finish
from tests.support.small import train_without_java, write_features
from tfrecords_schema.quiet import import_tensorflow


@pytest.fixture(scope="session")
def many_images(once) -> pathlib.Path:
    """COCO's layout with 400 images."""
    return once("many_images", lambda directory: scenes.write_coco(directory, train=380, val=20, size=(160, 120)))


@pytest.fixture(scope="session")
def network(once) -> str:
    """A SavedModel of ten seeded convolutions: about 100 images/s on two cores."""
    return str(once("network", _write_network))


def _write_network(directory: pathlib.Path) -> None:
    tf = import_tensorflow()
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
    tf.saved_model.save(module, str(directory), signatures={"serving_default": serve})


@pytest.fixture(scope="session")
def small_images(once) -> pathlib.Path:
    """COCO's layout with 100 images."""
    return once("small_images", lambda directory: scenes.write_coco(directory, train=80, val=20, size=(160, 120)))


@pytest.fixture(scope="session")
def model(once, network, small_images) -> str:
    """An export for the features of the small network."""

    def make(directory: pathlib.Path) -> None:
        own = {"weights": "imagenet", "batch_size": 8}  # a SavedModel has its own
        write_features(directory / "features", f"saved_model:{network}", small_images, **own)
        train_without_java(directory / "features", directory / "job", epochs=2)

    return str(once("model", make) / "job/export")


@pytest.fixture(scope="session")
def mixture(once, many_images) -> list[str]:
    """--images of two kinds: a directory, and a Parquet file that holds images itself."""

    def make(directory: pathlib.Path) -> None:
        paths = sorted((many_images / "val2017").iterdir())
        cells = {"image": [path.read_bytes() for path in paths], "name": [f"cell-{path.stem}" for path in paths]}
        pq.write_table(pa.table(cells), directory / "cells.parquet", row_group_size=7)

    return [str(many_images / "train2017"), str(once("mixture", make) / "cells.parquet")]


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def start_features(network):
    """A function that starts the real command, 20 images a shard."""

    def start(coco_dir, output, *flags) -> subprocess.Popen:
        command = [sys.executable, "-m", "pipelines.features", "--coco_dir", str(coco_dir), "--output", str(output)]
        fixed = ["--extractor", f"saved_model:{network}", "--min_word_count", "1", "--max_caption_length", "16"]
        sizes = ["--records_per_shard", "20", "--batch_size", "8"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([*command, *fixed, *sizes, *flags], cwd=ROOT, **pipes)

    return start


@pytest.fixture(scope="session")
def undisturbed_features(once, start_features, many_images) -> pathlib.Path:
    """What `start_features` makes of the many images when nothing happens; read only. Beside it: in what time."""

    def make(directory: pathlib.Path) -> None:
        began = time.monotonic()
        finish(start_features(many_images, directory / "features"))
        (directory / "seconds").write_text(str(time.monotonic() - began))

    return once("undisturbed_features", make) / "features"


@pytest.fixture(scope="session")
def small_features(once, start_features, small_images) -> pathlib.Path:
    """What `start_features` makes of the small set of images; read only."""
    return once("small_features", lambda directory: finish(start_features(small_images, directory)))


@pytest.fixture(scope="session")
def undisturbed_captions(once, start_captions) -> pathlib.Path:
    """What `start_captions` makes when nothing happens; read only."""
    return once("undisturbed_captions", lambda directory: finish(start_captions(directory)))
