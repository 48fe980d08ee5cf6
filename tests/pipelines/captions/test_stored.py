"""Captions of stored features, and what a run would do."""

import contextlib
import errno
import itertools
import json
import os
import pathlib
import resource
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from pipelines import caption
from pipelines.captions.stored import FeatureRecords, StoredFeatures
from pipelines.vision.extraction import FeatureBatch
from tests.support import commands, hurting, stores, tar_files
from tests.support.outputs import content, nearly, rows
from tests.support.shelf import SHELF, ShelfFileSystem
from tfrecords_schema import shards
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import clients, copies


def test_the_same_captions_as_of_the_images(run, trained, tmp_path):
    of_images = rows(run(tmp_path / "a")[0])
    output, report = run(tmp_path / "b", features=str(trained / "features"), split="val", rows_per_file=3)
    assert report["inputs"] == report["records"] == 8 and report["shards"] == 3
    found = rows(output)
    assert {f"{int(i):012d}" for i in found} == of_images.keys()
    for image_id, row in found.items():
        expected = of_images[f"{int(image_id):012d}"]
        assert row["image_uri"] == expected["image_uri"] and row["height"] == expected["height"]
        assert [c["caption"] for c in row["captions"]] == [c["caption"] for c in expected["captions"]]
        np.testing.assert_allclose(row["log_prob"], expected["log_prob"], atol=1e-4)


def test_every_split_in_even_files(run, trained):
    output, report = run(features=str(trained / "features"), rows_per_file=5)
    assert report["records"] == 32 and len(rows(output)) == 32
    sizes = [pq.read_metadata(path).num_rows for path in output.glob("captions-*")]
    assert len(sizes) == 7 and max(sizes) - min(sizes) <= 1
    before = content(output)
    _, again = run(features=str(trained / "features"), rows_per_file=5)
    assert again["shards_left"] == 7 and content(output) == before


def test_damaged_and_missing_records_are_rejects(run, features_dir):
    damaged, missing = sorted(features_dir.glob("train-*"))[0], sorted(features_dir.glob("val-*"))[0]
    data = damaged.read_bytes()
    with damaged.open("rb") as handle:
        lengths = [len(record) + 16 for record in shards.read_framed(handle)]
    place = sum(lengths[:10]) + 100  # inside the eleventh record
    damaged.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
    missing.unlink()
    output, report = run(features=str(features_dir), max_reject_fraction=1.0)
    assert report["records"] == 23 and report["reject_reasons"] == {"read/DamagedRecord": 1, "read/Absent": 8}
    rejects = pq.read_table(output / "rejects/captions.parquet").to_pylist()
    assert [r["image_id"] for r in rejects if r["error"] == "DamagedRecord"] == [f"{damaged.name}#10"]
    assert len(rows(output)) == 23
    damaged.write_bytes(data[:place])
    _, report = run(output.parent / "cut", features=str(features_dir), max_reject_fraction=1.0)
    assert report["records"] == 10 and report["reject_reasons"] == {"read/DamagedRecord": 14, "read/Absent": 8}


def test_what_features_say_of_themselves_gives_a_terminal_no_orders(run, features_dir, capsys):
    path = features_dir / "features_info.json"
    info = json.loads(path.read_text())
    info["features"]["weights"] = "net\x1b[2J\nwork.h5"
    path.write_text(json.dumps(info))
    run(features=str(features_dir), dry_run=True)
    assert r"weights net\x1b[2J\nwork.h5" in capsys.readouterr().out


def test_a_machine_without_descriptors_rejects_no_record(features_dir):
    items = list(FeatureRecords(str(features_dir), "val").read())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    with contextlib.ExitStack() as taken:
        taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.enter_context(open(os.devnull))
        with pytest.raises(OSError, match="Too many open files") as error:
            list(StoredFeatures((48,), "float16").batches(items, None, None))
    assert error.value.errno == errno.EMFILE
    (batch,) = StoredFeatures((48,), "float16").batches(items, None, None)
    assert len(batch.items) == 8


def test_records_that_cannot_be_reached_are_tried_again_by_a_rerun(run, trained, tmp_path, monkeypatch):
    with stores.running("s3", tmp_path) as server, hurting.proxy(server.endpoint) as proxy:
        server.put_directory(trained / "features", "features")
        for name, value in {**server.env, "AWS_ENDPOINT_URL": proxy.endpoint}.items():
            monkeypatch.setenv(name, value)
        clients.use_flags({})
        flags = {"features": server.url("features"), "max_reject_fraction": 1.0, "read_retries": 1}
        proxy.broken = ("/val-00000-of-00001.tfrecord",)
        _, report = run(**flags)
        assert report["reject_reasons"] == {"read/Unreachable": 8} and report["records"] == 24
        proxy.broken = ()
        _, report = run(**flags)
        assert (report["kept"], report["retried"], report["rejects"]) == (24, 8, 0)
    clients.use_flags({})


