"""Tar shards as places of images: what is listed of them, with captions and columns, in both pipelines."""

import io
import json
import pathlib
import tarfile
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.settings.features import Data
from pipelines.sources.image_sets import Columns, ImageSets
from pipelines.storage.beside import beside
from pipelines.training_records.source import source_of
from pipelines.vision import reading
from tests.support import tar_files
from tests.support.listing import listed
from tests.support.shelf import SHELF, ShelfFileSystem
from tfrecords_schema.errors import InputError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sample(key: str, caption: str | None = "Said.", /, **fields) -> list[tuple[str, bytes]]:
    """The files of a sample as img2dataset writes them; an image's bytes are its key."""
    texts = [] if caption is None else [(f"{key}.txt", caption.encode())]
    return [(f"{key}.jpg", key.encode()), *texts, (f"{key}.json", json.dumps({"key": key, **fields}).encode())]


def shards(count=3, size=4, **fields) -> list[str]:
    """Tar files 00000.tar and so on; keys are numbers."""
    paths = []
    for number in range(count):
        members = [
            one for n in range(size) for one in sample(f"{number * size + n:05}", f"Picture {n}.", n=n, **fields)
        ]
        paths.append(str(tar_files.write(f"{number:05}.tar", members)))
    return paths


def items_of(*given, columns=Columns(), **options):  # noqa: B008 - frozen
    return listed(ImageSets(given, columns=columns, **options))


def problems(items):
    return [(item.id, item.problem.error) for item in items if item.problem]


