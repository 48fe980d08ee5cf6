"""COCO's and Karpathy's JSON as a stream: every field, entries that are broken, and texts that are."""

import io
import json
import subprocess
import sys
import tracemalloc

import pytest

from tests.support import ROOT
from tfrecords_schema import captions_json, json_depth
from tfrecords_schema.captions_json import Listed, Problem
from tfrecords_schema.errors import InputError


def read(content, reader=captions_json.read) -> list[Listed]:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return list(reader("x.json", lambda path: {"x.json": io.BytesIO(data)}[path]))


COCO = {
    "info": {"images": "no list"},
    "images": [{"id": 7, "file_name": "a.jpg", "width": 3.5}, {"id": "é", "file_name": "b.jpg"}],
    "annotations": [
        {"image_id": 7, "caption": "One."},
        {"image_id": "9", "caption": "Lost."},
        {"image_id": "7", "caption": "Two."},
        {"image_id": 7, "caption": " "},
    ],
}
KARPATHY = {
    "filepath": "val2014",
    "filename": "b.1.jpg",
    "split": "restval",
    "sentences": [{"raw": "A man.", "tokens": ["a"]}, {"raw": "\t"}, {"raw": "A bike."}],
    "cocoid": 391895,
}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("keys", [("images", "annotations"), ("annotations", "info", "images")])
def test_coco(keys, mark):
    assert read(mark + json.dumps({key: COCO[key] for key in keys}).encode()) == [
        Listed(7, ("a.jpg",), ("One.", "Two.")),
        Listed("é", ("b.jpg",), (), problem=Problem("NoCaption", "no caption is of this image")),
        Listed("9", (), (), problem=Problem("NotListed", "1 captions, but no image of this id")),
    ]


def test_karpathy():
    flickr = {key: value for key, value in KARPATHY.items() if key not in ("filepath", "cocoid")}
    silent = {**flickr, "filename": "c.jpg", "cocoid": None, "split": "unheard of", "sentences": []}
    assert read({"dataset": "x", "images": [KARPATHY, flickr, silent, KARPATHY]}) == [
        Listed(391895, ("val2014/b.1.jpg", "b.1.jpg"), ("A man.", "A bike."), "restval"),
        Listed("b.1", ("b.1.jpg",), ("A man.", "A bike."), "restval"),
        Listed("c", ("c.jpg",), (), "unheard of", Problem("NoCaption", "no caption is of this image")),
    ]


@pytest.mark.parametrize(
    ("lists", "where", "message"),
    [
        ({"images": [3]}, "images[0]", "expected an entry with 'id', found 3"),
        ({"images": [{"id": 1}]}, "images[0]", "expected an entry with 'file_name', found {\"id\": 1}"),
        ({"images": [{"id": True, "file_name": "a"}]}, "images[0]", "expected an entry with 'id', found {\"id\": true"),
        ({"images": [{"id": "", "file_name": "a"}]}, "images[0]", 'expected an entry with \'id\', found {"id": ""'),
        ({"images": [{"id": 1.5, "file_name": "a"}]}, "images[0]", "expected an entry with 'id', found {\"id\": 1.5"),
        ({"annotations": [[]]}, "annotations[0]", "expected an entry with 'image_id', found []"),
        ({"annotations": [{"image_id": 7, "caption": None}]}, "annotations[0]", "expected an entry with 'caption', fo"),
    ],
)
def test_a_broken_entry_of_coco_leaves_the_others(lists, where, message):
    good = Listed(7, ("a.jpg",), ("One.",))
    content = {key: [*lists.get(key, ()), COCO[key][0]] for key in ("images", "annotations")}
    (bad,) = [listed for listed in read(content) if listed != good]
    assert good in read(content) and (bad.id, bad.names, bad.problem.error) == (where, (), "BadEntry")
    assert bad.problem.message.startswith(f"{where}: {message}")


@pytest.mark.parametrize("key", ["filename", "split", "sentences", "filepath", "cocoid"])
def test_a_broken_entry_of_karpathy_leaves_the_others(key):
    found = read({"images": [KARPATHY, {**KARPATHY, key: 1.5}]})
    assert [listed.problem and listed.problem.error for listed in found] == [None, "BadEntry"]
    assert found[1].problem.message.startswith(f"images[1]: expected an entry with {key!r}, found {{")


def test_a_broken_sentence_leaves_the_others():
    bad, good = read({"images": [{**KARPATHY, "sentences": ["a", {"raw": "A bike."}]}]})
    message = "images[0].sentences[0]: expected an entry with 'raw', found \"a\""
    assert bad == Listed("images[0].sentences[0]", (), problem=Problem("BadEntry", message))
    assert good.captions == ("A bike.",) and good.problem is None


LONE = {  # as it stands in the file: as it is read
    r"\ud83d\ude00": "😀",
    r"\uD83D\uDE00": "😀",
    r"\ud83d": "\ufffd",
    r"\ude00": "\ufffd",
    r"\ude00\ud83d": "\ufffd\ufffd",
    r"\ud83d\ud83d\ude00": "\ufffd😀",
    r"\ud83d\u0041": "\ufffdA",
    r"\ud83d\"": '\ufffd"',
    r"\\ud83d": r"\ud83d",
    r"\\\ud83d": "\\\ufffd",
    r"\u00e9\n": "é\n",
}


