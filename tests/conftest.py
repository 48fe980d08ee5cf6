"""Shared fixtures: a tiny drawn COCO set, a tiny network in place of Inception, and what the commands make of them."""

import gc
import os
import pathlib
import shutil
import signal
import time

import pytest

from scripts import scenes
from tests.support import commands
from tests.support.once import Once
from tests.support.small import TINY, train_without_java, write_features
from tfrecords_schema.networks import registry
from tfrecords_schema.quiet import import_tensorflow


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what it runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # else no child could be stopped by Ctrl-C
    config.addinivalue_line("markers", "java: scores with Java's programs too, where others in the file do not")
    config.addinivalue_line("markers", "engines: needs a cluster of another engine; run by `make test-engines`")
    config.addinivalue_line("markers", "slow: takes more than a few seconds; run by `make test-slow`")
    for message in ("__array__ implementation doesn't accept a copy", r"label\(\) is deprecated"):  # of Keras, of TFDS
        config.addinivalue_line("filterwarnings", f"ignore:{message}:DeprecationWarning")
    if not getattr(config.option, "numprocesses", None):  # which only hands tests out to others
        import_tensorflow()


def pytest_collection_modifyitems(items):
    """What takes longest first: a long module that came last would keep one process busy and the others idle."""
    long = ("tests/test_docs", "tests/end_to_end/test_object_stores", "tests/trainer/")
    items.sort(key=lambda item: next((place for place, name in enumerate(long) if name in item.nodeid), len(long)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """On a machine that crawls CI has a report of what was tested, in place of a run that was ended from outside."""
    if time.time() > float(os.environ.get("TESTS_END", "inf")):
        pytest.skip("no time was left for it (TESTS_END)")


def pytest_collection_finish(session):
    """What is imported by now stays: it is not looked through for garbage again and again."""
    if session.items and not getattr(session.config.option, "numprocesses", None):
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 20, 100)


def pytest_sessionfinish():
    """Else DuckDB complains at exit of what it finds still there."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Once:
    """A function that makes a directory once for all processes of this run; see tests/support/once.py."""
    return Once(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def coco_dir(once) -> pathlib.Path:
    """24 training and 8 validation images in COCO's layout; read only."""
    return once("coco", lambda directory: scenes.write_coco(directory, train=24, val=8, size=(96, 72)))


@pytest.fixture(scope="session")
def tiny_network():
    """The registry name of a network that loads in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.NETWORKS, "tiny", TINY)
        yield "tiny"


@pytest.fixture
def make_features(tiny_network, coco_dir, tmp_path):
    """A function that runs the real feature pipeline with the tiny network; keyword arguments are its flags."""

    def run(output=tmp_path / "features", **flags):
        report = write_features(output, tiny_network, flags.pop("coco_dir", coco_dir), **flags)
        return pathlib.Path(output), report

    return run


@pytest.fixture(scope="session")
def made_features(once, tiny_network, coco_dir) -> pathlib.Path:
    """What `make_features()` makes; read only."""
    return once("features", lambda directory: write_features(directory, tiny_network, coco_dir))


@pytest.fixture(scope="session")
def made_grid_features(once, tiny_network, coco_dir) -> pathlib.Path:
    """What `make_features(feature_grid=True)` makes, over a grid of 4 x 4 positions; read only."""
    return once("grid_features", lambda directory: write_features(directory, tiny_network, coco_dir, feature_grid=True))


@pytest.fixture
def features_dir(made_features, tmp_path) -> pathlib.Path:
    """A copy of a feature directory, to be broken."""
    return shutil.copytree(made_features, tmp_path / "features")


@pytest.fixture(scope="session")
def trained(once, made_features) -> pathlib.Path:
    """A directory with `features/` and a `job/` of three epochs, made by the real commands; read only."""

    def make(directory: pathlib.Path) -> None:
        shutil.copytree(made_features, directory / "features")
        train_without_java(made_features, directory / "job", epochs=3)

    return once("trained", make)


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
def attentive(once, made_grid_features) -> pathlib.Path:
    """As `trained`, with attention; read only."""

    def make(directory: pathlib.Path) -> None:
        shutil.copytree(made_grid_features, directory / "features")
        settings = {"epochs": 2, "attention": "bahdanau", "attention_units": 8}
        train_without_java(made_grid_features, directory / "job", **settings)

    return once("attentive", make)
