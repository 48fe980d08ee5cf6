"""The image of a caption, by every way that there is, in their order."""

import pytest

from tfrecords_schema.matching import Matched, match

NAMES = {
    "139": "000000000139.jpg",
    "7": "val/1.jpg",
    "1": "val/7.jpg",
    "20": "a/same.jpg",
    "21": "b/same.png",
    "v1.2": "v1.2.jpg",
}


@pytest.mark.parametrize(
    ("image_id", "uri", "expected"),
    [
        ("139", "", "139"),
        ("000000000139", "", "139"),
        ("photos/000000000139", "/x/photos/000000000139.png", "139"),
        ("000000000139.jpg", "", "139"),
        ("COCO_val2014_000000000139", "", "139"),
        ("COCO_val2014_000000000139", "/x/COCO_val2014_000000000139.jpg", "139"),
        ("anything", "gs://b/000000000139.jpg", "139"),
        ("anything", "a.zip!/b/000000000139.jpg", "139"),
        ("139", "images.parquet!/image/7", "139"),  # the number of its row
        ("other", "images.parquet!/image/000000000139", None),
        ("7", "", "7"),
        ("7", "/images/7.jpg", "1"),  # made from a pattern: the id is the name of a file
        ("7", "/images/other.jpg", "7"),
        ("sub/1", "", "7"),
        ("v1.2", "/x/v1.2.jpg", "v1.2"),
        ("v1.2", "", "v1.2"),
        ("sub/v1.2", "", "v1.2"),
        ("0139", "", None),
        ("", "", None),
        ("same", "", "ambiguous"),
        ("20", "/x/same.jpg", "ambiguous"),
        ("20", "", "20"),
        ("other", "/x/other.jpg", None),
    ],
)
def test_which_image_a_caption_is_of(image_id, uri, expected):
    found = {expected: "said"} if expected in NAMES else {}
    assert match([("said", image_id, uri)], NAMES) == Matched(found, expected is None, expected == "ambiguous")


def test_captions_that_share_an_image_are_ambiguous():
    assert match([(1, "139", ""), (2, "000000000139", ""), (3, "7", "")], NAMES) == Matched({"7": 3}, 0, 2)
