"""Job and feature directories that others have written to: refused in one line, or left as they are."""

import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from scripts import scenes
from tests.support.outputs import history, outcome, replace, sign
from tests.support.small import train, write_features
from tfrecords_schema.errors import InputError, RunError
from trainer.data import dataset

pytestmark = pytest.mark.usefixtures("no_java")  # scores come quickly without it


@pytest.fixture
def job(trained, tmp_path) -> pathlib.Path:
    """A copy of a job directory, of three epochs over the features beside it."""
    return shutil.copytree(trained / "job", tmp_path / "job")


def test_files_called_like_checkpoints_are_nobodys(trained, job, tmp_path):
    """Nor is anything read or deleted that TensorFlow's own lists of checkpoints name."""
    expected, directory = outcome(job), job / "checkpoints/cross_entropy"
    elsewhere = tmp_path / "elsewhere"
    others = [directory / f"ckpt-{name}" for name in ("backup.index", "7.index.bak", ".index", "-3.index", "٣.index")]
    for path in (*others, job / "best/ckpt-backup.index", elsewhere):
        path.write_text("mine")
    named = f'model_checkpoint_path: "{elsewhere}"\nall_model_checkpoint_paths: "{elsewhere}"\n'
    for lists in (b"", b"\xff\xfe\x00", named.encode()):
        for place in (directory, job / "best"):
            (place / "checkpoint").write_bytes(lists)
        train(trained / "features", job, epochs=3)
        assert outcome(job) == expected
    assert {path.read_text() for path in (*others, elsewhere)} == {"mine"}


def test_a_checkpoint_of_a_later_number_that_is_none_is_passed_over_and_left(trained, job, capsys):
    """Though it counts as the latest, those that are written after it are not too many beside it."""
    later, expected = job / "checkpoints/cross_entropy/ckpt-900.index", outcome(job)
    for path in later.parent.glob("ckpt-6.*"):  # the last: from the one before validation on, two more are written
        path.unlink()
    later.write_text("mine")
    train(trained / "features", job, epochs=3, keep_checkpoints=1)
    assert "ckpt-900: cannot be read" in capsys.readouterr().out
    assert outcome(job) == expected and later.read_text() == "mine"
    assert {path.name for path in later.parent.glob("*.index")} == {"ckpt-7.index", later.name}


LINKED = ["checkpoints", "checkpoints/cross_entropy", "best", "tensorboard", "export", "history.csv", "config.json"]


@pytest.mark.parametrize("name", [*LINKED, ".lock", "loss.png", "samples.csv"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_to_elsewhere_is_refused(trained, job, tmp_path, name, overwrite):
    """What it leads to would be changed or deleted. A job directory that is a link itself is what the user gave."""
    elsewhere = shutil.move(job / name, tmp_path / "elsewhere") if (job / name).exists() else tmp_path / "elsewhere"
    (job / name).symlink_to(elsewhere)
    (tmp_path / "link").symlink_to(job)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=rf"^--job_dir: .*link/{name}: expected no link, found one to .*elsewhere"):
        train(trained / "features", tmp_path / "link", epochs=3, overwrite=overwrite)
    assert sorted(tmp_path.rglob("*")) == before


def test_overwriting_leaves_what_others_put_into_the_directories(trained, job, tmp_path):
    places = ["", "best", "checkpoints", "checkpoints/cross_entropy", "checkpoints/mine", "tensorboard"]
    others = [job / place / "thesis.txt" for place in places]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    for name in ("history.csv", "config.json"):  # as a kill leaves them, but links
        (job / f".{name}.tmp").symlink_to(others[0])
    events = set(job.glob("tensorboard/events*"))
    train(trained / "features", job, epochs=1, overwrite=True)
    assert len(history(job)) == 1 and not events & set(job.glob("tensorboard/events*"))
    assert [path.read_text() for path in others] == ["mine"] * len(others)


@pytest.mark.parametrize("name", [".export.making", ".export.old"])
def test_other_peoples_files_where_an_export_is_made_are_refused(trained, job, name):
    (job / name).mkdir()
    (job / name / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=rf"--job_dir: expected an export or nothing in .*{name}, found thesis.txt"):
        train(trained / "features", job, epochs=3)
    assert (job / name / "thesis.txt").read_text() == "mine"


def test_settings_of_tensorflow_that_are_none(features_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{junk")
    with pytest.raises(InputError, match=r"^TF_CONFIG: expected JSON that describes this machine, found .*; unset it$"):
        train(features_dir, tmp_path / "job", epochs=1)


def rewrite(path: pathlib.Path, change) -> None:
    """A shard again, with its first record changed, and checksums that fit."""
    records = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))]
    change(records[0].features.feature)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record.SerializeToString())