@pytest.mark.parametrize("before", [0, 1, 2, 5, 11])
def test_halves_of_surrogate_pairs_wherever_the_file_is_cut(monkeypatch, before):
    annotations = ",".join(f'{{"image_id": 7, "caption": "x{text}y"}}' for text in LONE)
    content = f'{{{" " * before}"annotations": [{annotations}], "images": [{{"id": 7, "file_name": "a"}}]}}'
    for chunk_bytes in (3, 7, 64, 1 << 16):
        monkeypatch.setattr(captions_json, "_CHUNK_BYTES", chunk_bytes)
        (listed,) = read(content.encode())
        assert listed.captions == tuple(f"x{expected}y" for expected in LONE.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected captions as COCO or Karpathy JSON, found something unreadable: "),
        (b'{"images": [{"id": 1, "file_name": "a"}], "annotations": [', "found something unreadable: "),
        (b'{"images": [], "annotations": []} more', "found something unreadable: "),
        ('{"images": "é"}'.encode("latin-1"), "found something unreadable: "),
        ([], "expected a COCO captions JSON with a list 'images', found none"),
        ({"images": {}, "annotations": []}, "expected a COCO captions JSON with a list 'images', found none"),
        ({"images": []}, "expected a COCO captions JSON with a list 'annotations', found none"),
    ],
)
def test_files_that_are_none(content, message):
    with pytest.raises(InputError, match=r"^x\.json: ") as error:
        read(content)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_cannot_be_opened():
    def denied(path):
        raise OSError(f"{path}: denied\nfor now")

    message = r"^x\.json: expected .*, found something unreadable: x\.json: denied for now$"
    for reader in (captions_json.read, captions_json.read_images):
        with pytest.raises(InputError, match=message):
            list(reader("x.json", denied))


def test_images_without_captions():
    content = {"images": [{"id": 7, "file_name": "a\ud83d.jpg"}, {"id": 8}]}
    good, bad = read(content, captions_json.read_images)
    assert good == Listed(7, ("a\ufffd.jpg",)) and bad.problem.error == "BadEntry"
    assert read({"images": []}, captions_json.read_images) == []
    for wrong in ({"annotations": []}, [1], b"{"):
        with pytest.raises(InputError, match=r"^x\.json: expected a COCO JSON with a list 'images', found "):
            read(wrong, captions_json.read_images)


def test_karpathys_entries_are_not_held():
    """Ten times the file takes no ten times the memory, which only its names fill."""

    def peak(images: int) -> int:
        entry = {**KARPATHY, "sentences": [{"raw": "a caption of many letters " * 40}] * 5}
        content = json.dumps({"images": [{**entry, "cocoid": number} for number in range(images)]}).encode()
        tracemalloc.start()
        assert sum(1 for _ in captions_json.read("x.json", lambda path: io.BytesIO(content))) == images
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(2000) < 2 * peak(200) + 1_000_000


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize("chunk_bytes", [3, 7, 64, 1 << 16])
def test_the_depth_counts_no_brackets_within_texts(monkeypatch, chunk_bytes):
    monkeypatch.setattr(captions_json, "_CHUNK_BYTES", chunk_bytes)
    texts = [r"[[[", r"\"[{", r"\\", r"\\\"{[", r"]]]", "", r"\u005b", r"a\n[\"\""]
    image = b'{"id": 7, "file_name": "a.jpg", "x": %b}'
    for text in [*texts, *map("".join, zip(texts, reversed(texts), strict=True))]:
        notes = b"[%b]" % b",".join([b'"%b"' % text.encode()] * 40)
        for levels, is_good in ((json_depth.DEEPEST - 3, True), (json_depth.DEEPEST - 2, False)):
            content = b'{"n": %b, "images": [%b], "m": %b}' % (notes, image % nested(levels), notes)
            if is_good:
                assert read(content, captions_json.read_images) == [Listed(7, ("a.jpg",))]
                continue
            with pytest.raises(InputError, match=r"^x\.json: expected a COCO JSON .*nested deeper than 64 levels$"):
                read(content, captions_json.read_images)


DEEP = """
import io, resource, sys
from tfrecords_schema import captions_json, json_depth
from tfrecords_schema.errors import InputError
content = eval(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
for reader in (captions_json.read, captions_json.read_images):
    try:
        list(reader("x.json", lambda path: io.BytesIO(content)))
    except InputError as error:
        print(str(error)[-60:])
"""


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("b'{\"images\": ' + b'[' * 400_000", "nested deeper than 64 levels"),
        ("b'{\"images\": [' + b'{\"a\": ' * 400_000", "nested deeper than 64 levels"),
        ("b'{\"images\": [' + b'1,' * 9_000_000", "more than 16,777,216 bytes without a quotation mark"),
    ],
)
def test_what_has_no_bottom_or_no_end_takes_no_memory(content, found):
    """400 KB of brackets would take 24 GB; here are no more than one."""
    run = subprocess.run([sys.executable, "-c", DEEP, content], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert run.returncode == 0, run.stderr
    assert len(lines := run.stdout.splitlines()) == 2 and all(line.endswith(found) for line in lines)
