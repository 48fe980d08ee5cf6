"""Shared fixtures: a tiny drawn COCO set, and a tiny network in place of Inception."""

import pathlib
import shutil

import pytest

from pipelines.vision import networks
from scripts import scenes
from tfrecords_schema.quiet import import_tensorflow


def pytest_configure(config):
    config.addinivalue_line("markers", "java: scores with Java's programs too, where others in the file do not")
    config.addinivalue_line("markers", "engines: needs a cluster of another engine; run by `make test-engines`")
    config.addinivalue_line("markers", "slow: takes more than a few seconds; run by `make test-slow`")
    import_tensorflow()


@pytest.fixture(scope="session")
def coco_dir(tmp_path_factory) -> pathlib.Path:
    """24 training and 8 validation images in COCO's layout; read only."""
    directory = tmp_path_factory.mktemp("coco")
    scenes.write_coco(directory, train=24, val=8, size=(96, 72))
    return directory


def _tiny_model(weights):
    """Mean colours of an 4 x 4 grid, by one fixed layer: a network whose result can be computed by hand."""
    import keras

    inputs = keras.Input([32, 32, 3])
    return keras.Model(inputs, keras.layers.Flatten()(keras.layers.AveragePooling2D(8, name="pool")(inputs)))


TINY = networks.Network(
    build=_tiny_model,
    preprocess=lambda pixels: pixels / 255,
    size=32,
    pooled=networks.Endpoint("means", (48,)),
    grid=networks.Endpoint("pool", (16, 3), layer="pool"),
    keras_file=("none.h5", "none"),
)


@pytest.fixture(scope="session")
def tiny_network():
    """The registry name of a network that loads in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, "tiny", TINY)
        yield "tiny"


def write_features(output, extractor, coco_dir, **flags) -> dict:
    """Runs the real feature pipeline, with settings for tiny data; `flags` are further arguments of its run()."""
    from pipelines import features

    given = {
        "coco_dir": coco_dir and str(coco_dir),
        "weights": "random",
        "min_word_count": 1,
        "max_caption_length": 16,
        **flags,
    }
    return features.run(output=str(output), extractor=extractor, **given)


@pytest.fixture
def make_features(tiny_network, coco_dir, tmp_path):
    """A function that runs the real feature pipeline with the tiny network; keyword arguments are run()'s."""

    def run(output=tmp_path / "features", **flags):
        report = write_features(output, tiny_network, flags.pop("coco_dir", coco_dir), **flags)
        return pathlib.Path(output), report

    return run


# Training flags for a decoder small enough to learn something in seconds.
SMALL = {
    "units": 16,
    "embedding_dim": 16,
    "batch_size": 8,
    "learning_rate": 0.02,
    "embedding_dropout": 0.0,
    "output_dropout": 0.0,
    "patience": 99,
}


def training_flags(**changes) -> dict:
    """Every setting as the command line would give it, at small sizes; keyword arguments of `task.run`."""
    from trainer import task

    defaults = vars(task.parser().parse_args(["--data", "", "--job_dir", ""]))
    return {name: value for name, value in {**defaults, **SMALL, **changes}.items() if name not in ("data", "job_dir")}


@pytest.fixture(scope="session")
def trained(tiny_network, coco_dir, tmp_path_factory) -> pathlib.Path:
    """A directory with `features/` and `job/export/`, made by the real commands; read only."""
    from trainer import task

    directory = tmp_path_factory.mktemp("trained")
    write_features(directory / "features", tiny_network, coco_dir)
    task.run(data=str(directory / "features"), job_dir=str(directory / "job"), **training_flags(epochs=3))
    return directory


@pytest.fixture
def export_dir(trained, tmp_path) -> str:
    """A copy of the export, to be read or broken."""
    return str(shutil.copytree(trained / "job/export", tmp_path / "export"))


@pytest.fixture
def run(coco_dir, export_dir, tmp_path):
    """A function that runs the real caption pipeline, over the validation images; keyword arguments are run()'s."""
    from pipelines import caption

    def run(output=tmp_path / "captions", **changes):
        images = {} if "features" in changes else {"images": [f"{coco_dir}/val2017/*.jpg"]}
        return pathlib.Path(output), caption.run(output=str(output), **{"model": export_dir, **images, **changes})

    return run


@pytest.fixture(scope="session")
def attentive(tiny_network, coco_dir, tmp_path_factory) -> pathlib.Path:
    """As `trained`, with attention over a grid of 4 x 4 positions; read only."""
    from trainer import task

    directory = tmp_path_factory.mktemp("attentive")
    write_features(directory / "features", tiny_network, coco_dir, feature_grid=True)
    flags = training_flags(epochs=2, attention="bahdanau", attention_units=8)
    task.run(data=str(directory / "features"), job_dir=str(directory / "job"), **flags)
    return directory