def test_records_that_were_changed_with_their_checksums_are_rejects(run, make_features):
    """Of another shard, without a key, with a feature that is no number; their neighbours are captioned."""
    directory, _ = make_features(records_per_shard=8)
    paths = sorted(directory.glob("train-*"))
    records = [[*map(tf.train.Example.FromString, shards.read_framed(path.open("rb")))] for path in paths]
    records[0][1], records[1][2] = records[1][2], records[0][1]
    del records[2][0].features.feature["image/uri"]
    records[2][1].features.feature["image/feature"].bytes_list.value[:] = [np.full(48, np.nan, "<f2").tobytes()]
    for path, changed in zip(paths, records, strict=True):
        with path.open("wb") as handle:
            for record in changed:
                shards.write_framed(handle, record.SerializeToString())
    output, report = run(features=str(directory), split="train", max_reject_fraction=1.0)
    assert report["records"] == 20 and report["reject_reasons"] == {"read/DamagedRecord": 3, "extract/NotFinite": 1}
    rejects = pq.read_table(output / "rejects/captions.parquet").to_pylist()
    places = {f"{paths[0].name}#1", f"{paths[1].name}#2", f"{paths[2].name}#0", f"{paths[2].name}#1"}
    assert {row["image_id"] for row in rejects} == places
    assert sum("belongs in another shard" in row["message"] for row in rejects) == 2


@pytest.mark.parametrize("kind", ["a tar file", "names that are no UTF-8"])
def test_every_record_is_in_the_shard_that_it_belongs_in(make_features, coco_dir, tmp_path, kind):
    """Images of a tar file lie where their neighbours do, and others by a hash of their ids as the listing has them."""
    images, said = sorted((coco_dir / "val2017").iterdir()), b"Said of it."
    if kind == "a tar file":
        members = [((p.name, p.read_bytes()), (f"{p.stem}.txt", said)) for p in images]
        place = tar_files.write(tmp_path / "images.tar", itertools.chain.from_iterable(members))
    else:
        (place := tmp_path / "images").mkdir()
        for number, image in enumerate(images):
            name = os.fsdecode(b"\xe9%d" % number)
            (place / f"{name}.jpg").write_bytes(image.read_bytes())
            (place / f"{name}.txt").write_bytes(said)
    directory, report = make_features(coco_dir=None, captions=[str(place)], records_per_shard=2)
    assert report["records"] == 8
    found = list(StoredFeatures((48,), "float16").batches(list(FeatureRecords(str(directory)).read()), None, None))
    assert sum(len(one.items) if isinstance(one, FeatureBatch) else 0 for one in found) == 8


def test_features_that_the_model_was_not_trained_on_are_refused(run, features_dir, tmp_path):
    info = json.loads((features_dir / "features_info.json").read_text())
    info["features"]["weights_digest"] = "f" * 64
    (features_dir / "features_info.json").write_text(json.dumps(info))
    for path in features_dir.glob("*.tfrecord"):
        path.unlink()  # so that reading anything would be noticed
    with pytest.raises(InputError, match=r"weights_digest differs: --features .* has f+, --model .* has"):
        run(features=str(features_dir))
    assert not (tmp_path / "captions").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"features": "/nowhere"},
            "--features: expected a feature directory with features_info.json, found none in /n",
        ),
        ({"split": "test"}, "--split: expected one of train, val, which .* has, found test"),
        ({"weights": "imagenet"}, "--weights: expected --images beside it, found --features"),
        ({"uri_column": "a"}, "--uri_column: expected --images beside it"),
        ({"images": ["*.jpg"]}, "--images or --features: expected one of them, found both"),
    ],
)
def test_flags_that_do_not_fit(run, trained, flags, message):
    with pytest.raises(InputError, match=message):
        run(**{"features": str(trained / "features"), **flags})


def test_a_set_without_images_is_refused(run, tmp_path):
    (tmp_path / "head.csv").write_text("uri,licence\n")
    for flags in ({}, {"dry_run": True}):
        with pytest.raises(InputError, match="--images: expected images, found a table without any"):
            run(images=[str(tmp_path / "head.csv")], **flags)
    assert not (tmp_path / "captions").exists()


def test_neither_images_nor_features(run):
    with pytest.raises(InputError, match="--images or --features: expected one of them, found none"):
        run(images=None)


