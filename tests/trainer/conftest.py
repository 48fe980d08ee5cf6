"""Fixtures of the trainer's tests."""

import pytest

from tests.support import tunable
from tests.support.small import write_features
from tfrecords_schema.networks import registry


@pytest.fixture
def no_java(monkeypatch):
    """A PATH without Java, and without anything else."""
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.fixture(scope="session")
def tunable_network():
    """A network of the registry that can be fine-tuned; see tests/support/tunable.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.NETWORKS, tunable.NAME, tunable.NETWORK)
        yield


@pytest.fixture(scope="session")
def data(once, tiny_network, coco_dir):
    """A feature directory with three training shards; read only."""
    return once("data", lambda directory: write_features(directory, tiny_network, coco_dir, records_per_shard=8))
