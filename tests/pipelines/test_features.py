"""The real feature pipeline, with a network small enough to compute by hand."""

import io
import json
import pathlib
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import features
from pipelines.engines import running
from pipelines.output import report as report_json
from pipelines.settings.features import Store
from pipelines.training_records import records
from scripts import scenes
from tests.support.full_disk import full_after
from tests.support.outputs import annotations, content, read_split
from tfrecords_schema import shards
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import FeaturesInfo, StoredImages
from tfrecords_schema.vocabulary import Vocabulary, count_words

SPLITS = ("train", "val")


def test_records_equal_an_independent_computation(make_features, coco_dir):
    output, report = make_features(records_per_shard=10)
    vocabulary = Vocabulary.loads((output / "vocabulary.txt").read_text())
    assert report["inputs"] == report["records"] == 32 and report["rejects"] == 0
    for split, count in (("train", 24), ("val", 8)):
        captions = annotations(coco_dir, split)
        found = read_split(output, split)
        assert sorted(r["image/id"] for r in found) == sorted(captions) and len(found) == count
        for r in found:
            path = coco_dir / f"{split}2017" / f"{int(r['image/id']):012d}.jpg"
            image = Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
            grid = np.asarray(image, np.float32).reshape(4, 8, 4, 8, 3).mean((1, 3)) / 255
            np.testing.assert_allclose(r["image/feature"], grid.reshape(48), atol=1e-3)
            assert r["image/uri"] == str(path) and (r["image/height"], r["image/width"]) == (72, 96)
            assert r["caption/text"] == captions[r["image/id"]]
            expected = [vocabulary.encode(caption, 16) for caption in r["caption/text"]]
            assert r["caption/ids"].tolist() == [ids for ids, _ in expected]
            assert r["caption/length"].tolist() == [length for _, length in expected]


def test_the_vocabulary_is_of_the_training_captions_only(make_features, coco_dir):
    output, _ = make_features(min_word_count=3, vocab_size=20)
    captions = annotations(coco_dir, "train")
    counts = count_words([caption for each in captions.values() for caption in each])
    expected = Vocabulary.from_counts(counts, 20, 3)
    assert Vocabulary.loads((output / "vocabulary.txt").read_text()) == expected


def test_shards_are_as_named_and_hashed(make_features):
    output, report = make_features(records_per_shard=10)
    names = [f"train-0000{i}-of-00003.tfrecord" for i in range(3)] + ["val-00000-of-00001.tfrecord"]
    assert sorted(path.name for path in output.glob("*.tfrecord")) == names
    assert report["shards"] == 4 and not (output / ".work").exists()
    ids = [r["image/id"] for r in read_split(output, "train")]
    assert ids == sorted(ids, key=lambda i: (shards.shard_of(i, 3), shards.order_in_shard(i)))


def test_two_runs_give_the_same_bytes(make_features, tmp_path):
    first, _ = make_features(tmp_path / "a", records_per_shard=10)
    second, _ = make_features(tmp_path / "b", records_per_shard=10, read_threads=1)
    assert content(first) == content(second)


@pytest.fixture
def damaged_coco(coco_dir, tmp_path) -> pathlib.Path:
    """A copy with each kind of bad entry in its training split, and one more image that two entries claim."""
    copy = tmp_path / "damaged"
    shutil.copytree(coco_dir, copy)
    names = sorted(path.name for path in (copy / "train2017").iterdir())
    (copy / "train2017" / names[0]).unlink()
    (copy / "train2017" / names[1]).write_text("not an image")
    (copy / "train2017" / names[2]).write_bytes(b"")
    data = (copy / "train2017" / names[3]).read_bytes()
    (copy / "train2017" / names[3]).write_bytes(data[: len(data) // 2])
    (copy / "train2017" / names[8]).unlink()
    (copy / "train2017" / names[8]).mkdir()
    Image.new("1", (10_000, 10_000)).save(copy / "train2017" / names[9], "PNG")  # 100 million pixels in 12 kB
    path = copy / "annotations/captions_train2017.json"
    coco = json.loads(path.read_text())
    coco["images"].append("no entry")
    fifth, sixth = (int(names[n].removesuffix(".jpg")) for n in (4, 5))
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] != fifth]  # without a caption
    for a in coco["annotations"]:
        if a["image_id"] == sixth:
            a["caption"] = "...!"  # without a word
    coco["annotations"].append({"id": 9999, "image_id": 777, "caption": "A ghost."})  # without an image
    coco["images"].append({"id": int(names[6].removesuffix(".jpg")), "file_name": names[7]})  # an id twice
    path.write_text(json.dumps(coco))
    return copy


