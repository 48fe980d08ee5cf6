import json

import pytest

from pipelines.sources import CocoCaptions, ImageGlob
from tfrecords_schema.errors import InputError


def coco(tmp_path, content) -> CocoCaptions:
    (tmp_path / "captions.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return CocoCaptions(str(tmp_path), str(tmp_path / "captions.json"))


def test_coco_items(tmp_path):
    source = coco(
        tmp_path,
        {
            "images": [{"id": 7, "file_name": "a b#%.jpg"}, {"id": 8, "file_name": "é.jpg"}],
            "annotations": [
                {"image_id": 7, "caption": "One."},
                {"image_id": 9, "caption": "Lost."},
                {"image_id": 7, "caption": "Two."},
            ],
        },
    )
    items = {item.id: item for item in source.read()}
    assert source.count() == len(items) == 3
    assert items["7"].captions == ("One.", "Two.") and items["7"].uri == str(tmp_path / "a b#%.jpg")
    assert items["7"].problem is None
    assert (items["8"].problem.stage, items["8"].problem.error) == ("list", "NoCaption")
    assert (items["9"].problem.stage, items["9"].problem.error) == ("list", "NotListed")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "found no JSON"),
        ("[]", "a list 'images', found none"),
        ({"images": []}, "a list 'annotations', found none"),
        ({"images": [], "annotations": []}, "expected images, found an empty list"),
        ({"images": [{"id": 1}], "annotations": []}, r"images\[0\]: expected a COCO caption entry with 'file_name'"),
        # an instances file, the likeliest mistake
        (
            {"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]},
            r"annotations\[0\]: expected a COCO caption entry with 'caption'",
        ),
    ],
)
def test_coco_files_that_are_none(tmp_path, content, message):
    with pytest.raises(InputError, match=f"captions.json: .*{message}"):
        coco(tmp_path, content).count()


def test_coco_missing_paths(tmp_path):
    with pytest.raises(InputError, match=r"found no file at .*none.json"):
        CocoCaptions(str(tmp_path), str(tmp_path / "none.json")).count()
    with pytest.raises(InputError, match=r"images directory: .*found none at .*none"):
        CocoCaptions(str(tmp_path / "none"), "any.json").count()


def test_glob(tmp_path):
    for name in ("b.jpg", "a b#%é.jpg", "sub/b.jpg", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    flat = ImageGlob((f"{tmp_path}/*.jpg",))
    assert [item.id for item in flat.read()] == ["a b#%é", "b"] and flat.count() == 2
    deep = ImageGlob((f"{tmp_path}/**.jpg", f"{tmp_path}/*.jpg"))
    assert sorted(item.id for item in deep.read()) == ["a b#%é", "b", "sub/b"], "each file once"


def test_glob_that_finds_nothing_repeats_the_pattern(tmp_path):
    with pytest.raises(InputError, match=r"--images: .*matches '.*/\*.jpeg'"):
        ImageGlob((f"{tmp_path}/*.jpeg",)).count()
