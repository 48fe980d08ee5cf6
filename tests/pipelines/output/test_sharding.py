"""One shard, asked for again: by an engine after a worker's death, and by a later run."""

import dataclasses
import os
import pickle

import pytest

from pipelines.items import Item
from pipelines.listing.catalogue import open_catalogue
from pipelines.listing.table import Listing
from pipelines.output import sidecars
from pipelines.output.names import Present
from pipelines.output.sharding import ProcessShard
from tests.support.lines import Lines

NAME = "train-00000-of-00001.txt"


def images(*ids, **of):
    return [Item(i, f"a/{i}.jpg", (of.get(i, "x"),), None, "train", "v1", n) for n, i in enumerate(ids)]


@pytest.fixture
def run(tmp_path):
    """Makes the shard of some images as a run does: (its result, the ids that were computed, the file's lines)."""
    (tmp_path / ".work").mkdir()

    def run(items, bad=None, earlier=None):
        maker = Lines(bad)
        listing = Listing(str(tmp_path), {"train": 1})
        with open_catalogue() as catalogue:
            catalogue.add(items)
            listing.write(catalogue, lambda split, number: (NAME, earlier))
        do_fn = ProcessShard(maker, listing, {}, {})
        do_fn.setup()
        (result,) = do_fn.process(("train", 0))
        run.do_fn = do_fn
        return result, sorted(maker.made), (tmp_path / ".work/finished" / NAME).read_text().splitlines()

    return run


def test_a_retry_in_the_same_run_finds_what_was_made_and_says_so(run, tmp_path):
    first, _, _ = run(images("1", "2"))
    inode = os.stat(tmp_path / ".work/finished" / NAME).st_ino
    again = pickle.loads(pickle.dumps(run.do_fn))
    again.setup()
    assert list(again.process(("train", 0))) == [first] and first.kept == 0 and first.records == 2
    assert os.stat(tmp_path / ".work/finished" / NAME).st_ino == inode, "the file was not written again"


def test_a_later_run_says_that_an_earlier_one_made_it(run):
    first, made, _ = run(images("1", "2"))
    later, not_made, _ = run(images("2", "1"))
    assert (made, not_made) == (["1", "2"], [])
    assert later == dataclasses.replace(first.reused(0)) and later.left and later.kept == 2


def test_only_images_that_are_new_or_changed_are_computed(run):
    _, _, before = run(images(*"abcdefg"))
    result, made, after = run(images(*"abcdefgh", c="y"))
    assert made == ["c", "h"] and (result.kept, result.retried, result.inputs, result.left) == (6, 0, 8, False)
    assert sorted(after) == sorted([*(line for line in before if line != "c x"), "c y", "h x"])
    fewer, made, lines = run(images(*"bd"))
    assert made == [] and fewer.kept == 2 and sorted(lines) == ["b x", "d x"]


def test_rejects_of_the_image_are_kept_and_those_of_reading_are_tried_again(run, tmp_path):
    """A file that cannot be read now may be there next time; one that is no image is none until it changes."""
    bad = {"b": "decode", "c": "read", "f": "read"}
    first, _, _ = run(images(*"abcdef"), bad)
    assert (first.records, first.rejects) == (3, 3)
    result, made, _ = run(images(*"abcdefg"), {"f": "read"})
    assert made == ["c", "f", "g"] and (result.kept, result.retried, result.rejects) == (4, 2, 2)
    found = sidecars.read(str(tmp_path), NAME)
    assert {reject.image_id: reject.stage for reject in found.rejects} == {"b": "decode", "f": "read"}
    changed = [dataclasses.replace(item, version="v2") if item.id == "b" else item for item in images(*"abcdefg")]
    assert run(changed, {"f": "read"})[1] == ["b", "f"]


def test_a_damaged_sidecar_or_file_is_made_again(run, tmp_path):
    run(images("1", "2"))
    (tmp_path / ".work/finished" / NAME).write_text("cut")
    result, made, _ = run(images("1", "2"))
    assert made == ["1", "2"] and result.kept == 0


def test_names_for_what_a_rerun_replaces():
    present = Present({}, {"train": 2}, {}, frozenset({"train-00000-of-00002.x", "train-00001-of-00002-b.x"}))
    names = present.names({"train": 2}, ".x")
    assert names("train", 0)[0] == "train-00000-of-00002-b.x"
    assert names("train", 1)[0] == "train-00001-of-00002.x"


def test_the_first_run_decides_how_many_shards_there_are(capsys):
    present = Present({}, {"train": 2}, {}, frozenset())
    assert present.shard_counts({"train": 2500, "val": 10}, 1000) == {"train": 2, "val": 1}
    assert not capsys.readouterr().err
    assert present.shard_counts({"train": 9000}, 1000) == {"train": 2}
    assert (
        "train: 9,000 images stay in 2 files, the number that the first run chose; --overwrite would make 9"
        in capsys.readouterr().err
    )