def test_bad_images_are_told_apart_and_nothing_else_is_lost(make_features, damaged_coco):
    output, report = make_features(coco_dir=str(damaged_coco), max_reject_fraction=1.0)
    rows = pq.read_table(output / "rejects/train.parquet").to_pylist()
    reasons = sorted((row["stage"], row["error"]) for row in rows)
    assert reasons == [
        ("caption", "NoWords"),
        ("decode", "Empty"),
        ("decode", "NotAnImage"),
        ("decode", "TooLarge"),
        ("decode", "Truncated"),
        ("list", "BadEntry"),
        ("list", "DuplicateId"),
        ("list", "NoCaption"),
        ("list", "NotListed"),
        ("read", "Absent"),
        ("read", "Unreadable"),
    ]
    assert report["reject_reasons"] == {f"{stage}/{error}": 1 for stage, error in reasons}
    assert all(row["message"] and row["image_id"] for row in rows)
    info = FeaturesInfo.loads((output / "features_info.json").read_text())
    assert info.splits["train"].images == 16 and info.splits["train"].rejects == 11
    assert report["inputs"] == 24 + 3 + 8 == report["records"] + report["rejects"]
    assert len(read_split(output, "train")) == 16


def test_too_many_rejects_fail_with_the_output_in_place(make_features, damaged_coco, tmp_path):
    with pytest.raises(report_json.RejectsError, match=r"11 of 35 images \(31.4%\) were rejected, more than .* 0.05 "):
        make_features(coco_dir=str(damaged_coco))
    assert (tmp_path / "features/features_info.json").exists() and (
        tmp_path / "features/rejects/train.parquet"
    ).exists()


def test_a_run_that_breaks_goes_on_where_it_stopped(make_features, tmp_path):
    undisturbed, _ = make_features(tmp_path / "undisturbed", records_per_shard=5)
    with (
        full_after(20),
        pytest.raises(running.PipelineError, match=r"No space left on device.*; finished shards are kept"),
    ):
        make_features(tmp_path / "disturbed", records_per_shard=5)
    output = tmp_path / "disturbed"
    finished = sorted(path.name for path in output.glob(".work/finished/*.tfrecord"))
    assert finished and {path.name for path in output.iterdir()} == {".shards", ".work"}, (
        "nothing appears before everything does"
    )
    assert not list(output.rglob("*.tmp")), "no half-written file is left"
    untouched = {name: (output / ".work/finished" / name).stat().st_mtime_ns for name in finished}

    _, report = make_features(output, records_per_shard=5)
    assert report["shards_left"] == len(finished)
    assert 0 < report["kept"] < report["inputs"] == report["kept"] + report["new"] == 32
    assert untouched == {name: (output / name).stat().st_mtime_ns for name in finished}
    assert content(output) == content(undisturbed)


def test_a_finished_output_is_not_made_again(make_features, monkeypatch):
    output, _ = make_features()
    before = content(output)
    monkeypatch.setattr(records.RecordMaker, "load", lambda self: pytest.fail("the network was loaded"))
    _, report = make_features()
    assert report["shards_left"] == report["shards"] == 2 and report["records"] == report["kept"] == 32
    assert content(output) == before


def test_a_new_image_redoes_only_what_it_changes(make_features, coco_dir, tmp_path):
    """A new validation image leaves the vocabulary, and so the training shards, as they are; no other image is made."""
    copy = tmp_path / "grown"
    shutil.copytree(coco_dir, copy)
    (copy / "train2017/000000000001.jpg").unlink()  # a reject, which must outlive the second run
    output, first = make_features(coco_dir=str(copy), records_per_shard=10)
    scenes.write_images(copy / "val2017", 1, seed=5, first_id=300_000, size=(96, 72))
    path = copy / "annotations/captions_val2017.json"
    coco = json.loads(path.read_text())
    coco["images"].append({"id": 300_000, "file_name": "000000300000.jpg"})
    coco["annotations"].append({"image_id": 300_000, "caption": "A red circle."})
    path.write_text(json.dumps(coco))
    _, second = make_features(coco_dir=str(copy), records_per_shard=10)
    assert (second["shards"], second["shards_left"]) == (4, 3)
    assert (second["kept"], second["new"], second["retried"]) == (31, 1, 1)
    assert second["records"] == first["records"] + 1
    assert second["reject_reasons"] == first["reject_reasons"] == {"read/Absent": 1}
    assert pq.read_table(output / "rejects/train.parquet").num_rows == 1


