"""One shard, asked for again: by an engine after a worker's death, and by a later run."""

import os
import pickle

import pytest

from pipelines.items import Item
from pipelines.output.sharding import ProcessShard, Written


class Names:
    """Writes each image's id in a line."""

    suffix, keeps_features, joins_parts = ".txt", False, False

    def load(self):
        raise AssertionError("nothing to load")

    def follows_from(self, context):
        return context

    def make(self, job):
        for item in job.items:
            job.handle.write(f"{item.id}\n".encode())
        yield Written(len(job.items), 0)


ITEMS = [Item("1", "a/1.jpg"), Item("2", "a/2.jpg"), None]


@pytest.fixture
def process(tmp_path):
    """Makes a DoFn for the same directory, as a run does."""
    (tmp_path / ".work").mkdir()
    return lambda: ProcessShard(Names(), str(tmp_path), {}, {})


def test_a_retry_in_the_same_run_finds_what_was_made_and_says_so(process, tmp_path):
    do_fn = process()
    (first,) = do_fn.process(("train-00000-of-00001.txt", ITEMS))
    inode = os.stat(tmp_path / first.name).st_ino
    (again,) = pickle.loads(pickle.dumps(do_fn)).process(("train-00000-of-00001.txt", ITEMS[::-1]))
    assert again == first and again.kept == "" and again.records == 2
    assert os.stat(tmp_path / first.name).st_ino == inode, "the file was not written again"


def test_a_later_run_says_that_an_earlier_one_made_it(process):
    (first,) = process().process(("train-00000-of-00001.txt", ITEMS))
    (later,) = process().process(("train-00000-of-00001.txt", ITEMS))
    assert later.kept == "shard" and later.seconds == 0 and later.sha256 == first.sha256
