"""The real feature pipeline over every kind of captions file and every place of images."""

import csv
import json
import pathlib
import shutil
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import features
from pipelines.captions import captioner
from tests.support import commands, tar_files
from tests.support.outputs import annotations, content, read_split, replace
from tests.support.small import train
from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import Vocabulary, count_words


@pytest.fixture(scope="module")
def other_forms(coco_dir, tmp_path_factory) -> pathlib.Path:
    """The same images and captions as `coco_dir`, in every other form."""
    directory = tmp_path_factory.mktemp("forms")
    entries = []
    for split in ("train", "val"):
        with zipfile.ZipFile(directory / f"{split}2017.zip", "w") as archive:
            for path in sorted((coco_dir / f"{split}2017").iterdir()):
                archive.write(path, f"{split}2017/{path.name}")
        for image_id, captions in annotations(coco_dir, split).items():
            entries.append((split, image_id, f"{int(image_id):012d}.jpg", captions))
    (directory / "annotations").mkdir()
    for path in (coco_dir / "annotations").iterdir():
        shutil.copy(path, directory / "annotations" / path.name)
    karpathy = [
        {
            "filepath": f"{split}2017",
            "filename": name,
            "cocoid": int(image_id),
            "split": split,
            "sentences": [{"raw": caption} for caption in captions],
        }
        for split, image_id, name, captions in entries
    ]
    (directory / "karpathy.json").write_text(json.dumps({"images": karpathy, "dataset": "coco"}))
    lines = [f"{name}#{n}\t{caption}\n" for _, _, name, captions in entries for n, caption in enumerate(captions)]
    (directory / "Flickr8k.token.txt").write_text("".join(lines))
    for kind, wanted in (("train", "train"), ("dev", "val")):
        names = [name for split, _, name, _ in entries if split == wanted]
        (directory / f"Flickr_8k.{kind}Images.txt").write_text("\n".join(names))
    with open(directory / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "split"])
        writer.writerows((name, caption, split) for split, _, name, captions in entries for caption in captions)
    rows_ = [
        {"image": str(coco_dir / f"{split}2017" / name), "caption": caption, "split": split}
        for split, _, name, captions in entries
        for caption in captions
    ]
    (directory / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_))
    write_samples(directory, coco_dir, entries)
    return directory