def test_a_caption_more_redoes_its_shard_alone_where_the_words_stay_the_same(make_features, coco_dir, tmp_path):
    copy = tmp_path / "grown"
    shutil.copytree(coco_dir, copy)
    output, _ = make_features(coco_dir=str(copy), records_per_shard=10)
    before = Vocabulary.loads((output / "vocabulary.txt").read_text())
    path = copy / "annotations/captions_train2017.json"
    coco = json.loads(path.read_text())
    commonest = before.words[4]
    coco["annotations"].append({"image_id": coco["images"][0]["id"], "caption": commonest})
    path.write_text(json.dumps(coco))
    _, report = make_features(coco_dir=str(copy), records_per_shard=10)
    info = FeaturesInfo.loads((output / "features_info.json").read_text())
    assert info.vocabulary_file == "vocabulary-b.txt" and not (output / "vocabulary.txt").exists()
    after = Vocabulary.loads((output / info.vocabulary_file).read_text())
    assert after.words == before.words and after.counts[4] == before.counts[4] + 1
    assert (report["shards"], report["shards_left"], report["kept"]) == (4, 3, 32)


def test_captions_that_are_cut_are_counted(make_features, coco_dir, capsys):
    """Also in shards that an earlier run made."""
    lengths = {split: [len(c.split()) for cs in annotations(coco_dir, split).values() for c in cs] for split in SPLITS}
    _, first = make_features(max_caption_length=11, records_per_shard=10)
    expected = {split: sum(length > 9 for length in lengths[split]) for split in SPLITS}
    assert 0 < expected["val"] < first["splits"]["val"]["captions"], "some, and not all"
    assert {split: first["splits"][split]["captions_cut"] for split in SPLITS} == expected
    assert f"{first['captions']}, {sum(expected.values())} cut to --max_caption_length 11\n" in capsys.readouterr().out
    _, again = make_features(max_caption_length=11, records_per_shard=10)
    assert again["shards_left"] == 4 and again["captions_cut"] == first["captions_cut"] == sum(expected.values())
    assert make_features(max_caption_length=40, overwrite=True)[1]["captions_cut"] == 0


def test_fewer_shards_leave_no_old_ones_behind(make_features, coco_dir, tmp_path):
    output, _ = make_features(records_per_shard=5)
    make_features(records_per_shard=100, overwrite=True)
    names = {"train-00000-of-00001.tfrecord", "val-00000-of-00001.tfrecord"}
    assert {path.name for path in output.glob("*.tfrecord")} == names
    assert {path.name for path in output.glob(".shards/*.tfrecord.parquet")} == {f"{name}.parquet" for name in names}
    assert not (output / ".work").exists()


def test_other_options_are_refused_with_the_difference(make_features):
    make_features(max_caption_length=16)
    with pytest.raises(InputError, match=r"max_caption_length was 16, now 12\); give --update .*--overwrite"):
        make_features(max_caption_length=12)
    make_features(max_caption_length=12, overwrite=True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "--coco_dir, --captions or --train_captions: expected one of them, found none"),
        ("--coco_dir nowhere", "--coco_dir: expected a directory, found none at nowhere"),
        ("--train_images d", "--train_images: expected --train_captions beside it, found none"),
        (
            "--coco_dir {coco} --train_images d",
            "--train_images: expected either --coco_dir, which has its splits, or --train_images, found both",
        ),
        (
            "--coco_dir {coco} --year 2014 --weights random",
            "--coco_dir and --year: expected train2014 and val2014, directories or zip files, found neither in {coco}",
        ),
        ("--coco_dir {coco} --weights none.h5", "--weights: expected imagenet, random or a Keras .h5 file, found no"),
        (
            "--coco_dir {coco} --weights README.md",
            "--weights: expected imagenet, random or a Keras .h5 file, found no HDF5",
        ),
        ("--coco_dir {coco} --weights random --vocab_size 4", "--vocab_size: expected at least 5"),
        ("--coco_dir {coco} --weights random --batch_size 0", "--batch_size: expected at least 1, found 0"),
        ("--coco_dir {coco} --weights random --runner Foo", "--runner: expected one of Beam's runners, found 'Foo'"),
        ("--coco_dir {coco} --weights random --direct_num_workers a", "--direct_num_workers: invalid int value"),
        ("--coco_dir foo://x", "--coco_dir: no filesystem for foo://x; expected a local path, gs://, s3://"),
        (
            "--captions c.csv --images https://example.com/a",
            "--images: no filesystem for https://example.com/a; web servers are read file by file: list",
        ),
        ("--coco_dir {coco} --weights random --max_caption_length 2", "--max_caption_length: expected at least 3"),
        (
            "--coco_dir {coco} --weights random --wieghts x",
            "--wieghts: neither this command nor Beam knows this flag; did you mean --weights?",
        ),
        ("--coco_dir {coco} --weights random --extractor vgg", "--extractor: expected one of inception_v3, vgg16"),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, coco_dir, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        features.main(["--output", str(tmp_path / "out"), *flags.format(coco=coco_dir).split()])
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2 and stderr.count("\n") == 1
    assert stderr.startswith("error: ") and message.format(coco=coco_dir) in stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--min_word_count 100000", "--weights {other}"])