@pytest.mark.parametrize(
    ("split", "scaling", "value"),
    [("train", "standardise", np.nan), ("train", "none", np.inf), ("val", "none", np.nan)],
)
def test_a_feature_that_is_no_number_is_named(features_dir, tmp_path, split, scaling, value):
    """In a directory whose digests are right, as another program may have made it."""
    (shard,) = features_dir.glob(f"{split}-*")
    ids = []

    def spoil(feature):
        values = np.frombuffer(feature["image/feature"].bytes_list.value[0], "<f2").copy()
        values[5] = value
        feature["image/feature"].bytes_list.value[:] = [values.tobytes()]
        ids.append(feature["image/id"].bytes_list.value[0].decode())

    rewrite(shard, spoil)
    sign(features_dir)
    with pytest.raises(
        RunError, match=rf"{shard.name}: image '{ids[0] if ids else ''}.*': expected features of finite"
    ):
        train(features_dir, tmp_path / "job", epochs=1, feature_scaling=scaling)
    assert not (tmp_path / "job/export").exists()


def test_a_record_without_a_key_is_named(features_dir, tmp_path):
    (shard,) = features_dir.glob("train-*")
    rewrite(shard, lambda feature: feature.pop("caption/text"))
    sign(features_dir)
    with pytest.raises(RunError, match=rf"{shard.name}: damaged or cut short \(.*caption/text"):
        train(features_dir, tmp_path / "job", epochs=1)


def test_a_record_that_was_changed_with_its_checksum_is_refused(features_dir, tmp_path):
    (shard,) = features_dir.glob("train-*")
    size = shard.stat().st_size

    def change(feature):
        (values,) = feature["image/feature"].bytes_list.value
        feature["image/feature"].bytes_list.value[:] = [values[::-1]]

    rewrite(shard, change)
    assert shard.stat().st_size == size
    with pytest.raises(InputError, match=rf"{shard.name}: expected the SHA-256 that features_info.json records"):
        train(features_dir, tmp_path / "job", epochs=1)
    assert not (tmp_path / "job").exists()


def test_two_shards_of_equal_size_that_were_exchanged_are_refused(data, tmp_path):
    directory = shutil.copytree(data, tmp_path / "data")
    one, other = sorted(directory.glob("train-*"))[:2]
    sizes = [path.stat().st_size for path in (one, other)]
    one.rename(directory / "held")
    other.rename(one)
    (directory / "held").rename(other)
    for before, after in ((sizes[0], -1), (sizes[1], sizes[0]), (-1, sizes[1])):
        replace(directory / "features_info.json", f'"bytes": {before}', f'"bytes": {after}')
    with pytest.raises(InputError, match=rf"{one.name}: expected the SHA-256 that"):
        dataset.open_directory(str(directory))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("val", "flags"), [(0, {"epochs": 2}), (1, {"epochs": 1, "self_critical": 1, "batch_size": 1000})]
)
def test_training_on_one_image(tiny_network, tmp_path, val, flags):
    """And on batches larger than all there is, with one image to validate on or none."""
    scenes.write_coco(tmp_path / "coco", train=1, val=1, size=(96, 72))
    if val:
        write_features(tmp_path / "data", tiny_network, tmp_path / "coco")
    else:
        captions = {"train_captions": [str(tmp_path / "coco/annotations/captions_train2017.json")]}
        images = [str(tmp_path / "coco/train2017")]
        write_features(tmp_path / "data", tiny_network, None, images=images, **captions)
    best = train(tmp_path / "data", tmp_path / "job", **flags)
    rows = history(tmp_path / "job")
    assert len(rows) == 2 and all(np.isfinite(float(row["loss"] or row["reward"])) for row in rows)
    assert np.isfinite(best.get("val_loss", best.get("loss", 0.0))) and os.path.exists(tmp_path / "job/export")
    assert ("val_loss" in best) == bool(val)


def test_one_image_that_is_held_out_leaves_none_to_train_on(tiny_network, tmp_path):
    scenes.write_coco(tmp_path / "coco", train=1, val=1, size=(96, 72))
    captions = [str(tmp_path / "coco/annotations/captions_train2017.json")]
    images = [str(tmp_path / "coco/train2017")]
    with pytest.raises(InputError, match=r"--captions: expected images of the train split, found \{'val': 1\}"):
        write_features(tmp_path / "data", tiny_network, None, images=images, captions=captions, val_fraction=0.999999)