def write_samples(directory: pathlib.Path, coco_dir: pathlib.Path, entries) -> None:
    """Tar shards of ten images, a directory of the same files, and Parquet with images, as img2dataset has them."""
    for split in ("train", "val"):
        of_split = [(pathlib.Path(name), captions) for own, _, name, captions in entries if own == split]
        samples = []
        for name, captions in of_split:
            data = (coco_dir / f"{split}2017" / name).read_bytes()
            texts = {"txt": "\n".join(captions), "json": json.dumps({"said": captions})}
            samples.append(
                [(str(name), data), *((f"{name.stem}.{ending}", text.encode()) for ending, text in texts.items())]
            )
        for number in range(-(-len(samples) // 10)):
            members = [member for one in samples[10 * number : 10 * number + 10] for member in one]
            tar_files.write(directory / f"{split}-{number:05}.tar", members)
            (directory / f"files/{split}/{number:05}").mkdir(parents=True)
            for name, data in members:
                (directory / f"files/{split}/{number:05}" / name).write_bytes(data)
        columns = {"caption": [captions for _, captions in of_split], "key": [name.stem for name, _ in of_split]}
        columns["jpg"] = [one[0][1] for one in samples]
        pq.write_table(pa.table(columns), directory / f"{split}.parquet")


def by_file(output: pathlib.Path, split: str) -> dict[str, tuple]:
    """What is learned from, by file name: ids and URIs differ with the form."""
    return {
        r["image/uri"].rpartition("/")[2]: (r["caption/text"], r["caption/ids"].tolist(), r["image/feature"].tolist())
        for r in read_split(output, split)
    }


FORMS = {
    "zip files in COCO's layout": {"coco_dir": "{forms}"},
    "Karpathy, two directories": {
        "captions": ["{forms}/karpathy.json"],
        "images": ["{coco}/train2017", "{coco}/val2017"],
    },
    "Karpathy, the directory above": {"captions": ["{forms}/karpathy.json"], "images": ["{coco}"]},
    "Karpathy, a directory and a zip file": {
        "captions": ["{forms}/karpathy.json"],
        "images": ["{coco}/train2017", "{forms}/val2017.zip"],
    },
    "Flickr8k with its lists, a pattern": {"captions": ["{forms}/Flickr8k.token.txt"], "images": ["{coco}/**/*.jpg"]},
    "CSV, zip files": {"captions": ["{forms}/table.csv"], "images": ["{forms}/train2017.zip", "{forms}/val2017.zip"]},
    "JSONL of whole paths": {"captions": ["{forms}/table.jsonl"]},
    "tar shards, a caption a line": {
        "train_captions": ["{forms}/train-{{00000..00002}}.tar"],
        "val_captions": ["{forms}/val-*.tar"],
    },
    "tar shards, captions in JSON": {
        "train_captions": ["{forms}/train-*.tar"],
        "val_captions": ["{forms}/val-*.tar"],
        "caption_field": "said",
    },
    "directories of samples": {"train_captions": ["{forms}/files/train"], "val_captions": ["{forms}/files/val"]},
    "COCO files by split": {
        "train_captions": ["{coco}/annotations/captions_train2017.json"],
        "val_captions": ["{coco}/annotations/captions_val2017.json"],
        "train_images": ["{coco}/train2017"],
        "images": ["{forms}/val2017.zip"],
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_records(form, make_features, made_features, coco_dir, other_forms):
    def filled(value):
        if isinstance(value, list):
            return [filled(entry) for entry in value]
        return value.format(forms=other_forms, coco=coco_dir)

    flags = {key: filled(value) for key, value in FORMS[form].items()}
    output, report = make_features(**{"coco_dir": None, **flags})
    assert report["rejects"] == 0 and report["inputs"] == 32
    assert (output / "vocabulary.txt").read_text() == (made_features / "vocabulary.txt").read_text()
    for split, count in (("train", 24), ("val", 8)):
        found = by_file(output, split)
        assert len(found) == count and found == by_file(made_features, split)


def test_parquet_with_images_and_captions_gives_the_same_records(make_features, made_features, other_forms):
    captions = {f"{split}_captions": [f"{other_forms}/{split}.parquet"] for split in ("train", "val")}
    output, report = make_features(coco_dir=None, **captions)
    assert report["rejects"] == 0 and report["inputs"] == 32
    for split in ("train", "val"):
        found = {f"{r['image/id']}.jpg": list(r["caption/text"]) for r in read_split(output, split)}
        assert found == {name: list(captions) for name, (captions, *_) in by_file(made_features, split).items()}
        assert sorted(str(known[2]) for known in by_file(output, split).values()) == sorted(
            str(known[2]) for known in by_file(made_features, split).values()
        )


def test_validation_images_are_held_out_by_id(make_features, other_forms, coco_dir, capsys):
    table = (other_forms / "table.csv").read_text().replace(",train\n", "\n").replace(",val\n", "\n")
    path = other_forms / "without.csv"
    path.write_text(table.replace(",split\n", "\n"))
    flags = {"coco_dir": None, "captions": [str(path)], "images": [f"{coco_dir}/**/*.jpg"]}
    output, report = make_features(**flags, val_fraction=0.25)
    assert report["inputs"] == 32 and 3 <= report["splits"]["val"]["records"] <= 14
    assert not by_file(output, "train").keys() & by_file(output, "val").keys()
    assert "\nsplits " not in capsys.readouterr().out
    with pytest.raises(InputError, match=r"\(--val_fraction was 0.25, now not given\).*--update"):
        make_features(**flags)
    make_features(**flags, update=True)
    told = "splits      all 32 images are for training; --val_fraction 0.1 --update holds some out\nnext"
    assert told in capsys.readouterr().out


def test_a_bad_zip_member_is_rejected_and_its_neighbours_are_not(make_features, other_forms, tmp_path):
    copy = tmp_path / "damaged"
    shutil.copytree(other_forms, copy)
    data = bytearray((copy / "train2017.zip").read_bytes())
    with zipfile.ZipFile(copy / "train2017.zip") as archive:
        third = archive.infolist()[2]
    data[third.header_offset + 200] ^= 1
    (copy / "train2017.zip").write_bytes(data)
    output, report = make_features(coco_dir=str(copy))
    assert report["reject_reasons"] == {"read/DamagedMember": 1} and report["records"] == 31
    (row,) = pq.read_table(output / "rejects/train.parquet").to_pylist()
    assert row["image_uri"] == f"{copy}/train2017.zip!/{third.filename}" and "CRC" in row["message"]


def test_odd_names_through_the_whole_pipeline(make_features, coco_dir, tmp_path):
    names = ["a b.jpg", "50%.jpg", "#1.jpg", "new\nline.jpg", "é日本.jpg", "[x].jpg", "quote'.jpg"]
    source = next((coco_dir / "train2017").iterdir())
    for name in names:
        shutil.copy(source, tmp_path / name)
    with open(tmp_path / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *((name, "A red circle.") for name in names)])
    with zipfile.ZipFile(tmp_path / "names.zip", "w") as archive:
        for name in names:
            archive.write(tmp_path / name, name)
    for number, images in enumerate(([], [str(tmp_path / "names.zip")], [f"{tmp_path}/*.jpg"])):
        output = tmp_path / f"output{number}"
        _, report = make_features(output, coco_dir=None, captions=[str(tmp_path / "table.csv")], images=images)
        assert report["rejects"] == 0 and {r["image/id"] + ".jpg" for r in read_split(output, "train")} == set(names)


@pytest.mark.slow
def test_grid_features_train_and_caption(made_grid_features, coco_dir, tmp_path):
    assert read_split(made_grid_features, "train")[0]["image/feature"].shape == (16, 3)
    train(made_grid_features, tmp_path / "job", epochs=1)
    flags = {"images": [f"{coco_dir}/val2017/*.jpg"], "model": str(tmp_path / "job/export")}
    assert commands.caption(output=str(tmp_path / "captions"), **flags)["records"] == 8


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_both_pipelines_compute_the_very_same_features(make_features, run, export_dir, monkeypatch, dtype):
    """What the captioner is given equals, bit for bit, what the records hold."""
    output, _ = make_features(feature_dtype=dtype, batch_size=8)
    replace(pathlib.Path(export_dir) / "model_info.json", '"dtype": "float16"', f'"dtype": "{dtype}"')
    given = {}
    caption_batch = captioner.Captioner.__call__

    def spy(self, batch, image_ids, *rest):
        given.update(zip(map(int, image_ids), batch, strict=True))
        return caption_batch(self, batch, image_ids, *rest)

    monkeypatch.setattr(captioner.Captioner, "__call__", spy)
    run(batch_size=8)
    records = read_split(output, "val")
    assert len(records) == len(given) == 8
    for record in records:
        np.testing.assert_array_equal(record["image/feature"], given[int(record["image/id"])])


@pytest.fixture
def table(coco_dir, tmp_path):
    """A function that writes a table of captions for the training images, and the flags that read it."""
    names = sorted(path.name for path in (coco_dir / "train2017").iterdir())
    copy = tmp_path / "images"
    shutil.copytree(coco_dir / "train2017", copy)

    def write(captions, count=20):
        lines = [f"{name},{captions(number)}\n" for number, name in enumerate(names[:count])]
        (tmp_path / "table.csv").write_text("image,caption\n" + "".join(lines))
        return {"coco_dir": None, "captions": [str(tmp_path / "table.csv")], "images": [str(copy)]}

    return write


def never_loads(monkeypatch):
    from pipelines.training_records import records

    monkeypatch.setattr(records.RecordMaker, "load", lambda self: pytest.fail("the network was loaded"))


def test_other_captions_keep_the_features(make_features, table, tmp_path, monkeypatch):
    output, _ = make_features(**table(lambda n: f"A circle {n % 3}."), records_per_shard=5)
    flags = table(lambda n: f"One square {n % 4} of many.")
    expected, _ = make_features(tmp_path / "expected", **flags, records_per_shard=5)
    never_loads(monkeypatch)
    _, report = make_features(**flags, records_per_shard=5)
    assert (report["shards"], report["shards_left"], report["kept"]) == (4, 0, report["inputs"])
    assert content(output) == content(expected)


def test_other_words_keep_the_features_where_update_says_so(make_features, table, tmp_path, monkeypatch):
    flags = table(lambda n: f"A circle {n % 3} or {n}.")
    output, _ = make_features(**flags, min_word_count=1)
    with pytest.raises(
        InputError, match=r"min_word_count was 1, now 3\); give --update \(features of images that stay"
    ):
        make_features(**flags, min_word_count=3)
    with pytest.raises(InputError, match=r"feature_dtype was float16, now float32\); give --overwrite, or another"):
        make_features(**flags, feature_dtype="float32", update=True)
    expected, _ = make_features(tmp_path / "expected", **flags, min_word_count=3)
    never_loads(monkeypatch)
    make_features(**flags, min_word_count=3, update=True)
    assert content(output) == content(expected)


def test_fewer_captions_keep_the_features_and_count_fewer_words(make_features, coco_dir, tmp_path, monkeypatch):
    output, _ = make_features()
    with pytest.raises(
        InputError, match=r"--max_captions was not given, now 2\); give --update \(features of images that stay"
    ):
        make_features(max_captions=2)
    never_loads(monkeypatch)
    _, report = make_features(max_captions=2, update=True)
    assert report["kept"] == report["records"] == 32 and report["captions"] == 64
    said = {split: annotations(coco_dir, split) for split in ("train", "val")}
    for split, captions in said.items():
        assert {r["image/id"]: r["caption/text"] for r in read_split(output, split)} == {
            image_id: every[:2] for image_id, every in captions.items()
        }
    (words,) = output.glob("vocabulary*.txt")
    used = [caption for every in said["train"].values() for caption in every[:2]]
    assert Vocabulary.loads(words.read_text()) == Vocabulary.from_counts(count_words(used), 10_000, 1)


def test_a_trial_of_some_images_is_built_upon(make_features, coco_dir, tmp_path):
    """--limit is of each split, so that a trial can be validated; without it later, its images are kept."""
    output, report = make_features(limit=5)
    for split in ("train", "val"):
        first = sorted(annotations(coco_dir, split), key=int)[:5]  # as the captions file has them
        assert sorted((r["image/id"] for r in read_split(output, split)), key=int) == first
    with pytest.raises(InputError, match=r"limit was 5, now not given\); give --update"):
        make_features()
    _, report = make_features(update=True)
    assert (report["kept"], report["new"]) == (10, 22)


def test_a_replaced_image_redoes_its_shard_and_no_other(make_features, table, coco_dir, tmp_path):
    flags = table(lambda n: "A circle.")
    output, _ = make_features(**flags, records_per_shard=5)
    before = {r["image/id"]: r["image/feature"].tolist() for r in read_split(output, "train")}
    replaced = sorted((tmp_path / "images").iterdir())[3]
    shutil.copy(coco_dir / "val2017/000000100001.jpg", replaced)
    _, report = make_features(**flags, records_per_shard=5)
    assert (report["shards"], report["shards_left"]) == (4, 3)
    after = {r["image/id"]: r["image/feature"].tolist() for r in read_split(output, "train")}
    assert [image_id for image_id in before if before[image_id] != after[image_id]] == [replaced.stem]


def test_features_are_not_kept_from_a_damaged_shard(make_features, table, tmp_path):
    output, _ = make_features(**table(lambda n: "A circle."), records_per_shard=100)
    (shard,) = output.glob("*.tfrecord")
    data = bytearray(shard.read_bytes())
    data[500] ^= 1
    shard.write_bytes(data)
    flags = table(lambda n: "A square.")
    expected, _ = make_features(tmp_path / "expected", **flags, records_per_shard=100)
    _, report = make_features(**flags, records_per_shard=100)
    assert report["kept"] == 0 and content(output) == content(expected)


def test_two_runs_on_one_output_are_kept_apart(make_features, tmp_path, monkeypatch):
    from pipelines.engines import running

    inner = []
    run_pipeline = running.run_pipeline

    def runs_again(*args):
        with pytest.raises(InputError, match=r"--output: another run is writing to .*features; wait for it"):
            make_features()
        inner.append(True)
        return run_pipeline(*args)

    monkeypatch.setattr(running, "run_pipeline", runs_again)
    make_features()
    assert inner == [True]
    monkeypatch.setattr(running, "run_pipeline", run_pipeline)
    make_features(overwrite=True)


def test_captions_without_images_say_which_flag(capsys, tmp_path):
    (tmp_path / "c.json").write_text('{"images": [{"id": 1, "file_name": "a"}], "annotations": []}')
    with pytest.raises(SystemExit):
        features.main(
            ["--captions", str(tmp_path / "c.json"), "--output", str(tmp_path / "out"), "--weights", "random"]
        )
    assert "--images: expected the place of the images that" in capsys.readouterr().err