def test_only_the_first_few(run, trained, coco_dir, tmp_path):
    output, report = run(tmp_path / "a", limit=3)
    first = sorted(path.stem for path in (coco_dir / "val2017").iterdir())[:3]
    assert report["inputs"] == 3 and sorted(rows(output)) == first
    _, report = run(tmp_path / "b", features=str(trained / "features"), limit=5)
    assert report["inputs"] == 5
    with pytest.raises(InputError, match="--limit was 3, now not given"):
        run(tmp_path / "a")


def test_a_dry_run_tells_and_writes_nothing(run, coco_dir, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_text("no image")
    images = [f"{coco_dir}/val2017/*.jpg", str(tmp_path / "bad.jpg")]
    size = sum(path.stat().st_size for path in (coco_dir / "val2017").iterdir()) + 8
    output, found = run(images=images, dry_run=True, rows_per_file=2)
    assert not output.exists()
    assert (found["images"], found["bytes"], found["files"], found["sample"]) == (9, size, 5, 9)
    assert found["sample_rejects"] == {"decode/NotAnImage": 1}
    assert found["seconds"] == pytest.approx(found["load_seconds"] + 9 / found["images_per_second"])
    text = capsys.readouterr().out
    assert (
        "9 images, 1 rejected decode/NotAnImage 1" in text and "nothing is written" in text and "beam_width 3" in text
    )


def test_a_dry_run_refuses_what_the_run_would_refuse(run, features_dir):
    output, _ = run()
    with pytest.raises(InputError, match="beam_width was 3, now 5"):
        run(beam_width=5, dry_run=True)
    before = content(output)
    _, found = run(features=str(features_dir), dry_run=True, overwrite=True)
    assert found["images"] == 32 and found["bytes"] == sum(p.stat().st_size for p in features_dir.glob("*.tfrecord"))
    assert content(output) == before


def test_the_command_line_of_it_all(features_dir, trained, tmp_path, capsys):
    flags = ["--features", str(features_dir), "--model", str(trained / "job/export"), "--output", str(tmp_path / "out")]
    caption.main([*flags, "--split", "val", "--no-forbid_unk", "--format", "csv", "--captions_per_image", "1"])
    assert len(rows(tmp_path / "out")) == 8
    assert json.loads((tmp_path / "out/report.json").read_text())["options"]["forbid_unk"] is False
    with pytest.raises(SystemExit) as exit_:
        caption.main([*flags, "--top_p", "0.5"])
    assert exit_.value.code == 2
    assert (
        capsys.readouterr().err
        == "error: --top_p: expected --sample beside it, found none; beam search draws nothing\n"
    )


def test_a_model_is_copied_once_while_it_stays_the_same(trained, tmp_path, monkeypatch):
    """From a filesystem of Beam's that is not the local one."""
    monkeypatch.setattr(ShelfFileSystem, "root", str(trained / "job"))
    monkeypatch.setattr(copies.tempfile, "gettempdir", lambda: str(tmp_path))
    first = copies.local_copy(f"{SHELF}export")
    assert content(pathlib.Path(first)) == content(trained / "job/export")
    inode = (pathlib.Path(first) / "saved_model.pb").stat().st_ino
    assert copies.local_copy(f"{SHELF}export") == first
    assert (pathlib.Path(first) / "saved_model.pb").stat().st_ino == inode
    changed = shutil.copytree(trained / "job/export", tmp_path / "changed/export")
    (changed / "vocabulary.txt").write_text("other")
    monkeypatch.setattr(ShelfFileSystem, "root", str(tmp_path / "changed"))
    assert (pathlib.Path(copies.local_copy(f"{SHELF}export")) / "vocabulary.txt").read_text() == "other"


def test_everything_in_an_object_store(run, trained, coco_dir, tmp_path, monkeypatch):
    """Images, model and output; a rerun finds its shards there."""
    shutil.copytree(trained / "job/export", tmp_path / "shelf/export")
    shutil.copytree(coco_dir / "val2017", tmp_path / "shelf/photos/val")
    monkeypatch.setattr(ShelfFileSystem, "root", str(tmp_path / "shelf"))
    flags = {"images": [f"{SHELF}photos/**.jpg"], "model": f"{SHELF}export", "format": ["csv", "coco"]}
    for reused in (0, 2):
        report = commands.caption(output=f"{SHELF}out", rows_per_file=4, **flags)
        assert report["records"] == 8 and report["shards_left"] == reused
    remote = rows(tmp_path / "shelf/out")
    assert {r["image_uri"] for r in remote.values()} == {
        f"{SHELF}photos/val/{path.name}" for path in (coco_dir / "val2017").iterdir()
    }
    local = rows(run()[0])
    assert {i.rpartition("/")[2]: r["captions"] for i, r in remote.items()} == {
        i: nearly(r["captions"]) for i, r in local.items()
    }
    assert not [path for path in (tmp_path / "shelf/out").rglob("*") if ".work" in str(path) and path.is_file()]
