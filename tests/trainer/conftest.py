"""Fixtures of the trainer's tests."""

import pytest

from tests.support.small import write_features


@pytest.fixture
def no_java(monkeypatch):
    """A PATH without Java, and without anything else."""
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.fixture(scope="session")
def data(tiny_network, coco_dir, tmp_path_factory):
    """A feature directory with three training shards; read only."""
    output = tmp_path_factory.mktemp("data") / "features"
    write_features(output, tiny_network, coco_dir, records_per_shard=8)
    return output
