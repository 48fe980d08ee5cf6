"""From captions files and places of images to Items, and what is counted of them."""

import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.captioned_images import CaptionedImages, CaptionFile
from tests.support.listing import counted, listed
from tfrecords_schema import shards
from tfrecords_schema.errors import InputError


def write_rows(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def table(tmp_path, rows, **options) -> CaptionedImages:
    return CaptionedImages((CaptionFile(write_rows(tmp_path / "rows.jsonl", rows), (str(tmp_path),)),), **options)


def test_an_image_is_an_id_in_a_place(tmp_path):
    """Rows of one image that stand apart are parts of one Item; they count once."""
    rows = [("a.jpg", "One."), ("b.jpg", "Two."), ("a.jpg", "Three."), ("a.png", "Four.")]
    source = table(tmp_path, [{"image": image, "caption": caption} for image, caption in rows])
    assert counted(source) == {"train": 3}
    joined = {item.uri: item for item in listed(source)}
    assert joined[str(tmp_path / "a.jpg")].captions == ("One.", "Three.")
    assert len(joined) == 3


def test_splits_of_the_file_and_restval(tmp_path):
    rows = [{"image": f"{split}.jpg", "caption": "A.", "split": split} for split in ("train", "restval", "dev", "test")]
    assert counted(table(tmp_path, rows)) == {"test": 1, "train": 2, "val": 1}
    assert counted(table(tmp_path, rows, restval="val")) == {"test": 1, "train": 1, "val": 2}
    assert counted(table(tmp_path, rows, restval=None)) == {"test": 1, "train": 1, "val": 1}
    with pytest.raises(InputError, match=r"--captions: expected captions without splits, .*leave out --val_fraction"):
        counted(table(tmp_path, rows, val_fraction=0.1))


def test_val_fraction_follows_from_the_id_alone(tmp_path):
    rows = [{"image": f"{number}.jpg", "caption": "A."} for number in range(1000)]
    found = {item.id: item.split for item in listed(table(tmp_path, rows, val_fraction=0.1))}
    assert 70 <= list(found.values()).count("val") <= 130
    fewer = {item.id: item.split for item in listed(table(tmp_path, rows[::7], val_fraction=0.1))}
    assert fewer.items() <= found.items()
    wider = {item.id: item.split for item in listed(table(tmp_path, rows, val_fraction=0.3))}
    assert all(wider[image_id] == "val" for image_id, split in found.items() if split == "val")


@given(st.text(), st.floats(0, 1))
def test_held_out_at_all_or_nothing(image_id, fraction):
    assert not shards.is_validation(image_id, 0.0) and shards.is_validation(image_id, 1.0)
    assert shards.is_validation(image_id, fraction) <= shards.is_validation(image_id, min(1.0, fraction + 0.1))


def test_several_files_of_one_split(tmp_path):
    """As people train on COCO 2014: train and most of val together."""
    files = []
    for number, year in enumerate(("train2014", "val2014")):
        (tmp_path / year).mkdir()
        content = {
            "images": [{"id": number, "file_name": f"COCO_{year}_{number}.jpg"}],
            "annotations": [{"image_id": number, "caption": "A."}],
        }
        (tmp_path / f"{year}.json").write_text(json.dumps(content))
        places = (str(tmp_path / "train2014"), str(tmp_path / "val2014"))
        files.append(CaptionFile(str(tmp_path / f"{year}.json"), places, "train"))
    (tmp_path / "val2014/COCO_val2014_1.jpg").write_bytes(b"x")
    source = CaptionedImages(tuple(files))
    assert counted(source) == {"train": 2}
    first, second = listed(source)
    assert first.uri == str(tmp_path / "train2014/COCO_train2014_0.jpg") and not first.version, (
        "absent: any place will do"
    )
    assert second.uri == str(tmp_path / "val2014/COCO_val2014_1.jpg") and second.version


def test_a_name_in_two_places_is_told_of(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(folder.encode())
    path = write_rows(tmp_path / "rows.jsonl", [{"image": "x.jpg", "caption": "A."}, {"image": "y", "caption": "B."}])
    source = CaptionedImages((CaptionFile(path, (str(tmp_path / "a"), str(tmp_path / "b"))),))
    item, _ = listed(source)
    assert (item.problem.stage, item.problem.error) == ("list", "AmbiguousName")
    assert "a/x.jpg" in item.problem.message and "b/x.jpg" in item.problem.message


def test_one_file_through_two_places_is_one_file(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"x")
    path = write_rows(tmp_path / "rows.jsonl", [{"image": "x.jpg", "caption": "A."}])
    places = (str(tmp_path), f"{tmp_path}/", f"{tmp_path}/*.jpg")
    (item,) = listed(CaptionedImages((CaptionFile(path, places),)))
    assert item.problem is None and item.version


def test_captions_of_two_files_are_in_the_order_of_the_files(tmp_path):
    rows = {"b": [("y.jpg", "0."), ("x.jpg", "1.")], "a": [("x.jpg", "2."), ("y.jpg", "3."), ("x.jpg", "4.")]}
    files = [
        CaptionFile(
            write_rows(tmp_path / f"{name}.jsonl", [{"image": i, "caption": c} for i, c in listed]), (str(tmp_path),)
        )
        for name, listed in rows.items()
    ]
    items = listed(CaptionedImages(tuple(files)))
    assert {i.id: i.captions for i in items} == {"x": ("1.", "2.", "4."), "y": ("0.", "3.")} and len(items) == 2


def test_bad_rows_of_two_files_are_two(tmp_path):
    good = {"image": "x.jpg", "caption": "A."}
    paths = [write_rows(tmp_path / f"{name}.jsonl", [good, "bad"]) for name in "ab"]
    source = CaptionedImages(tuple(CaptionFile(path, (str(tmp_path),)) for path in paths))
    assert counted(source) == {"train": 3}
    bad = [item for item in listed(source) if item.problem]
    assert sorted(item.uri for item in bad) == paths


def test_images_in_two_splits_are_told_of(tmp_path, capsys):
    counted(table(tmp_path, [{"image": "x.jpg", "caption": "A.", "split": split} for split in ("train", "val")]))
    assert capsys.readouterr().err == "WARNING: 1 images are in both train and val.\n"


def test_versions_change_with_the_file(tmp_path):
    rows = [{"image": "x.jpg", "caption": "A."}]
    versions = []
    for content in (b"one", b"three"):
        (tmp_path / "x.jpg").write_bytes(content)
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("in/x.jpg", content)
        direct = table(tmp_path, rows)
        path = write_rows(tmp_path / "rows.jsonl", rows)
        zipped = CaptionedImages((CaptionFile(path, (str(tmp_path / "x.zip"),)),))
        versions.append(listed(zipped)[0].version)
        assert not listed(direct)[0].version, "left to who makes the shard"
    assert len(set(versions)) == 2 and all(versions)


def test_files_without_a_usable_image_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"--captions: .*rows.jsonl: expected .*, found none that could be used"):
        counted(table(tmp_path, [{"image": "x.jpg", "caption": ""}]))
    with pytest.raises(
        InputError, match=r"images: expected a directory, a zip file or a pattern, found none at .*none"
    ):
        path = write_rows(tmp_path / "rows.jsonl", [{"image": "x.jpg", "caption": "A."}])
        listed(CaptionedImages((CaptionFile(path, (str(tmp_path / "none"),)),)))
    # An instances file, the likeliest mistake.
    instances = {"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}
    (tmp_path / "coco.json").write_text(json.dumps(instances))
    with pytest.raises(InputError, match=r"none .*; the first: annotations\[0\]: expected an entry with 'caption'"):
        listed(CaptionedImages((CaptionFile(str(tmp_path / "coco.json"), (str(tmp_path),)),)))
    with pytest.raises(
        InputError, match=r"--images: expected the place of the images that .*coco.json names, found none"
    ):
        listed(CaptionedImages((CaptionFile(str(tmp_path / "coco.json"), ()),)))


def test_a_limit_is_of_each_split_and_takes_the_first(tmp_path):
    """Counted after rows of one image are joined; what is rejected counts too, what is left out is in no warning."""
    rows = [
        {"image": f"{n // 2}.jpg", "caption": f"{n}.", "split": ("train", "val")[n // 2 % 5 == 4]} for n in range(40)
    ]
    rows[2]["caption"] = rows[3]["caption"] = ""
    rows.append({"image": "19.jpg", "caption": "Again.", "split": "train"})
    found = listed(table(tmp_path, rows, limit=3))
    assert [(i.split, i.id, i.captions) for i in found] == [
        *(("train", "0", ("0.", "1.")), ("train", "1", ()), ("train", "2", ("4.", "5."))),
        *(("val", "4", ("8.", "9.")), ("val", "9", ("18.", "19.")), ("val", "14", ("28.", "29."))),
    ]
    assert [i.problem.error for i in found if i.problem] == ["NoCaption"]
    assert counted(table(tmp_path, rows, limit=4)) == {"train": 4, "val": 4}
    assert counted(table(tmp_path, rows, limit=100)) == {"train": 17, "val": 4}


def test_a_limit_is_of_what_is_held_out_too(tmp_path):
    rows = [{"image": f"{number}.jpg", "caption": "A."} for number in range(200)]
    every = listed(table(tmp_path, rows, val_fraction=0.1))
    few = listed(table(tmp_path, rows, val_fraction=0.1, limit=5))
    for split in ("train", "val"):
        assert [i.id for i in few if i.split == split] == [i.id for i in every if i.split == split][:5]


def test_the_first_captions_of_an_image_wherever_they_stand(tmp_path):
    rows = [("a", "1."), ("b", "1."), ("a", "2."), ("c", ""), ("a", "3."), ("b", "2.")]
    source = table(tmp_path, [{"image": f"{i}.jpg", "caption": c} for i, c in rows], max_captions=2)
    assert {i.id: i.captions for i in listed(source)} == {"a": ("1.", "2."), "b": ("1.", "2."), "c": ()}
    source = table(tmp_path, [{"image": f"{i}.jpg", "caption": c} for i, c in rows], max_captions=1)
    assert {i.id: i.captions for i in listed(source)} == {"a": ("1.",), "b": ("1.",), "c": ()}