def refused(*given, **options) -> str:
    with pytest.raises(InputError) as error:
        items_of(*given, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def captioned(captions, images=None, val_fraction=None, field=None):
    given = {_named(split, "captions"): tuple(places) for split, places in captions.items()}
    given |= {_named(split, "images"): tuple(places) for split, places in (images or {}).items()}
    return listed(source_of(Data(**given, val_fraction=val_fraction, caption_field=field), 10))


def _named(split, kind):
    return f"{split}_{kind}" if split else kind


# Images


def test_ids_are_keys_and_uris_can_be_read_by_themselves(here):
    shards()
    for given in ("*.tar", "{00000..00002}.tar", str(here / "0000{0,1,2}.tar")):
        items = items_of(given)
        assert [item.id for item in items] == [f"{n:05}" for n in range(12)]
        assert all(reading.read(item.uri) == item.id.encode() for item in items)
    assert items[0].uri == f"{here}/00000.tar!/0/00000.jpg" and items[0].version.startswith("5:")
    assert [item.id for item in items_of("*.tar", limit=5)] == [f"{n:05}" for n in range(5)]
    assert len(items_of("*.tar", "00001.tar", str(here / "00002.tar"))) == 12, "each shard once"


def test_members_that_are_read_together_are_a_run_and_other_shards_move_none(here):
    shards(count=1, size=7)
    alone = [item.run for item in items_of("00000.tar", rows_together=3)]
    first = alone[0]
    assert alone == [first] * 3 + [first + 1] * 3 + [first + 2]
    shards(count=2, size=7)
    assert [item.run for item in items_of("*.tar", rows_together=3)][:7] == alone


def test_a_shard_that_changes_changes_the_version_of_its_images(here):
    shards(count=2)
    before = {item.id: item.version for item in items_of("*.tar")}
    tar_files.write("00001.tar", [one for n in range(4, 8) for one in sample(f"{n:05}", n=n)])
    after = {item.id: item.version for item in items_of("*.tar")}
    assert [key for key in before if before[key] != after[key]] == ["00004", "00005", "00006", "00007"]


def test_what_cannot_be_used_is_written_aside(here):
    members = [*sample("a"), ("b.txt", b"x"), ("c.jpg", b"c"), ("c.png", b"c"), *sample("a"), *sample("d")]
    tar_files.write("x.tar", members)
    items = items_of("x.tar")
    assert problems(items) == [("b", "BadEntry"), ("c", "AmbiguousName"), ("a", "DuplicateId")] and len(items) == 5
    assert (
        items[1].problem.message
        == "x.tar!/3072/b.txt: expected an image among its files, found 'txt'; they must stand "
        "together"
    )
    assert problems(items_of("x.tar", columns=Columns(image="png"))) == [(key, "BadEntry") for key in "abad"]


def test_the_rest_of_a_damaged_shard_is_one_reject_and_its_neighbours_are_listed(here):
    shards(count=3)
    data = pathlib.Path("00001.tar").read_bytes()
    pathlib.Path("00001.tar").write_bytes(data[:4000])  # behind the image of the second sample
    items = items_of("*.tar")
    good = [f"{n:05}" for n in (0, 1, 2, 3, 4, 5, 8, 9, 10, 11)]
    assert [item.id for item in items if not item.problem] == good
    (bad,) = [item for item in items if item.problem]
    assert (bad.id, bad.uri, bad.problem.error) == ("00001.tar", "00001.tar", "BadEntry")
    assert "what follows in this file is not read" in bad.problem.message


def test_what_is_no_tar_file_is_told(here):
    pathlib.Path("x.tar").write_bytes(b"\x1f\x8b" * 500)
    told = refused("x.tar")
    assert told.startswith(
        "--images: expected samples with images, found none that could be used; the first: x.tar: at byte 0"
    )
    tar_files.write("x.tar", [])
    assert refused("x.tar") == "--images: expected samples with images, found none in x.tar"
    assert refused("gone.tar") == f"--images: expected {_ACCEPTED}, found no file at 'gone.tar'"
    for name in ("x.tar.gz", "x.tgz", "x.tar.zst"):
        pathlib.Path(name).write_bytes(b"")
        assert refused(name).endswith("unpack it to a .tar file first")
    assert "{00000..00001}.tar" in refused("{00000..00001}.tar") and "00000.tar'" in refused("{00000..00001}.tar")


_ACCEPTED = (
    "a quoted pattern such as 'photos/**.jpg', a directory, a zip file, tar shards, an image file, a table "
    "(.csv, .tsv, .jsonl, .ndjson, .parquet) or a COCO .json"
)


def test_a_directory_of_shards_says_what_to_type(here):
    pathlib.Path("out").mkdir()
    tar_files.write("out/0.tar", sample("a"))
    assert refused("out").endswith("'out/*.tar' takes tar shards")


def test_an_empty_shard_among_others_is_nothing(here):
    """img2dataset writes one where no image of a shard could be had."""
    shards(count=1)
    tar_files.write("00001.tar", [])
    assert len(items_of("*.tar")) == 4


def test_shards_and_other_places_in_one_listing(here):
    shards(count=1, size=2)
    pathlib.Path("photos").mkdir()
    pathlib.Path("photos/x.jpg").write_bytes(b"x")
    pq.write_table(pa.table({"jpg": [b"y"], "key": ["k"], "licence": [5]}), "t.parquet")
    columns = Columns(metadata=("licence", "n=number"))
    with pytest.raises(InputError, match=r"--metadata_columns: t\.parquet: expected a column 'n'"):
        items_of("photos", "*.tar", "t.parquet", columns=columns)
    items = items_of("photos", "*.tar", columns=Columns(metadata=("n=number",)))
    assert [(item.id, item.metadata) for item in items] == [("x", (None,)), ("00000", (0,)), ("00001", (1,))]
    assert [item.id for item in items_of("t.parquet", "*.tar")] == ["k", "00000", "00001"]


# Columns


def test_fields_of_json_and_texts_are_columns_with_their_types(here):
    shards(count=2, size=2, licence="MIT", score=0.5, tags=["a"], ok=True)
    names = ("n", "licence", "score", "tags", "ok", "txt=alt", "key=key")
    source = ImageSets(("*.tar",), columns=Columns(metadata=names))
    assert source.metadata_fields() == [
        *(("n", pa.int64()), ("licence", pa.string()), ("score", pa.float64()), ("tags", pa.string())),
        *(("ok", pa.bool_()), ("alt", pa.string()), ("key", pa.string())),
    ]
    expected = (1, "MIT", 0.5, '["a"]', True, "Picture 1.", "00003")
    assert listed(source)[3].metadata == expected


def test_a_field_that_some_have_and_one_that_nobody_has(here):
    tar_files.write("x.tar", [*sample("a", n=1), *sample("b", n=2.5), *sample("c"), ("d.jpg", b"d")])
    items = items_of("x.tar", columns=Columns(metadata=("n",)))
    assert [item.metadata for item in items] == [(1.0,), (2.5,), (None,), (None,)] and not problems(items)
    told = refused("x.tar", columns=Columns(metadata=("m",)))
    assert told == "--metadata_columns: x.tar: expected files or JSON fields 'm' in samples, found 'key', 'n', 'json'"


@pytest.mark.parametrize(
    "bad", [b"[1]", b"{", b"\xff", b'{"a":' * 5000, b"[" * 100_000, b'{"n": 1' + b" " * (1 << 20) + b"}"]
)
def test_bad_json_is_a_fault_of_its_sample_alone(here, bad):
    tar_files.write("x.tar", [("a.jpg", b"a"), ("a.json", bad), *sample("b", n=7)])
    items = items_of("x.tar", columns=Columns(metadata=("n",)))
    assert problems(items) == [("a", "BadEntry")] and items[1].metadata == (7,)
    assert len(items[0].problem.message) < 200
    assert not problems(items_of("x.tar")), "not read where it is not asked for"


# Captions


def test_captions_of_txt_are_its_lines(here):
    tar_files.write(
        "x.tar", [*sample("a", "One.\r\nTwo.\n\n"), *sample("b", " \n"), *sample("c", None), *sample("d", "é")]
    )
    items = captioned({None: ["x.tar"]})
    assert [item.captions for item in items] == [("One.", "Two."), (), (), ("é",)]
    assert problems(items) == [("b", "NoCaption"), ("c", "NoCaption")]
    assert {item.split for item in items} == {"train"} and items[0].run is not None


def test_captions_of_a_field_are_a_text_or_a_list_of_texts(here):
    members = [*sample("a", said="One.\nMore."), *sample("b", said=["One.", "", 5, "Two."]), *sample("c", said=7)]
    tar_files.write("x.tar", members)
    items = captioned({None: ["x.tar"]}, field="said")
    assert [item.captions for item in items] == [("One.\nMore.",), ("One.", "Two."), ()]
    assert problems(items) == [("c", "NoCaption")]
    with pytest.raises(InputError, match=r"^--caption_field: x\.tar: expected files or JSON fields 'sad' in samples"):
        captioned({None: ["x.tar"]}, field="sad")


def test_splits_are_those_of_flags_or_held_out_by_id(here):
    shards(count=3, size=40)
    items = captioned({"train": ["{00000..00001}.tar"], "val": ["00002.tar"]})
    assert [item.split for item in items] == ["train"] * 80 + ["val"] * 40
    held_out = {item.id for item in captioned({None: ["*.tar"]}, val_fraction=0.2) if item.split == "val"}
    assert 10 < len(held_out) < 40
    again = captioned({None: ["00001.tar", "00000.tar"]}, val_fraction=0.2)
    assert {item.id for item in again if item.split == "val"} == {key for key in held_out if key < "00080"}


def test_the_three_layouts_of_img2dataset_list_the_same(here):
    members = [one for n in range(6) for one in sample(f"{n:09}", f"Picture {n}.", caption=f"Picture {n}.")]
    tar_files.write("00000.tar", members)
    pathlib.Path("files/00000").mkdir(parents=True)
    for name, data in members:
        pathlib.Path("files/00000", name).write_bytes(data)
    rows = {"caption": [f"Picture {n}." for n in range(6)], "key": [f"{n:09}" for n in range(6)]}
    images = {"jpg": [f"{n:09}".encode() for n in range(6)]}
    pq.write_table(pa.table({**rows, **images}), "images.parquet")
    for directory in (".", "files"):  # what stands beside them
        pq.write_table(pa.table(rows), f"{directory}/00000.parquet")
        pathlib.Path(directory, "00000_stats.json").write_text("{}")
    expected = [(f"{n:09}", (f"Picture {n}.",), f"{n:09}".encode()) for n in range(6)]
    for given, field in [
        ("*.tar", None),
        ("*.tar", "caption"),
        ("images.parquet", None),
        ("files", None),
        ("files", "caption"),
    ]:
        items = captioned({None: [given]}, field=field)
        found = [(item.id.removeprefix("00000/"), item.captions, reading.read(item.uri)) for item in items]
        assert found == expected and not problems(items), given


def test_a_shard_beside_a_captions_file(here):
    shards(count=1, size=2)
    pathlib.Path("photos").mkdir()
    pathlib.Path("photos/x.jpg").write_bytes(b"x")
    pathlib.Path("t.csv").write_text("image,caption\nx.jpg,Said.\n")
    items = captioned({None: ["00000.tar", "t.csv"]}, {None: ["photos"]})
    assert sorted((item.id, item.captions) for item in items) == [
        ("00000", ("Picture 0.",)),
        ("00001", ("Picture 1.",)),
        ("x", ("Said.",)),
    ]


@pytest.mark.parametrize(
    ("captions", "images", "field", "told"),
    [
        ({None: ["00000.tar"]}, {None: ["x"]}, None, "--images: expected none, since 00000.tar contains its images"),
        (
            {"val": ["00000.tar"]},
            {"val": ["x"]},
            None,
            "--val_images: expected none, since 00000.tar contains its images",
        ),
        ({None: ["t.csv"]}, {}, "said", "--caption_field: expected tar shards"),
        ({None: ["00000.tar", "./00000.tar"]}, {}, None, "--captions: expected each captions file once"),
        ({"train": ["00009.tar"]}, {}, None, "--train_captions: expected "),
        ({"train": ["{00000..00009}.tar"]}, {}, None, "--train_captions: expected a file at each of the 10 paths"),
        ({None: ["00000.tar.gz"]}, {}, None, "--captions: expected tar shards without compression"),
    ],
)
def test_flags_that_do_not_fit(here, captions, images, field, told):
    shards(count=1)
    pathlib.Path("t.csv").write_text("image,caption\n")
    with pytest.raises(InputError) as error:
        captioned(captions, images, field=field)
    assert str(error.value).startswith(told)


# Many of them, and far away


def test_remote_shards_are_walked_beside_each_other_and_listed_in_their_order(here, monkeypatch):
    monkeypatch.setattr(ShelfFileSystem, "root", str(here))
    pathlib.Path("d").mkdir()
    for path in shards(count=20, size=3):
        pathlib.Path(path).rename(here / "d" / path)
    items = items_of(f"{SHELF}d/*.tar", columns=Columns(metadata=("n",)))
    assert [(item.id, item.metadata) for item in items] == [(f"{n:05}", (n % 3,)) for n in range(60)]
    assert all(reading.read(item.uri) == item.id.encode() for item in items)


def test_streams_beside_each_other_are_bounded_and_end_with_their_reader():
    taken = []

    def numbers(start):
        for number in range(start, start + 1000):
            taken.append(number)
            yield number

    sources = [lambda start=start: numbers(start) for start in range(0, 50_000, 1000)]
    stream = beside(sources, 4)
    next(stream)
    stream.close()
    assert len(taken) < 100
    assert sorted(beside(sources[:7], 3)) == list(range(7000))

    def broken():
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(beside([broken, *sources], 4))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("walk")]


def test_a_tar_file_that_python_appends_to_is_read_to_its_end(here):
    tar_files.write("x.tar", sample("a"))
    with tarfile.open("x.tar", "a") as archive:
        info = tarfile.TarInfo("b.jpg")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"b"))
    assert [item.id for item in items_of("x.tar")] == ["a", "b"]
