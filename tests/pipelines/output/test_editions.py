"""After a rerun that leaves some shards as they were, the shards of a split have names that end alike."""

import hashlib
import json
import os
import shutil

import pyarrow.parquet as pq
import pytest

from pipelines.output import steps
from tests.support.outputs import content, read_split
from tfrecords_schema.manifests.features_info import FeaturesInfo


@pytest.fixture
def grow(coco_dir, tmp_path):
    """A copy of the set, and a function that adds a caption, the commonest word, to one of its images."""
    coco = shutil.copytree(coco_dir, tmp_path / "coco")

    def grow() -> None:
        path = coco / "annotations/captions_train2017.json"
        captions = json.loads(path.read_text())
        captions["annotations"].append({"image_id": captions["images"][0]["id"], "caption": "a"})
        path.write_text(json.dumps(captions))

    return coco, grow


def check(output, ending: str) -> FeaturesInfo:
    """Every file is there that is named, with its own bytes and its sidecar, and no other."""
    info = FeaturesInfo.loads((output / "features_info.json").read_text())
    named = [shard for split in info.splits.values() for shard in split.shards]
    expected = {f"train-{number:05d}-of-00003{ending}.tfrecord" for number in range(3)} | {
        "val-00000-of-00001.tfrecord"
    }
    listed = pq.read_table(output / json.loads((output / "report.json").read_text())["files"][".shards/list.parquet"])
    sidecars = {path.name.removesuffix(".parquet") for path in output.glob(".shards/*.tfrecord.parquet")}
    files = {path.name for path in output.glob("*.tfrecord")}
    assert expected == files == sidecars == {shard.name for shard in named} == set(listed["name"].to_pylist())
    for shard in named:
        data = (output / shard.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
    assert len(read_split(output, "train")) == 24
    return info


@pytest.mark.slow
@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_shards_that_are_left_get_the_ending_of_the_others(make_features, grow, tmp_path, monkeypatch, links):
    coco, more = grow

    def no_link(*_):
        raise PermissionError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    flags = {"coco_dir": coco, "records_per_shard": 10}
    output, _ = make_features(**flags)
    check(output, "")
    for ending in ("-b", "", "-b"):
        more()
        _, report = make_features(**flags)
        assert (report["shards"], report["shards_left"], report["kept"]) == (4, 3, 32)
        check(output, ending)
    _, report = make_features(**flags)
    assert report["shards_left"] == 4
    check(output, "-b")
    assert content(output) == content(make_features(tmp_path / "anew", **flags)[0])


@pytest.mark.parametrize("killed_after", ["link", "publish"])
def test_publishing_again_finds_what_was_renamed(make_features, grow, monkeypatch, killed_after):
    """By the same run, as engines may ask, when all that is stale was deleted; and by the next one."""
    coco, more = grow
    flags = {"coco_dir": coco, "records_per_shard": 10}
    output, _ = make_features(**flags)
    more()
    call, link = steps._call, os.link

    def twice(*arguments, **context):
        for stale in list(call(*arguments, **context)):
            steps.files.delete(*stale)
        yield from call(*arguments, **context)

    def links_and_dies(*given):
        link(*given)
        raise RuntimeError("killed")

    if killed_after == "publish":
        monkeypatch.setattr(steps, "_call", twice)
        make_features(**flags)
        check(output, "-b")
        return
    before = (output / "features_info.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", links_and_dies)
        with pytest.raises(Exception, match="killed"):
            make_features(**flags)
    assert (output / "features_info.json").read_bytes() == before and len(read_split(output, "train")) == 24
    make_features(**flags)
    check(output, "-c")
