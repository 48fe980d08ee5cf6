"""Feature directories as they are found: here or in a store, made once or made again."""

import json
import os
import shutil

import pytest

from tests.support.shelf import SHELF, ShelfFileSystem
from tfrecords_schema.errors import InputError
from trainer.data.dataset import open_directory


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setattr(ShelfFileSystem, "root", str(tmp_path / "shelf"))
    return tmp_path / "shelf"


@pytest.mark.slow
def test_a_vocabulary_that_a_rerun_changed_is_found_by_its_name(trained, shelf):
    """Also in the copy of a remote directory."""
    shutil.copytree(trained / "features", shelf / "features")
    (shelf / "features/vocabulary.txt").rename(shelf / "features/vocabulary-b.txt")
    path = shelf / "features/features_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocabulary_file": "vocabulary-b.txt"}))
    expected = open_directory(str(trained / "features"))
    local, remote = open_directory(str(shelf / "features")), open_directory(f"{SHELF}features")
    assert local.vocabulary.words == remote.vocabulary.words == expected.vocabulary.words
    again = open_directory(remote.path)
    assert again.vocabulary.words == expected.vocabulary.words and again.info == remote.info


def test_a_shard_that_cannot_be_looked_at_is_told(features_dir):
    shard = sorted(features_dir.glob("val-*"))[0]
    shard.unlink()
    shard.symlink_to(shard.name)
    with pytest.raises(InputError, match=f"{shard.name}: expected a file that can be read, found: .*symbolic links"):
        open_directory(str(features_dir))


def test_a_pipe_in_place_of_a_shard_is_told(features_dir):
    """It has as many bytes as features_info.json says, none."""
    shard = sorted(features_dir.glob("val-*"))[0]
    path = features_dir / "features_info.json"
    path.write_text(path.read_text().replace(f'"bytes": {shard.stat().st_size}', '"bytes": 0'))
    shard.unlink()
    os.mkfifo(shard)
    with (
        open(os.open(shard, os.O_RDWR)),
        pytest.raises(InputError, match=r"expected 0 bytes, found .* a pipe or a device"),
    ):
        open_directory(str(features_dir))