def test_mistakes_that_a_worker_finds_are_mistakes_all_the_same(flag, coco_dir, tmp_path, capsys):
    import h5py

    h5py.File(tmp_path / "other.h5", "w").close()
    given = ["--output", str(tmp_path / "out"), "--coco_dir", str(coco_dir), "--extractor", "vgg16", "--weights"]
    given += [str(tmp_path / "other.h5"), *flag.format(other=tmp_path / "other.h5").split()]
    with pytest.raises(SystemExit) as exit_:
        features.main(given)
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2 and f"error: {flag.split()[0]}" in stderr and "goes on from there" not in stderr


def test_an_empty_output_name(make_features):
    with pytest.raises(InputError, match="--output: expected a directory, found ''"):
        make_features("")


def test_a_vocabulary_that_is_not_ours_is_left_alone(make_features, tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "features/vocabulary.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds vocabulary.txt, but no report.json of a run that made it"):
        make_features()
    assert (tmp_path / "features/vocabulary.txt").read_text() == "mine"


def test_an_output_that_cannot_be_written_to(make_features, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--output: expected a directory that can be written to"):
        make_features(tmp_path / "file" / "below")
    told = f"--output: expected a directory that can be written to, found a file, {tmp_path}/file"
    with pytest.raises(InputError, match=f"^{told}$"):
        make_features(tmp_path / "file")


def test_images_are_stored_where_asked_for(make_features, coco_dir, tmp_path):
    output, _ = make_features(store_images=True, store_size=48, records_per_shard=10)
    plain, _ = make_features(tmp_path / "plain", records_per_shard=10)
    info = FeaturesInfo.loads((output / "features_info.json").read_text())
    assert info.images == StoredImages(short_side=48, quality=90)
    assert FeaturesInfo.loads((plain / "features_info.json").read_text()).images is None
    for split in SPLITS:
        for with_image, without in zip(read_split(output, split), read_split(plain, split), strict=True):
            jpeg = with_image.pop("image/encoded")
            assert all(np.array_equal(with_image[key], without[key]) for key in without)
            assert with_image.keys() == without.keys()
            image = Image.open(io.BytesIO(jpeg))
            assert image.size == (64, 48)
            given = Image.open(without["image/uri"]).convert("RGB").resize((64, 48), Image.Resampling.BILINEAR)
            assert np.abs(np.asarray(image, float) - np.asarray(given, float)).mean() < 4


@pytest.mark.parametrize(
    ("asked", "network", "expected"), [(None, 299, 346), (None, 448, 518), (None, 32, 346), (48, 448, 48)]
)
def test_images_are_stored_with_room_to_crop_what_the_network_takes(asked, network, expected):
    assert Store(store_images=True, store_size=asked).short_side(network) == expected


def test_stored_images_are_kept_by_a_rerun_and_their_size_is_not_mixed(make_features, coco_dir):
    flags = {"store_images": True, "store_size": 48, "records_per_shard": 10}
    output, _ = make_features(**flags)
    before = content(output)
    _, report = make_features(**flags, min_word_count=2, update=True)
    assert report["kept"] == 32 and [r["image/encoded"] for r in read_split(output, "val")]
    make_features(**flags, update=True)
    images = [r["image/encoded"] for split in SPLITS for r in read_split(output, split)]
    assert content(output).keys() and len(images) == 32 and before
    for other in ({}, {"store_images": True}):
        with pytest.raises(
            InputError, match=r"--output: .* other options \(--store_images was .*48.*, now .*\); give --ov"
        ):
            make_features(**other, records_per_shard=10)


def test_a_size_of_images_that_are_not_stored_is_refused(make_features):
    with pytest.raises(InputError, match="--store_size: expected --store_images beside it"):
        make_features(store_size=100)
