"""Tar shards through the whole caption pipeline: the same captions as of files, and what a rerun computes."""

import json
import pathlib

import pyarrow.parquet as pq
import pytest

from pipelines.vision import reading
from tests.support import tar_files
from tests.support.outputs import content, rows


@pytest.fixture
def shards(coco_dir, tmp_path) -> pathlib.Path:
    """A directory with the 8 validation images in 00000.tar and 00001.tar, their number in JSON."""
    images = sorted((coco_dir / "val2017").iterdir())
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        write(tmp_path / f"shards/{shard:05}.tar", images[4 * shard : 4 * shard + 4])
    return tmp_path / "shards"


def write(path: pathlib.Path, images: list[pathlib.Path]) -> None:
    members = []
    for number, image in enumerate(images):
        members += [(image.name, image.read_bytes()), (f"{image.stem}.json", json.dumps({"number": number}).encode())]
    tar_files.write(path, members)


def test_captions_are_those_of_the_files(run, shards, tmp_path):
    expected = rows(run()[0])
    given = f"{shards}/{{00000..00001}}.tar"
    output, report = run(tmp_path / "tars", images=[given], metadata_columns=["number"], rows_per_file=3)
    found = rows(output)
    assert (report["inputs"], report["records"], report["rejects"]) == (8, 8, 0) and found.keys() == expected.keys()
    for key, row in found.items():
        scores = [[one["log_prob"] for one in each["captions"]] for each in (row, expected[key])]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)  # in other batches, so rounded otherwise
        assert [one["caption"] for one in row["captions"]] == [one["caption"] for one in expected[key]["captions"]]
        assert row["image_uri"].endswith(f"/{key}.jpg")
        assert reading.read(row["image_uri"]) == pathlib.Path(expected[key]["image_uri"]).read_bytes()
    assert [found[key]["number"] for key in sorted(found)] == [0, 1, 2, 3] * 2
    _, report = run(tmp_path / "tars", images=[given], metadata_columns=["number"], rows_per_file=3)
    assert report["kept"] == 8


def test_a_rerun_computes_shards_that_are_new_or_others(run, shards, coco_dir, tmp_path):
    run(images=[f"{shards}/*.tar"])
    write(shards / "00001.tar", sorted((coco_dir / "val2017").iterdir())[5:8])
    write(shards / "00002.tar", sorted((coco_dir / "train2017").iterdir())[:2])
    output, report = run(images=[f"{shards}/*.tar"])
    assert (report["inputs"], report["records"], report["kept"]) == (9, 9, 4)
    assert content(output) == content(run(tmp_path / "anew", images=[f"{shards}/*.tar"])[0])


def test_a_damaged_shard_costs_no_others(run, shards):
    data = (shards / "00001.tar").read_bytes()
    (shards / "00001.tar").write_bytes(data[: len(data) // 2])
    output, report = run(images=[f"{shards}/*.tar"], max_reject_fraction=0.5)
    assert report["rejects"] == 1 and 4 < report["records"] < 8 and report["inputs"] == report["records"] + 1
    (reject,) = pq.read_table(output / "rejects/captions.parquet").to_pylist()
    assert (reject["image_uri"], reject["error"]) == (str(shards / "00001.tar"), "BadEntry")


def test_a_dry_run_tells_their_images_and_bytes(run, shards, coco_dir, tmp_path):
    _, found = run(tmp_path / "none", images=[f"{shards}/*.tar"], dry_run=True)
    assert not (tmp_path / "none").exists()
    assert (found["images"], found["bytes"]) == (8, sum(p.stat().st_size for p in (coco_dir / "val2017").iterdir()))
