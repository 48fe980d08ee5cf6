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


def test_what_local_patterns_find(tmp_path, monkeypatch):
    for name in ("a.jpg", "sub/b.jpg", "sub/deep/c.jpg", "br[1].jpg", "folder.jpg/x.txt", "out/captions.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "link.jpg").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)

    def ids(*patterns):
        return [item.id for item in ImageGlob(patterns, excluding=str(tmp_path / "out")).read()]

    flat, deep = ["a", "br[1]", "link"], ["a", "br[1]", "link", "sub/b", "sub/deep/c"]
    assert ids("*.jpg") == ids("./*.jpg") == ids(f"{tmp_path}//*.jpg") == flat, "a broken link is told of, not left out"
    assert ids("**.jpg") == ids("**/*.jpg") == ids(f"{tmp_path}/**.jpg") == deep, "`**` crosses none, one or more"
    assert ids("br[1].jpg") == ids("./br[1].jpg") == ["br[1]"], "a file's own name, as a shell hands it over"
    assert ids("sub/b.jpg") == ["b"]
    assert ids("a.jpg", str(tmp_path / "a.jpg"), "./a.jpg") == ["a"], "one file, however it is spelled"
    with pytest.raises(InputError, match=r"found no file that matches 'folder.jpg'"):
        ImageGlob(("folder.jpg",)).count()


def test_json_that_no_utf8_can_hold(tmp_path):
    """Half a surrogate pair is valid JSON; it must not stop the run."""
    text = r"""{"images": [{"id": 1, "file_name": "a\ud83d.jpg"}],
                "annotations": [{"image_id": 1, "caption": "A nice \ud83d circle \ud83d\ude00"}]}"""
    (item,) = coco(tmp_path, text).read()
    assert item.captions == ("A nice \ufffd circle \U0001f600",) and item.uri.endswith("a\ufffd.jpg")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", '{"images": "é"}'.encode("latin-1")])
def test_captions_files_that_are_no_text(tmp_path, content):
    (tmp_path / "captions.json").write_bytes(content)
    with pytest.raises(InputError, match=r"captions.json: expected a COCO captions JSON, found"):
        CocoCaptions(str(tmp_path), str(tmp_path / "captions.json")).count()
    with pytest.raises(InputError, match="expected a COCO captions JSON, found"):
        CocoCaptions(str(tmp_path), str(tmp_path)).count()


def test_glob_that_finds_nothing_repeats_the_pattern(tmp_path):
    with pytest.raises(InputError, match=r"--images: .*matches '.*/\*.jpeg'"):
        ImageGlob((f"{tmp_path}/*.jpeg",)).count()
