"""Some 20,000 images of every kind of source, compared with what plain Python makes of the same rows; odd names."""

import csv
import json
import os
import pathlib
import random
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.listing.catalogue import open_catalogue
from pipelines.listing.table import Listing
from pipelines.sources.captioned_images import CaptionedImages, CaptionFile
from pipelines.sources.image_sets import ImageSets
from pipelines.sources.table_columns import Columns
from tests.support.listing import listed
from tfrecords_schema.shards import order_in_shard, shard_of

COUNT = 20_000
ODD = [
    'it\'s "a" name',
    "new\nline",
    "back\\slash",
    "semi;colon -- /* x */",
    "\U0010ffff",
    "é日本",
    "%s $1 {0}",
    "a.b",
    ".c",
]


def plain_id(name):
    """For names that are all different without their endings."""
    return os.path.splitext(name)[0]


def rows_of_names():
    """(name, text): most below folders, some odd, some absolute, some wrong."""
    rng = random.Random(0)
    rows = [(f"d{number % 7}/image {number}.jpg", f"text {number}") for number in range(COUNT)]
    for number, odd in enumerate(ODD * 3):
        rows[rng.randrange(COUNT // 10) * 10 + 1] = (f"{number}/{odd}.png", odd)
    for number in rng.sample(range(0, COUNT, 10), 50):
        rows[number] = ("\u00a0\t", f"text {number}")
    return rows


def expected_of(rows, table, here, line):
    """(id, uri, text, message) of each row."""
    for number, (name, text) in enumerate(rows):
        if name.strip():
            yield plain_id(name), f"{here}/{name}", text, None
        else:
            where = f"{line(number)} of {table}"
            message = f"{where}: expected a name or URI in 'uri', found {name!r}"
            yield f"t-{number:08d}", table, text, message


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_of_every_kind(tmp_path, kind):
    rows, path = rows_of_names(), f"{tmp_path}/t.{kind}"
    (tmp_path / "d2").mkdir()
    (tmp_path / rows[2][0]).touch()
    ends = [2 + number for number in range(COUNT)]  # the last line of each row
    if kind in ("csv", "tsv"):
        with open(path, "w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if kind == "tsv" else ",")
            writer.writerows([("text", "uri"), *((text, name) for name, text in rows)])
        breaks = 0
        for number, (name, text) in enumerate(rows):
            breaks += name.count("\n") + text.count("\n")
            ends[number] += breaks
    elif kind == "jsonl":
        pathlib.Path(path).write_text("".join(json.dumps({"uri": name, "text": text}) + "\n" for name, text in rows))
        ends = [1 + number for number in range(COUNT)]
    else:
        names, texts = zip(*rows, strict=True)
        pq.write_table(pa.table({"uri": names, "text": texts}), path, row_group_size=3000)
        ends = list(range(COUNT))
    unit = "row" if kind == "parquet" else "line"
    expected = list(expected_of(rows, path, tmp_path, lambda number: f"{unit} {ends[number]}"))
    found = listed(ImageSets((path,), columns=Columns(metadata=("text",))))
    assert [(i.id, i.uri, *i.metadata, i.problem and i.problem.message) for i in found] == expected
    fewer = listed(ImageSets((path,), columns=Columns(metadata=("text",)), limit=777))
    assert [(i.id, i.uri) for i in fewer] == [each[:2] for each in expected[:777]]


def test_a_directory_a_pattern_and_a_zip_file(tmp_path):
    names = [f"d{number % 7}/{number}.jpg" for number in range(COUNT // 4)]
    names += [f"d0/{number}.png" for number in range(0, 70, 7)]  # beside the .jpg of the same name
    names += [f"odd/{odd.replace('/', '|')}.jpg" for odd in ODD if not odd.startswith(".")]
    names.append(os.fsdecode(b"odd/no \xff UTF-8.jpg"))
    for name in names:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (len(name) % 5))
    stems = [os.path.splitext(name)[0] for name in names]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    wanted = {n: n if stem in twice else stem for n, stem in zip(names, stems, strict=True)}
    for place in ("in", "in/**.*"):
        found = listed(ImageSets((f"{tmp_path}/{place}",)))
        assert [i.uri for i in found] == sorted(f"{tmp_path}/in/{name}" for name in names)
        assert {i.uri.removeprefix(f"{tmp_path}/in/"): i.id for i in found} == wanted
        assert all(i.version.startswith(f"{os.path.getsize(i.uri)}:") for i in found)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in names[:-1]:
            archive.writestr(name, name)
    found = listed(ImageSets((f"{tmp_path}/z.zip",)))
    assert {i.uri.removeprefix(f"{tmp_path}/z.zip!/"): i.id for i in found} == {n: wanted[n] for n in names[:-1]}


def test_names_in_several_places(tmp_path):
    """Each name in a directory, in a zip file, in both, or nowhere."""
    rng = random.Random(1)
    places = {f"{number}.jpg": rng.choice(["a", "z", "az", ""]) for number in range(3000)}
    (tmp_path / "a").mkdir()
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name, where in places.items():
            if "a" in where:
                (tmp_path / "a" / name).touch()
            if "z" in where:
                archive.writestr(f"deep/{name}", "")
    (tmp_path / "t.csv").write_text("\n".join(["uri", *places]))
    in_a, in_z = (f"{tmp_path}/a/{{}}".format, f"{tmp_path}/z.zip!/deep/{{}}".format)
    expected = {"a": in_a, "": in_a, "z": in_z, "az": str}
    found = listed(ImageSets((f"{tmp_path}/t.csv",), root=(f"{tmp_path}/a", f"{tmp_path}/z.zip")))
    assert [i.uri for i in found] == [expected[where](name) for name, where in places.items()]
    for item, (name, where) in zip(found, places.items(), strict=True):
        message = f"2 files have the name {name}: {in_a(name)}, {in_z(name)}" if where == "az" else None
        assert (item.problem and item.problem.message) == message and bool(item.version) == (len(where) == 1)


def coco(count):
    """Images and captions of COCO, in any order; some images have none, and some captions no image."""
    rng = random.Random(2)
    images = [{"id": number, "file_name": f"d/{number:06d}.jpg"} for number in range(count)]
    said = [{"image_id": rng.randrange(count + 20), "caption": f"Caption {number}."} for number in range(2 * count)]
    said[7]["caption"], said[8]["caption"] = " ", 'It\'s "odd"\n\U0010ffff.'
    rng.shuffle(images)
    return images, said


@pytest.mark.parametrize("at_once", [1_000_000, 700])
def test_coco_captions(tmp_path, at_once, monkeypatch):
    monkeypatch.setattr("pipelines.sources.captions_files._PIECES_AT_ONCE", at_once)
    images, said = coco(COUNT // 2)
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"annotations": said, "images": [*images, *images[:5]]}))
    captions: dict[str, list[str]] = {}
    for one in said:
        captions.setdefault(str(one["image_id"]), []).append(one["caption"])
    expected = {}
    for image in images:
        texts = tuple(text for text in captions.pop(str(image["id"]), ()) if text.strip())
        expected[str(image["id"])] = (f"{tmp_path}/{image['file_name']}", texts, None if texts else "NoCaption")
    expected |= {key: (str(path), (), "NotListed") for key in captions}
    found = listed(CaptionedImages((CaptionFile(str(path), (str(tmp_path),)),)))
    assert {i.id: (i.uri, i.captions, i.problem and i.problem.error) for i in found} == expected
    assert len(found) == len(expected) and len(captions) > 10
    missing = next(i for i in found if i.problem and i.problem.error == "NotListed")
    assert missing.problem.message == f"{len(captions[missing.id])} captions, but no image of this id"
    usable = [i.id for i in found if not i.problem]
    assert usable == [str(image["id"]) for image in images if str(image["id"]) in set(usable)], "in the file's order"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.text(alphabet='a,"\r\n', min_size=1, max_size=4), min_size=1, max_size=3), max_size=8))
