"""Copies on this machine's disk that several runs make at the same time."""

import concurrent.futures
import hashlib
import pathlib
import threading

from tests.support.shelf import SHELF, ShelfFileSystem
from tfrecords_schema.manifests.features_info import ShardInfo
from tfrecords_schema.storage import copies


def test_runs_that_begin_together_have_one_copy_of_their_features(tmp_path, monkeypatch):
    """In threads here, which have one process number, as those of containers on one disk may be."""
    monkeypatch.setattr(ShelfFileSystem, "root", str(tmp_path / "shelf"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "shelf/data").mkdir(parents=True)
    contents = {f"train-{number:05d}-of-00004.tfrecord": bytes([number]) * 300_000 for number in range(4)}
    for name, content in contents.items():
        (tmp_path / "shelf/data" / name).write_bytes(content)
    shards = [
        ShardInfo(name, 1, 1, len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()
    ]
    together = threading.Barrier(3)

    def copied(round_: int) -> str:
        texts = {"features_info.json": f"{round_}" * 100_000, "vocabulary.txt": "word\n" * 10_000}
        together.wait(60)
        return copies.feature_directory(f"{SHELF}data", texts, shards)

    for round_ in range(5):
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            (made,) = {future.result(60) for future in [pool.submit(copied, round_) for _ in range(3)]}
        found = {path.name: path.read_bytes() for path in pathlib.Path(made).iterdir() if path.is_file()}
        assert {name: found.pop(name) for name in contents} == contents
        assert found == {"features_info.json": f"{round_}".encode() * 100_000, "vocabulary.txt": b"word\n" * 10_000}
