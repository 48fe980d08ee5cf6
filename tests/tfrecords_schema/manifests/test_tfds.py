"""A feature directory, read by TensorFlow Datasets' own code."""

import io
import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from pipelines.captions import stored
from tests.support.outputs import annotations, read_split
from tests.support.small import write_features
from tfrecords_schema import show
from tfrecords_schema.errors import InputError
from trainer.data import dataset


def examples(directory, split: str) -> list[dict]:
    """As TFDS gives them, in the order of the shards."""
    builder = tfds.builder_from_directory(str(directory))
    return list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))


def check(directory, captions: dict[str, dict[str, list[str]]]) -> None:
    """TFDS gives all records of all splits with the values that our own parser gives, and the captions as given."""
    builder = tfds.builder_from_directory(str(directory))
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == {
        split: len(each) for split, each in captions.items()
    }
    for split, given in captions.items():
        found, ours = examples(directory, split), read_split(directory, split)
        texts = {e["image/id"].decode(): [text.decode() for text in e["caption/text"]] for e in found}
        assert texts == given
        assert builder.info.splits[split].num_bytes == sum(path.stat().st_size for path in directory.glob(f"{split}-*"))
        for theirs, record in zip(found, ours, strict=True):
            assert theirs.keys() == record.keys()
            for key in ("image/feature", "caption/ids", "caption/length", "image/height", "image/width"):
                value = np.asarray(record[key])
                assert np.array_equal(theirs[key], value) and theirs[key].shape == value.shape
            assert theirs["image/feature"].dtype == record["image/feature"].dtype
            assert theirs["image/uri"].decode() == record["image/uri"]
            if "image/encoded" in record:
                pixels = np.asarray(Image.open(io.BytesIO(record["image/encoded"])), float)
                assert np.abs(theirs["image/encoded"] - pixels).mean() < 4  # decoders differ a little


@pytest.fixture(scope="module")
def two_splits(coco_dir):
    return {split: annotations(coco_dir, split) for split in ("train", "val")}


def test_pooled_features(made_features, two_splits):
    check(made_features, two_splits)


def test_grids(made_grid_features, two_splits):
    check(made_grid_features, two_splits)


def test_images_of_three_splits_and_empty_shards(tiny_network, coco_dir, two_splits, tmp_path):
    """Karpathy's format has a test split. Of so many shards some have no record."""
    ids = list(two_splits["val"])
    splits = dict(zip(ids, ["train"] * 5 + ["val", "test", "test"], strict=True))
    entries = [
        {
            "filename": f"{int(i):012d}.jpg",
            "cocoid": int(i),
            "split": split,
            "sentences": [{"raw": caption} for caption in two_splits["val"][i]],
        }
        for i, split in splits.items()
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"dataset": "coco", "images": entries}))
    given = {"captions": [str(tmp_path / "dataset.json")], "images": [str(coco_dir / "val2017")]}
    flags = {"store_images": True, "store_size": 48, "records_per_shard": 1, "feature_dtype": "float32"}
    write_features(tmp_path / "features", tiny_network, None, **given, **flags)
    expected = {s: {i: two_splits["val"][i] for i in ids if splits[i] == s} for s in ("train", "val", "test")}
    check(tmp_path / "features", expected)
    found = json.loads((tmp_path / "features/dataset_info.json").read_text())["splits"]
    (lengths,) = (split["shardLengths"] for split in found if split["name"] == "train")
    assert "0" in lengths and len(lengths) == 5


def test_features_json_is_what_tfds_writes(made_grid_features):
    """Class by class, once TFDS has read it."""
    features = tfds.features.FeaturesDict(
        {
            "image/id": tfds.features.Text(),
            "image/uri": tfds.features.Text(),
            "image/height": tfds.features.Tensor(shape=(), dtype=np.int64),
            "image/width": tfds.features.Tensor(shape=(), dtype=np.int64),
            "image/feature": tfds.features.Tensor(shape=(16, 3), dtype=np.float16, encoding="bytes"),
            "caption/text": tfds.features.Sequence(tfds.features.Text()),
            "caption/ids": tfds.features.Tensor(shape=(None, 16), dtype=np.int64),
            "caption/length": tfds.features.Tensor(shape=(None,), dtype=np.int64),
        }
    )
    found = tfds.builder_from_directory(str(made_grid_features)).info.features
    assert found.to_json() == features.to_json()


def test_after_an_image_more(tiny_network, coco_dir, two_splits, tmp_path):
    """One shard is made anew, the others are left."""
    coco = shutil.copytree(coco_dir, tmp_path / "coco")
    path = coco / "annotations/captions_train2017.json"
    text = path.read_text()
    values = json.loads(text)
    last = values["images"].pop()
    values["annotations"] = [entry for entry in values["annotations"] if entry["image_id"] != last["id"]]
    path.write_text(json.dumps(values))
    flags = {"records_per_shard": 6, "vocab_size": 5}
    write_features(tmp_path / "features", tiny_network, coco, **flags)
    check(tmp_path / "features", {**two_splits, "train": annotations(coco, "train")})
    path.write_text(text)
    report = write_features(tmp_path / "features", tiny_network, coco, **flags)
    assert report["splits"]["train"]["records"] == 24 and 0 < report["shards_left"] < report["shards"]
    check(tmp_path / "features", two_splits)


# Directories of the version before, whose manifest had the name that is TFDS' own.

OPENERS = [
    ("--features", lambda directory: stored.open_features(directory)),
    ("--data", lambda directory: dataset.open_directory(directory).info),
    ("DIR", lambda directory: list(show.describe(directory, 0))),
]


def make_earlier(directory) -> None:
    (directory / "features.json").unlink()
    (directory / "features_info.json").rename(directory / "dataset_info.json")


@pytest.mark.parametrize(("flag", "open_it"), OPENERS)
def test_directories_of_earlier_versions_are_opened(features_dir, flag, open_it):
    now = open_it(str(features_dir))
    make_earlier(features_dir)
    assert open_it(str(features_dir)) == now


@pytest.mark.parametrize(("flag", "open_it"), OPENERS)
def test_a_data_set_of_others_is_none_of_ours(features_dir, flag, open_it):
    (features_dir / "features_info.json").unlink()
    with pytest.raises(InputError, match=f"^{flag}: expected a feature directory with features_info.json, found none"):
        open_it(str(features_dir))


def test_a_rerun_brings_an_earlier_directory_up_to_date(make_features, made_features, features_dir, two_splits):
    make_earlier(features_dir)
    _, report = make_features()
    assert (report["kept"], report["shards_left"]) == (32, 2)
    for name in ("features_info.json", "features.json", "dataset_info.json"):
        assert (features_dir / name).read_bytes() == (made_features / name).read_bytes()
    check(features_dir, two_splits)
