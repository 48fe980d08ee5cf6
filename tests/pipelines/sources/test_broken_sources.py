"""Broken versions of every kind of source: each image is a row or a reject, or the file is refused in one line."""

import csv
import io
import json
import pathlib
import random
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources.captioned_images import CaptionedImages, CaptionFile
from pipelines.sources.image_sets import ImageSets
from pipelines.sources.table_columns import Columns
from tests.support.listing import listed
from tfrecords_schema.errors import InputError
from tfrecords_schema.json_depth import DEEPEST

NAMES = [f"é{number}.jpg" for number in range(4)]
COCO = {
    "images": [{"id": number, "file_name": name} for number, name in enumerate(NAMES)],
    "annotations": [{"id": 7, "image_id": number, "caption": "Ein Stück Käse."} for number in range(4)],
}
KARPATHY = {
    "images": [
        {"filepath": ".", "filename": name, "cocoid": number, "split": "train", "sentences": [{"raw": "Käse."}]}
        for number, name in enumerate(NAMES)
    ]
}
ROWS = [{"image": name, "caption": "Käse, Brot", "split": "val", "id": name[:2], "more": 3} for name in NAMES]


def csv_of(rows: list[dict]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def jsonl_of(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def zip_of(names: list[str]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return sink.getvalue()


def json_of(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


# File name -> (good content, whether it holds captions).
SOURCES = {
    "coco": (json_of(COCO), True),
    "coco.json": (json_of(COCO), False),
    "karpathy": (json_of(KARPATHY), True),
    "captions.csv": (csv_of(ROWS), True),
    "table.csv": (csv_of(ROWS), False),
    "captions.jsonl": (jsonl_of(ROWS), True),
    "table.jsonl": (jsonl_of(ROWS), False),
    "table.parquet": (parquet_of(pa.Table.from_pylist(ROWS)), False),
    "images.zip": (zip_of(NAMES), False),
}


@pytest.fixture
def attempt(tmp_path):
    """A function: what a source lists, as (good, rejects), or the line that refuses it."""
    (tmp_path / "images").mkdir()
    for name in NAMES:
        (tmp_path / "images" / name).touch()

    def attempt(name: str, content: bytes, metadata: tuple[str, ...] = ()):
        path, images = tmp_path / name, (str(tmp_path / "images"),)
        path.write_bytes(content)
        if SOURCES[name][1]:
            source = CaptionedImages((CaptionFile(str(path), images),))
        else:
            is_table = not name.endswith(".zip")
            source = ImageSets((str(path),), root=images * is_table, columns=Columns(metadata=metadata))
        try:
            found = listed(source)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 1500 and str(error).startswith("--")
            return str(error)
        good = [item.id for item in found if not item.problem]
        return good, [item.problem.error for item in found if item.problem]

    return attempt


@pytest.mark.parametrize("name", SOURCES)
def test_good_ones_are_taken(attempt, name):
    good, rejects = attempt(name, SOURCES[name][0])
    assert len(good) == 4 and not rejects


@pytest.mark.parametrize("name", SOURCES)
def test_cut_short(attempt, name):
    """Rows that are whole are taken, or nothing is; a file that is read backwards is refused."""
    content, _ = SOURCES[name]
    refused = 0
    for length in range(0, len(content) - 2, max(1, len(content) // 11)):
        found = attempt(name, content[:length])
        refused += isinstance(found, str)
        assert isinstance(found, str) or len(found[0]) + len(found[1]) <= 4
    has_lines = name.endswith((".csv", ".jsonl"))
    assert refused >= (1 if has_lines else 9), refused


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig"])
@pytest.mark.parametrize("name", [name for name in SOURCES if not name.endswith((".parquet", ".zip"))])
def test_in_another_encoding(attempt, name, encoding):
    found = attempt(name, SOURCES[name][0].decode().encode(encoding))
    if encoding == "utf-8-sig":
        assert len(found[0]) == 4 and not found[1]
    else:
        assert isinstance(found, str), found


@pytest.mark.parametrize("name", SOURCES)
def test_with_other_bytes(attempt, name):
    content, rng = SOURCES[name][0], random.Random(name)
    outcomes = []
    for _ in range(12):
        changed = bytearray(content)
        for _ in range(rng.choice([1, 2, 8])):
            changed[rng.randrange(len(changed))] = rng.choice(b'\0\xff"[{}],\n') if rng.random() < 0.7 else 0x80
        outcomes.append(attempt(name, bytes(changed)))
    assert all(isinstance(found, str) or len(found[0]) + len(found[1]) for found in outcomes)


HUGE = 10**400
WRONG = [None, True, -1, 1.5, "", "\0", "\ud800", "x" * 100_000, [], ["a"], {}, {"a": {"b": [None]}}]


def spoilt(row: dict, key: str, wrongs: list) -> list[dict]:
    """The row; others of the same kind, each with one of these values in place of a good one; and one without any."""
    names = {"image": "{}.jpg", "file_name": "{}.jpg", "filename": "{}.jpg", "id": "{}", "cocoid": "{}"}
    rows = [{**row, **{k: name.format(n) for k, name in names.items() if k in row}} for n in range(len(wrongs) + 1)]
    bad = [{**one, key: wrong} for one, wrong in zip(rows, wrongs, strict=False)]
    return [row, *bad, {k: value for k, value in rows[-1].items() if k != key}]


def jsonl_of_ascii(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("key", ROWS[0])
@pytest.mark.parametrize("name", ["captions.jsonl", "table.jsonl"])
def test_a_wrong_value_leaves_the_other_lines(attempt, name, key):
    rows = spoilt(ROWS[0], key, [*WRONG, HUGE])
    good, rejects = attempt(name, jsonl_of_ascii(rows))
    assert good[0].startswith("é0") and len(good) + len(rejects) == len(rows)
    is_read = key in ("image", "caption", "split") if name == "captions.jsonl" else key in ("image", "id")
    assert is_read == bool(rejects)


@pytest.mark.parametrize("key", KARPATHY["images"][0])
def test_a_wrong_value_leaves_karpathys_other_entries(attempt, key):
    rows = spoilt(KARPATHY["images"][0], key, WRONG)
    good, rejects = attempt("karpathy", json.dumps({"images": rows}).encode())
    assert (
        good[0] == "0" and len(rows) <= len(good) + len(rejects) <= len(rows) + 1
    )  # a sentence is a reject of its own
    assert isinstance(attempt("karpathy", json.dumps({"images": [rows[0], {**rows[1], key: HUGE}]}).encode()), str)


@pytest.mark.parametrize(
    ("name", "part", "key"),
    [
        ("coco", "images", "id"),
        ("coco", "images", "file_name"),
        ("coco", "annotations", "image_id"),
        ("coco", "annotations", "caption"),
        ("coco.json", "images", "id"),
        ("coco.json", "images", "file_name"),
    ],
)
def test_a_wrong_value_leaves_cocos_other_entries(attempt, name, part, key):
    rows = spoilt(COCO[part][0], key, WRONG)
    good, rejects = attempt(name, json.dumps({**COCO, part: [*rows, *COCO[part][1:]]}).encode())
    assert set("0123") <= set(good) and rejects.count("BadEntry") >= 8
    for value in WRONG:
        found = attempt(name, json.dumps({**COCO, part: value}).encode())
        assert isinstance(found, str) or (name == "coco.json" and not found[0])


@pytest.mark.parametrize("name", ["captions.csv", "table.csv"])
def test_odd_cells(attempt, name):
    for key in ("image", "caption", "id"):
        for wrong in ("", "\0", "9" * 5000, 'a\n"\ufeff'):
            good, rejects = attempt(name, csv_of([ROWS[0], {**ROWS[1], key: wrong}, *ROWS[2:]]))
            assert len(good) >= 3 and len(good) + len(rejects) == 4, (key, wrong[:9], good, rejects)
    assert len(attempt(name, csv_of(ROWS).replace(b"more", b"image"))[0]) == 4, "the first of two columns of a name"


LARGE = 2**62
KINDS = {
    "whole": pa.array([1, 2, 3, 4]),
    "unsigned": pa.array([2**64 - 1] * 4, pa.uint64()),
    "fraction": pa.array([1.5] * 4),
    "truth": pa.array([True] * 4),
    "nothing": pa.nulls(4),
    "bytes": pa.array([b"\xff"] * 4),
    "list": pa.array([["a"]] * 4),
    "struct": pa.array([{"bytes": 1, "path": 2}] * 4),
    "map": pa.array([[("a", "b")]] * 4, pa.map_(pa.string(), pa.string())),
    "decimal": pa.array([1] * 4).cast(pa.decimal128(38)),
    "long ago": pa.array([-LARGE] * 4, pa.timestamp("us")),
    "far days": pa.array([2**31 - 1] * 4, pa.date32()),
    "far milliseconds": pa.array([86_400_000 * 10**10] * 4, pa.date64()),
    "nowhere's time": pa.array([1] * 4, pa.timestamp("us", "Nowhere/City")),
    "duration": pa.array([LARGE] * 4, pa.duration("us")),
    "no UTF-8": pa.Array.from_buffers(
        pa.string(), 4, [None, pa.array([0, 1, 2, 3, 4], pa.int32()).buffers()[1], pa.py_buffer(b"\xff" * 4)]
    ),
    "categories": pa.array(["a.jpg"] * 4).dictionary_encode(),
    "large text": pa.array(NAMES, pa.large_string()),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("column", ["image", "id", "more"])
def test_parquet_columns_of_other_types(attempt, kind, column):
    table = pa.Table.from_pylist(ROWS)
    table = table.set_column(table.schema.get_field_index(column), column, KINDS[kind])
    found = attempt("table.parquet", parquet_of(table), ("more",) if column == "more" else ())
    assert isinstance(found, str) or len(found[0]) + len(found[1]) == 4
    if column == "more":
        fits = kind not in ("long ago", "far days", "far milliseconds", "nowhere's time", "no UTF-8")
        assert fits != isinstance(found, str), found


# Depth.


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("text", ['{"images": ' + "[" * 100_000, '{"images": [{"a": ' * 100_000])
@pytest.mark.parametrize("name", ["coco", "coco.json"])
def test_json_without_a_bottom(attempt, name, text):
    found = attempt(name, text.encode())
    assert f"nested deeper than {DEEPEST} levels" in found


@pytest.mark.parametrize("name", ["captions.jsonl", "table.jsonl"])
@pytest.mark.parametrize("text", ["é", "\\u00e9"])
def test_a_deep_line_is_a_reject(attempt, name, text):
    for levels, expected in ((DEEPEST - 1, 2), (DEEPEST, 1), (400, 1), (900, 1), (100_000, 1)):
        lines = [json.dumps(ROWS[0]), f'{{"image": "{NAMES[1]}", "caption": "{text}", "more": {nested(levels)}}}']
        lines = [line.replace('"id"', '"no_id"') for line in lines]
        good, rejects = attempt(name, "\n".join(lines).encode(), ("more",) * (name == "table.jsonl"))
        assert (len(good), rejects) == (expected, ["BadEntry"] * (2 - expected)), levels


def test_a_table_of_nothing_but_broken_lines_is_no_table_without_rows(attempt, tmp_path):
    """Beside other images it would be left out in silence."""
    for content in (b"{broken\n[1]\n", b"{}\n"):
        message = "--images: .*table.jsonl: expected a JSON object with columns in each line, found none in any"
        pathlib.Path(tmp_path, "table.jsonl").write_bytes(content)
        with pytest.raises(InputError, match=message):
            listed(ImageSets((str(tmp_path / "images"), str(tmp_path / "table.jsonl"))))


@pytest.mark.parametrize("name", ["coco", "captions.csv", "captions.jsonl"])
def test_one_line_of_ten_megabytes(attempt, name):
    for content in (b"x" * 10_000_000, b'{"a": "' + b"x" * 10_000_000, b"[" + b"1," * 10_000_000):
        assert isinstance(attempt(name, content), str)


# Zip files.


def with_broken_names() -> bytes:
    """A name that says that it is UTF-8, and is none."""
    return SOURCES["images.zip"][0].replace("é1.jpg".encode(), b"\xff\xff1.jpg")


@pytest.mark.parametrize(
    "content", [with_broken_names(), SOURCES["images.zip"][0][:-30], b"", b"PK\x05\x06" + b"\0" * 17]
)
def test_zip_files_that_cannot_be_listed(attempt, tmp_path, content):
    assert attempt("images.zip", content).startswith(f"--images: expected a zip file, found none at {tmp_path}")
    (tmp_path / "c").write_bytes(SOURCES["coco"][0])
    source = CaptionedImages((CaptionFile(str(tmp_path / "c"), (str(tmp_path / "images.zip"),)),))
    with pytest.raises(InputError, match=r"^--images: expected a zip file, found none at "):
        listed(source)


def test_a_member_without_a_name_is_passed_over(attempt):
    sink = io.BytesIO(SOURCES["images.zip"][0])
    with zipfile.ZipFile(sink, "a") as archive:
        archive.writestr("x", b"x")
        archive.filelist[-1].filename = ""  # in the directory, which is written now
    assert len(attempt("images.zip", sink.getvalue())[0]) == 4
