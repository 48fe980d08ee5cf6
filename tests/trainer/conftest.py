"""Fixtures of the trainer's tests."""

import pytest

from tests.support.small import write_features


@pytest.fixture
def no_java(monkeypatch):
    """A PATH without Java, and without anything else."""
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.fixture(scope="session")
def data(once, tiny_network, coco_dir):
    """A feature directory with three training shards; read only."""
    return once("data", lambda directory: write_features(directory, tiny_network, coco_dir, records_per_shard=8))
