"""Shared fixtures: a tiny drawn COCO set, and a tiny network in place of Inception."""

import pathlib
import shutil
import signal

import pytest

from pipelines.vision import networks
from scripts import scenes
from tests.support import commands
from tests.support.small import TINY, train, write_features
from tfrecords_schema.quiet import import_tensorflow


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what it runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # else no child could be stopped by Ctrl-C
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


@pytest.fixture(scope="session")
def tiny_network():
    """The registry name of a network that loads in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, "tiny", TINY)
        yield "tiny"


@pytest.fixture
def make_features(tiny_network, coco_dir, tmp_path):
    """A function that runs the real feature pipeline with the tiny network; keyword arguments are its flags."""

    def run(output=tmp_path / "features", **flags):
        report = write_features(output, tiny_network, flags.pop("coco_dir", coco_dir), **flags)
        return pathlib.Path(output), report

    return run


@pytest.fixture(scope="session")
def trained(tiny_network, coco_dir, tmp_path_factory) -> pathlib.Path:
    """A directory with `features/` and `job/export/`, made by the real commands; read only."""
    directory = tmp_path_factory.mktemp("trained")
    write_features(directory / "features", tiny_network, coco_dir)
    train(directory / "features", directory / "job", epochs=3)
    return directory


@pytest.fixture
def export_dir(trained, tmp_path) -> str:
    """A copy of the export, to be read or broken."""
    return str(shutil.copytree(trained / "job/export", tmp_path / "export"))


@pytest.fixture
def run(coco_dir, export_dir, tmp_path):
    """A function that runs the real caption pipeline, over the validation images; keyword arguments are its flags."""

    def run(output=tmp_path / "captions", **changes):
        images = {} if "features" in changes else {"images": [f"{coco_dir}/val2017/*.jpg"]}
        return pathlib.Path(output), commands.caption(output=str(output), **{"model": export_dir, **images, **changes})

    return run


@pytest.fixture(scope="session")
def attentive(tiny_network, coco_dir, tmp_path_factory) -> pathlib.Path:
    """As `trained`, with attention over a grid of 4 x 4 positions; read only."""
    directory = tmp_path_factory.mktemp("attentive")
    write_features(directory / "features", tiny_network, coco_dir, feature_grid=True)
    train(directory / "features", directory / "job", epochs=2, attention="bahdanau", attention_units=8)
    return directory