def test_lines_are_counted_whatever_stands_in_values(tmp_path, rows):
    """Wrong rows are named by their last line, as Python's reader counts it row by row."""
    with open(tmp_path / "t.csv", "w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("uri", "x"), ("a", "b"), *rows])
    with open(tmp_path / "t.csv", newline="") as file:
        reader = csv.reader(file)
        wrong = [f"line {reader.line_num} " for values in reader if len(values) != 2]
    (tmp_path / "a").touch()
    found = [i.problem.message for i in listed(ImageSets((f"{tmp_path}/t.csv",))) if i.problem]
    assert [message[: message.index("of ")] for message in found if "expected 2 columns" in message] == wrong


def test_a_listing_has_each_image_in_its_shard_in_its_order(tmp_path):
    names = [f"{number}.jpg" for number in range(5000)]
    (tmp_path / "t.csv").write_text("\n".join(["uri", *names]))
    (tmp_path / names[0]).touch()
    listing = Listing(str(tmp_path / "out"), {"captions": 130})
    with open_catalogue() as catalogue:
        ImageSets((f"{tmp_path}/t.csv",)).list_into(catalogue)
        listing.write(catalogue, lambda split, number: ("", None))
    ids = [plain_id(name) for name in names]
    for shard in range(130):
        expected = sorted((one for one in ids if shard_of(one, 130) == shard), key=order_in_shard)
        assert [item.id for item in listing.shard("captions", shard).items] == expected
