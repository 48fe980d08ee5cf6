"""Zip files through listing and captioning: members of one are read together, and those that come move no others."""

import pathlib
import shutil
import zipfile

import pytest

from pipelines.listing.catalogue import open_catalogue
from pipelines.listing.table import Listing
from pipelines.sources.image_sets import ImageSets
from pipelines.storage import archives
from tests.support.outputs import content, rows


def write(path: pathlib.Path, names: list[str], content: bytes = b"x") -> None:
    with zipfile.ZipFile(path, "a") as archive:
        for name in names:
            archive.writestr(name, content)


def shards_of(tmp_path: pathlib.Path, count: int) -> list[list[str]]:
    """The URIs in each shard of a listing of all zip files there, ten members together."""
    listing = Listing(str(tmp_path / "out"), {"captions": count})
    source = ImageSets((f"{tmp_path}/*.zip",), rows_together=10)
    with open_catalogue(source.metadata_fields()) as catalogue:
        source.list_into(catalogue)
        listing.write(catalogue, lambda split, number: ("", None))
    return [[item.uri for item in listing.shard("captions", number).items] for number in range(count)]


def test_members_of_one_file_are_in_few_shards(tmp_path):
    """By their ids alone 40 files would be in nearly all of 120 shards each, and read by all of their workers."""
    for number in range(40):
        write(tmp_path / f"{number:02}.zip", [f"{number} {member * 7 % 30:02}.jpg" for member in range(30)])
    shards = shards_of(tmp_path, 120)
    assert sum(map(len, shards)) == 1200
    files = [{archives.parse_uri(uri)[0] for uri in shard} for shard in shards]
    assert sum(map(len, files)) == 40 * 3
    for number in range(40):
        runs = [{uri for uri in shard if f"/{number:02}.zip!" in uri} for shard in shards]
        assert [len(run) for run in runs if run] == [10] * 3


@pytest.mark.parametrize("name", ["0.jpg", "z.jpg"])
def test_what_is_added_moves_nothing(tmp_path, name):
    """A file beside others, and a member behind the others, whatever its name."""
    for number in range(5):
        write(tmp_path / f"{number}.zip", [f"{number} {member}.jpg" for member in range(30)])
    before = shards_of(tmp_path, 15)
    write(tmp_path / "2.zip", [name])
    write(tmp_path / "10.zip", [name])
    after = shards_of(tmp_path, 15)
    new = {f"{tmp_path}/{file}.zip!/{name}" for file in (2, 10)}
    assert [[uri for uri in shard if uri not in new] for shard in after] == before
    assert sum(map(len, after)) == 152


def test_a_rerun_computes_only_what_was_added(run, coco_dir, tmp_path):
    paths = sorted((coco_dir / "val2017").iterdir())
    for number in (0, 1):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            for path in paths[4 * number : 4 * number + 3]:
                archive.write(path, path.name)
    flags = {"images": [f"{tmp_path}/*.zip"], "rows_per_file": 2}
    run(**flags)
    with zipfile.ZipFile(tmp_path / "0.zip", "a") as archive:
        archive.write(paths[3], "0.jpg")
    output, report = run(**flags)
    assert (report["kept"], report["new"], report["rejects"]) == (6, 1, 0)
    expected = shutil.copytree(output, tmp_path / "copy")
    _, report = run(**flags)
    assert report["kept"] == 7 and content(output) == content(expected)
    assert len(rows(output)) == 7
