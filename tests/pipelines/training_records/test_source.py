"""COCO's layout as `--coco_dir` takes it: both splits, or one of them with a fraction held out."""

import shutil
import zipfile

import pytest

from pipelines.settings.features import Data
from pipelines.training_records.source import source_of
from tests.support.listing import counted, listed
from tfrecords_schema.errors import InputError


def source(directory, **flags):
    return source_of(Data(coco_dir=str(directory), **flags), 1000)


def one_split(coco_dir, tmp_path, split, packed=False):
    """A copy without the images of the other split; its captions are there, as they come in one zip file."""
    shutil.copytree(coco_dir / "annotations", tmp_path / "coco/annotations")
    images = tmp_path / f"coco/{split}2017"
    shutil.copytree(coco_dir / f"{split}2017", images)
    if packed:
        with zipfile.ZipFile(f"{images}.zip", "w") as archive:
            for path in sorted(images.iterdir()):
                archive.write(path, f"{split}2017/{path.name}")
        shutil.rmtree(images)
    return tmp_path / "coco"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("split", "count"), [("train", 24), ("val", 8)])
def test_one_split_is_enough_where_a_fraction_is_held_out(coco_dir, tmp_path, split, count, packed):
    directory = one_split(coco_dir, tmp_path, split, packed)
    found = counted(source(directory, val_fraction=0.3))
    assert found.keys() == {"train", "val"} and sum(found.values()) == count
    items = listed(source(directory, val_fraction=0.3))
    assert all(item.problem is None and f"/{split}2017" in item.uri for item in items)


def test_one_split_alone_says_what_to_give(coco_dir, tmp_path):
    directory = one_split(coco_dir, tmp_path, "val")
    with pytest.raises(InputError) as told:
        source(directory)
    assert str(told.value) == (
        "--coco_dir and --year: expected train2017 and val2017, directories or zip files, found only val2017 in "
        f"{directory}; give --val_fraction 0.05 to hold out that share of its images for validation"
    )
    for share in (0.0, 1.0):
        with pytest.raises(InputError, match=f"^--val_fraction: expected a number between 0 and 1, .*found {share}$"):
            source(directory, val_fraction=share)
    (directory / "annotations/captions_val2017.json").unlink()
    with pytest.raises(InputError, match=r"^--coco_dir and --year: expected captions .*, found no file at .*_val2017"):
        source(directory, val_fraction=0.5)


def test_both_splits_are_what_they_are(coco_dir, tmp_path):
    with pytest.raises(
        InputError, match=r"^--val_fraction: expected a --coco_dir with one of train2017 and val2017, found both in"
    ):
        source(coco_dir, val_fraction=0.1)
    with pytest.raises(InputError, match=r"^--coco_dir and --year: expected train2017 and val2017, .*found neither in"):
        source(tmp_path)


def test_captions_files_are_looked_at_before_anything_takes_long(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("file,text\na.jpg,A dog\n")
    with pytest.raises(InputError, match=f"^--train_captions: {path}: expected the columns image and caption .*file"):
        source_of(Data(train_captions=(str(path),)), 1000)
