"""What --images takes: files, directories, zip files and tables, in any mix; ids, places, and bytes of each image."""

import concurrent.futures
import csv
import io
import itertools
import json
import os
import pathlib
import pickle
import posixpath
import random
import zipfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.items import ImageError
from pipelines.listing.catalogue import open_catalogue
from pipelines.sources.image_files import has_image_ending
from pipelines.sources.image_ids import learn_names
from pipelines.sources.image_sets import Columns, ImageSets
from pipelines.storage import parquet_cells
from pipelines.vision import headers, reading
from tests.support.listing import counted, listed
from tests.support.shelf import ShelfFileSystem
from tfrecords_schema.errors import InputError

HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*names, content=None):
    """Files whose content is their name."""
    for name in names:
        pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(name).write_bytes(name.encode() if content is None else content)


def items_of(*given, **options):
    """The items of --images, after what holds for every source was checked."""
    source = pickle.loads(pickle.dumps(ImageSets(given, **options)))
    items = listed(source)
    names = [name for name, _ in source.metadata_fields()]
    assert all(item.id and item.uri and len(item.metadata) == len(names) for item in items)
    assert len(pickle.dumps(source)) < 1000 and json.dumps(source.describe())
    return items


def stored_bytes(source):
    with open_catalogue() as catalogue:
        source.list_into(catalogue)
        return source.bytes(catalogue)


def ids(*given, **options):
    return [item.id for item in items_of(*given, **options)]


def refused(*given, **options):
    """The message that they are refused with."""
    with pytest.raises(InputError) as error:
        listed(ImageSets(given, **options))
    assert "\n" not in str(error.value)
    return str(error.value)


def problems(items):
    return [(item.problem.stage, item.problem.error, item.problem.message) for item in items if item.problem]


# Files


def test_ids_of_files_are_paths_below_what_all_places_share(here):
    write("photos/b.jpg", "photos/a b#%é.jpg", "photos/sub/b.jpg", "other/x.png", "photos/c.txt")
    assert ids("photos/*.jpg") == ["a b#%é", "b"]
    assert sorted(ids("photos/**.jpg", "photos/*.jpg")) == ["a b#%é", "b", "sub/b"], "each file once"
    assert ids("photos/*.jpg", "other/*") == ["photos/a b#%é", "photos/b", "other/x"]
    assert ids("photos/b.jpg", "photos/sub/b.jpg") == ["b", "sub/b"], "as a shell hands them over"
    assert ids(f"{here}/photos/b.jpg", "./photos/b.jpg") == ["b"], "one file, however it is spelled"
    assert ids("photos", "other/x.png", limit=3) == ["photos/a b#%é", "photos/b", "photos/sub/b"]


def test_files_that_only_their_endings_tell_apart_keep_them(here):
    write("p/cat.jpg", "p/cat.png", "p/dog.jpg", "p/sub/dog.jpg")
    assert ids("p") == ["cat.jpg", "cat.png", "dog", "sub/dog"]
    assert ids("p", limit=1) == ids("p/*.jpg", "p/*.png")[:1] == ["cat.jpg"], "whatever is captioned"
    assert sorted(ids("p/*.png", "p/**.jpg")) == sorted(ids("p/**.jpg", "p/*.png")) == sorted(ids("p"))
    write("p/cat.JPG", "p/cat", "p/cat.jpg.png", "p/cat.jpg.png.gif", "p/dog.jpg.gif")
    assert ids("p/*") == ["cat", "cat.JPG", "cat.jpg", "cat.jpg.png", "cat.jpg.png.gif", "cat.png", "dog", "dog.jpg"]
    with zipfile.ZipFile("q.zip", "w") as archive:
        for member in ("in/1.jpg", "in/1.png", "in/2.png"):
            archive.writestr(member, member)
    write("q/in/2.jpg")
    assert ids("q.zip") == ["in/1.jpg", "in/1.png", "in/2"]
    assert ids("q.zip", "q") == ["in/1.jpg", "in/1.png", "in/2.png", "in/2.jpg"], "as if it were unpacked there"


NAMES = st.lists(st.sampled_from("ab"), min_size=1, max_size=2).map("".join)
ENDINGS = st.lists(st.sampled_from([".jpg", ".png"]), max_size=3).map("".join)


def ids_of_names(names):
    with open_catalogue() as catalogue:
        catalogue.run("CREATE TABLE names AS SELECT unnest(?::VARCHAR[]) AS name", names)
        learn_names(catalogue, "SELECT name FROM names")
        return dict(catalogue.run("SELECT name, id_of(name) FROM names"))


def plain_ids(names):
    """The same rule, written plainly."""

    def stem(name):
        return posixpath.splitext(name)[0]

    def keeps_ending(name):
        others = {other for other in names if stem(other) == stem(name)} - {name}
        is_name = stem(name) in names and stem(stem(name)) != stem(name)
        return bool(others) or (is_name and keeps_ending(stem(name)))

    return {name: name if keeps_ending(name) else stem(name) for name in names}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(NAMES, ENDINGS).map("".join), unique=True).flatmap(
        lambda n: st.tuples(*[st.permutations(n)] * 2)
    )
)
def test_no_two_names_have_one_id(orders):
    names, shuffled = orders
    stems = [os.path.splitext(name)[0] for name in names]
    found = ids_of_names(names)
    assert len(set(found.values())) == len(names)
    assert found == ids_of_names(shuffled) == plain_ids(names)
    if len(set(stems)) == len(names):
        assert list(found.values()) == stems, "nothing changes where there is no need"


def test_what_local_patterns_find(here):
    names = ("a.jpg", "sub/b.jpg", "sub/deep/c.jpg", "br[1].jpg", "folder.jpg/x.txt", "out/captions.jpg")
    write(*names)
    (here / "link.jpg").symlink_to("nowhere")

    def found(*patterns):
        return ids(*patterns, excluding=str(here / "out"))

    flat, deep = ["a", "br[1]", "link"], ["a", "br[1]", "link", "sub/b", "sub/deep/c"]
    assert found("*.jpg") == found("./*.jpg") == found(f"{here}//*.jpg") == flat, "a broken link is told of"
    assert found("**.jpg") == found("**/*.jpg") == found(f"{here}/**.jpg") == deep, "`**` crosses none, one or more"
    assert found("br[1].jpg") == found("./br[1].jpg") == ["br[1]"], "a file's own name, as a shell hands it over"
    assert found("link.jpg") == ["link"]
    assert found("folder.jpg/*") == ["x"], "a pattern takes every file"


def test_a_directory_takes_what_is_called_like_an_image(here, capsys):
    write("d[1]/a.JPG", "d[1]/deep/b.webp", "d[1]/n.txt", "d[1]/m.json", "d[1]/none", "d[1]/.hidden.jpg")
    write("d[1]/out/.work/x.jpg", "d[1]/out/c.jpg")
    assert ids("d[1]", excluding="d[1]/out") == ids("d[1]/", excluding=f"{here}/d[1]/out") == ["a", "deep/b"]
    line = "3 files in d[1] have no image's ending (.json, .txt, none) and were skipped; 'd[1]/**' takes every file"
    assert line in capsys.readouterr().err.splitlines()


def test_hidden_names_are_skipped_wherever_they_are(here, monkeypatch):
    """Unless a pattern says so: on a disk, in a zip file and in a store."""
    monkeypatch.setattr(ShelfFileSystem, "root", str(here))
    names = ["a.jpg", ".b.jpg", "._a.jpg", ".c/d.jpg", "e/f.jpg", "e/.g.jpg", "e/.h/i.jpg", "e/.h/.j/k.jpg"]
    write(*(f"d/{name}" for name in names))
    with zipfile.ZipFile("d.zip", "w") as archive:
        for name in names:
            archive.write(f"d/{name}", name)
    assert ids("d") == ids("d.zip") == ids("shelf://d") == ["a", "e/f"]
    with zipfile.ZipFile("dots.zip", "w") as archive:
        for name in ("./a.jpg", "b/../c.jpg"):
            archive.writestr(name, name)
    assert len(ids("dots.zip")) == 2, "these are only ways to a file"

    def found(pattern):
        return [item.uri.removeprefix("shelf://") for item in items_of(pattern)]

    for pattern in ("**.jpg", "**/*.jpg", "**", "[!x]*.jpg", "?*.jpg", "*/*.jpg", ".*", "**/.*.jpg", ".c/*", "e/.h/**"):
        assert found(f"shelf://d/{pattern}") == found(f"d/{pattern}") != [], pattern


def test_a_sample_is_of_the_whole_set(here):
    write(*(f"d/{number:02}.jpg" for number in range(15)))
    with open_catalogue() as catalogue:
        assert catalogue.sample(5) == []
        ImageSets(("d",)).list_into(catalogue)
        for size in (1, 4, 8, 10, 15, 40):
            found = [int(item.id) for item in catalogue.sample(size)]
            apart = {after - before for before, after in itertools.pairwise([*found, 15])}
            assert len(found) == min(size, 15) and found[0] == 0 and max(apart) - min(apart) <= 1, size


def test_endings_give_a_terminal_no_orders(here, capsys):
    write("d/a.jpg", "d/b.\x1b[2J\ndone")
    assert ids("d") == ["a"]
    assert r"1 file in d has no image's ending (.\x1b[2j\ndone) and was" in capsys.readouterr().err


def test_endings_are_those_that_are_decoded():
    Image.init()
    for ending, name in Image.registered_extensions().items():
        assert has_image_ending(f"x{ending.upper()}") == (name in headers._FORMATS), ending
    assert not has_image_ending("jpg") and not has_image_ending("x.jpg/y") and not has_image_ending("x.heic")


def test_zip_files(here, capsys):
    for name in ("a", "b"):
        with zipfile.ZipFile(f"{name}.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            for member in ("in/1.jpg", "in/2.jpg", "in/2.jpg", "__MACOSX/in/._1.jpg", "readme.txt"):
                archive.writestr(member, f"{name} {member}")
    one, two = items_of("a.zip")
    assert (one.id, one.uri, reading.read(one.uri)) == ("in/1", "a.zip!/in/1.jpg", b"a in/1.jpg") and one.version
    assert problems([two]) == [("list", "AmbiguousName", "several members of a.zip have the name in/2.jpg")]
    assert "1 file in a.zip has no image's ending (.txt) and was skipped" in capsys.readouterr().err
    assert ids("*.zip") == ids("a.zip", "b.zip") == ["a/in/1", "a/in/2", "b/in/1", "b/in/2"]
    write("p/x.jpg")
    assert ids("p", "a.zip") == ["p/x", "a/in/1", "a/in/2"]
    write("bad.zip")
    assert "--images: expected a zip file, found none at bad.zip" in refused("bad.zip")


def test_versions_and_bytes(here):
    write("p/a.jpg", content=b"12345")
    source = ImageSets(("p",))
    (before,) = listed(source)
    assert stored_bytes(source) == 5
    write("p/a.jpg", content=b"123456")
    (after,) = listed(source)
    assert before.version != after.version


def test_what_is_refused(here):
    write("notes.txt", "empty/n.txt", "tables/x.parquet")
    assert refused("no/*.jpg") == "--images: expected images, found no file that matches 'no/*.jpg'"
    assert refused("no/*.csv") == "--images: expected images, found no file that matches 'no/*.csv'"
    for name in ("no.jpg", "no.csv", "no.zip", "no.json", "no", "notes.txt"):
        found = refused(name)
        assert repr(name) in found and "a quoted pattern" in found and ".parquet" in found and "zip" in found
    only = "--images: expected images, found only other files in"
    assert refused("empty") == f"{only} empty (.txt); 'empty/**' takes every file"
    assert refused("tables") == f"{only} tables (.parquet); 'tables/*.parquet' takes tables"
    assert refused("empty/**", excluding="empty") == "--images: expected images, found no file that matches 'empty/**'"
    write("p/a.jpg")
    assert refused("p", columns=Columns(uri="x")).startswith("--uri_column: expected a table (")
    assert refused("p", columns=Columns(metadata=("x",))).startswith("--metadata_columns: expected a table (")
    assert refused("p", root=("p",)).startswith("--root: expected a table (")


class Remote(ShelfFileSystem):
    """An object store: names below test:// are files below the working directory; there are no directories."""

    protocol = "test"


fsspec.register_implementation("test", Remote, clobber=True)


def test_object_stores(here):
    write("bucket/photos/a.jpg", "bucket/photos/deep/b.png", "bucket/photos/n.txt")
    assert ids("test://bucket/photos") == ["a", "deep/b"]
    assert ids("test://bucket/photos/*.jpg") == ids("test://bucket/photos/a.jpg") == ["a"]
    first, second = items_of("test://bucket/photos", "bucket/photos/a.jpg", limit=2)
    assert first.uri == "test://bucket/photos/a.jpg" and reading.read(first.uri) == b"bucket/photos/a.jpg"
    assert first.version.startswith("19:") and second.id.endswith("photos/deep/b")
    write("bucket/t.csv", content=b"uri,id\nphotos/a.jpg,1\ntest://bucket/photos/deep/b.png,2\n")
    assert [i.uri for i in items_of("test://bucket/t.csv")] == [
        "test://bucket/photos/a.jpg",
        "test://bucket/photos/deep/b.png",
    ]
    pq.write_table(pa.table({"image": [b"1", b"2"]}), "bucket/t.parquet")
    cells = items_of("test://bucket/t.parquet")
    assert [reading.read(item.uri) for item in cells] == [b"1", b"2"] and all(item.version for item in cells)
    names = [f"many/{folder}/{number}.jpg" for folder in ("z", "a", "m") for number in range(12)]
    write(*names)
    for place in ("test://many", "test://many/**.jpg"):
        assert [i.uri for i in items_of(place)] == sorted(f"test://{name}" for name in names)
        assert [i.uri for i in items_of(place, limit=15)] == sorted(f"test://{name}" for name in names)[:15]
    where = "test://bucket/none"
    assert refused(where) == f"--images: expected images, found none in {where}, which has no files"


# Tables of names


def test_tables_of_names(here):
    write("im/0.jpg", "im/1.jpg")
    write("t.csv", content='\ufeffpath,text\nim/0.jpg,é\n./im/1.jpg,"a, b"\n'.encode())
    write("t.tsv", content=b"path\ttext\nim/0.jpg\ta b\nim/1.jpg\tc\n")
    lines = [{"path": "im/0.jpg", "text": "x"}, {"path": "im/1.jpg", "text": "y"}]
    write("t.jsonl", content="\n\n".join(map(json.dumps, lines)).encode())
    write("t.NDJSON", content="\r\n".join(map(json.dumps, lines)).encode())
    pq.write_table(pa.Table.from_pylist(lines), "t.parquet")
    expected = {"t.csv": ["é", "a, b"], "t.tsv": ["a b", "c"]}
    for name in ("t.csv", "t.tsv", "t.jsonl", "t.NDJSON", "t.parquet"):
        texts = expected.get(name, ["x", "y"])
        found = items_of(name, columns=Columns(metadata=("text",)))
        assert [item.id for item in found] == ["im/0", "im/1"]
        assert [reading.read(item.uri) for item in found] == [b"im/0.jpg", b"im/1.jpg"]
        assert [item.metadata[0] for item in found] == texts
        assert not any(item.version for item in found), "left to who makes the shard"
    (one,) = items_of("t.tsv", limit=1)
    assert one.run is None


def test_names_are_looked_up_below_root(here):
    write("im/0.jpg", "far/0.jpg")
    write("lists/t.csv", content=b"file_name\n0.jpg\n")
    with zipfile.ZipFile("im.zip", "w") as archive:
        archive.writestr("deep/0.jpg", b"zipped")
    assert refused("lists/t.csv").startswith(
        "--root: expected the images of lists/t.csv, found none of its first 1 beside lists/t.csv, such as '0.jpg'; "
    )
    assert [item.uri for item in items_of("lists/t.csv", root=("im",))] == ["im/0.jpg"]
    assert [item.uri for item in items_of("lists/t.csv", root=("im.zip",))] == ["im.zip!/deep/0.jpg"]
    (item,) = items_of("lists/t.csv", root=("im", "far"))
    assert problems([item])[0][1] == "AmbiguousName" and item.id == "0"
    assert refused("lists/t.csv", root=("nowhere",)).startswith("--root: expected a directory")


def test_ids_of_absolute_names_are_what_they_do_not_share(here):
    write("im/a/0.jpg", "im/b/0.jpg")
    write("one.csv", content=f"uri\n{here}/im/a/0.jpg\n".encode())
    write("two.csv", content=f"uri\n{here}/im/b/0.jpg\nim/a/0.jpg\nfile://{here}/im/a/1.jpg\n".encode())
    assert ids("one.csv") == ["0"]
    assert ids("one.csv", "two.csv") == ids("*.csv") == ["a/0", "b/0", "im/a/0", "a/1"]


def test_names_in_tables_that_only_their_endings_tell_apart(here):
    write("im/cat.jpg", "im/cat.png", "im/dog.jpg", "im/dog.png")
    write("a.csv", content=f"uri\nim/cat.jpg\n{here}/im/dog.jpg\nim/cat.jpg\n".encode())
    write("b.jsonl", content=f'{{"uri": "im/cat.png"}}\n{{"uri": "{here}/im/dog.png"}}\n'.encode())
    assert ids("a.csv") == ["im/cat", "dog", "im/cat"], "one image twice has one id, and is rejected"
    assert ids("a.csv", "b.jsonl") == ["im/cat.jpg", "dog.jpg", "im/cat.jpg", "im/cat.png", "dog.png"]
    assert ids("b.jsonl", "a.csv", limit=1) == ["im/cat.png"]
    write("c.csv", content=b"uri,id\nim/cat.jpg,x\n")
    assert ids("b.jsonl", "c.csv") == ["im/cat", "dog", "x"], "a name beside a given id is no id"


def test_ids_of_a_column(here):
    write("x.jpg")
    rows = [{"image": "x.jpg", "id": key} for key in (7, "é", 1.5)]
    write("t.jsonl", content="\n".join(map(json.dumps, rows)).encode())
    items = items_of("t.jsonl")
    assert [item.id for item in items] == ["7", "é", "t-00000002"]
    assert problems(items) == [
        ("list", "BadEntry", "line 3 of t.jsonl: expected an id in 'id', text or an integer, found 1.5")
    ]
    write("u.csv", content=b"image,image_id,id,key\nx.jpg,i,j,k\n")
    assert ids("u.csv") == ["i"] and ids("u.csv", columns=Columns(id="key")) == ["k"]
    pq.write_table(pa.table({"path": ["x.jpg"], "id": pa.array([2**62], pa.int64())}), "p.parquet")
    assert ids("p.parquet") == [str(2**62)]


def test_rows_that_are_wrong_are_told_of(here):
    write("x.jpg")
    write("t.csv", content=b'id,uri,text\n1,x.jpg,a\n\n2,,b\n3,x.jpg\n,x.jpg,d\n5," ",e\n"6\n7",x.jpg,f\n8,x.jpg,g,h\n')
    items = items_of("t.csv", columns=Columns(metadata=("text",)))
    assert [(item.id, item.metadata[0]) for item in items] == [
        ("1", "a"),
        ("2", "b"),
        ("t-00000002", None),
        ("t-00000003", "d"),
        ("5", "e"),
        ("6\n7", "f"),
        ("t-00000006", None),
    ]
    assert [message for _, _, message in problems(items)] == [
        "line 4 of t.csv: expected a name or URI in 'uri', found nothing",
        "line 5 of t.csv: expected 3 columns, as the first line has, found 2",
        "line 6 of t.csv: expected an id in 'id', text or an integer, found nothing",
        "line 7 of t.csv: expected a name or URI in 'uri', found ' '",
        "line 10 of t.csv: expected 3 columns, as the first line has, found 4",
    ]
    lines = ['{"uri": "x.jpg", "id": 0}', '{"uri": 3, "id": 1}', '{"uri":', "[1]", "null", '{"id": 1}', "[" * 100_000]
    write("t.jsonl", content="\n".join(lines).encode())
    assert [message for _, _, message in problems(items_of("t.jsonl"))][:5] == [
        "line 2 of t.jsonl: expected a name or URI in 'uri', found 3",
        "line 3 of t.jsonl: expected a JSON object, found '{\"uri\":'",
        "line 4 of t.jsonl: expected a JSON object, found '[1]'",
        "line 5 of t.jsonl: expected a JSON object, found 'null'",
        "line 6 of t.jsonl: expected a name or URI in 'uri', found nothing",
    ]
    for name in ("e.csv", "e.tsv", "e.jsonl", "h.csv"):
        write(name, content=b"uri,text\n" if name == "h.csv" else b"")
        assert (items_of(name, "x.jpg")[0].id, len(items_of(name))) == ("x", 0)


def test_tables_that_are_refused(here):
    write("x.jpg", "b.parquet")
    write("a.csv", content=b"x.jpg,y\nx.jpg,z\n")
    assert refused("a.csv") == (
        "--images: a.csv: expected a column of images, found 'x.jpg', 'y'; say which it is with --uri_column (names or "
        "URIs) or --image_column (bytes, in Parquet)"
    )
    for columns in (Columns(uri="q"), Columns(image="q"), Columns(id="q"), Columns(uri="y", metadata=("q=r",))):
        (flag,) = {"uri_column", "image_column", "id_column", "metadata_columns"} & set(columns.given()) - (
            {"uri_column"} if columns.metadata else set()
        )
        assert refused("a.csv", columns=columns) == f"--{flag}: a.csv: expected a column 'q', found 'x.jpg', 'y'"
    assert refused("a.csv", columns=Columns(image="y")).startswith("--image_column: a.csv: expected a Parquet")
    assert "found both" in refused("a.csv", columns=Columns(uri="y", image="y"))
    assert refused("b.parquet").startswith("--images: b.parquet: expected Parquet, found something unreadable: ")
    images = pa.array([{"bytes": b"x" * 99, "path": "x.jpg"}, {"bytes": None, "path": "x.jpg"}])
    pq.write_table(pa.table({"image": images}), "d.parquet", compression="none")
    content = pathlib.Path("d.parquet").read_bytes()
    write("d.parquet", content=b"PAR1" + b"\xff" * 150 + content[154:])  # the footer is whole, the cells are not
    assert refused("d.parquet").startswith("--images: d.parquet: expected Parquet, found something unreadable: ")
    write("l.csv", content="uri\né.jpg\n".encode("latin-1"))
    assert refused("l.csv").startswith("--images: l.csv: expected CSV in UTF-8, found something unreadable: 'utf-8'")
    write("q.csv", content=b'uri\nx.jpg\n"x.jpg\n' + b"x.jpg\n" * 9)
    assert refused("q.csv").startswith("--images: q.csv: expected CSV in UTF-8, found something unreadable: line 12: ")
    write("h.csv", content=b"uri,n\nsftp://example.com/y.jpg,2\nftp://example.com/y.jpg,2\n")
    assert refused("h.csv") == (
        "--images: line 2 of h.csv: expected files that can be read, found sftp:// in 'sftp://example.com/y.jpg'; "
        "expected a local path, gs://, s3://, abfs:// or hdfs://"
    )
    for taken in ("image_id", "height", "captions", "attention"):
        found = refused("h.csv", columns=Columns(metadata=(f"n={taken}",)))
        assert f"found '{taken}'" in found and f"n=input_{taken}" in found
    assert "given twice" in refused("h.csv", columns=Columns(metadata=("n", "uri=n")))
    assert "NAME=NEW" in refused("h.csv", columns=Columns(metadata=("n=",)))
    pq.write_table(pa.table({"n": [1], "m": [2]}), "n.parquet")
    assert "--uri_column: n.parquet: expected text in column 'n', found type int64" in refused(
        "n.parquet", columns=Columns(uri="n")
    )


def test_one_row_of_another_kind_does_not_stop_the_rest(here):
    """A name on a web server, one that is nowhere beside images in cells, and file: URIs in every spelling."""
    write("x.jpg")
    here = str(here)
    uris = [
        "x.jpg",
        "sftp://example.com/y.jpg",
        f"file:{here}/x.jpg",
        f"file://localhost{here}/x.jpg",
        f"file://{here}/x.jpg",
    ]
    write("a.csv", content="\n".join(["id,uri", *(f"{n},{uri}" for n, uri in enumerate(uris))]).encode())
    found = {item.id: item for item in listed(ImageSets(("a.csv",)))}
    assert counted(ImageSets(("a.csv",))) == {"captions": 5}
    assert {found[n].uri for n in "234"} == {f"{here}/x.jpg"}
    with pytest.raises(ImageError, match=r"no filesystem for sftp://\S+; expected a local path"):
        reading.read(found["1"].uri)
    cells = [{"bytes": b"data", "path": None}, {"bytes": None, "path": "gone.jpg"}]
    pq.write_table(pa.table({"image": cells}), "c.parquet")
    assert counted(ImageSets(("c.parquet",))) == {"captions": 2}


def test_a_link_to_a_directory_above_finds_nothing_twice(here):
    write("d/a.jpg", "d/e/b.jpg")
    (here / "d/e/loop").symlink_to("..")
    (here / "f").symlink_to("d")
    assert [item.id for item in listed(ImageSets(("d",)))] == ["a", "e/b"]
    assert [item.id for item in listed(ImageSets(("f",)))] == ["a", "e/b"]
    assert sorted(item.id for item in listed(ImageSets(("**.jpg",)))) == ["d/a", "d/e/b"]


def test_metadata_has_types(here):
    write("x.jpg")
    rows = [
        {"uri": "x.jpg", "b": True, "i": 1, "f": 1, "s": "a", "m": 1, "n": [1], "large": 2**64, "half": "\ud800é"},
        {"uri": "x.jpg", "b": None, "i": None, "f": 0.5, "s": None, "m": "é", "n": {"k": None}, "none": None},
    ]
    write("t.jsonl", content="\n".join(map(json.dumps, rows)).encode())
    names = ("b", "i", "f", "s", "m", "n", "large", "half", "none=nothing")
    columns = Columns(metadata=names)
    kinds = ["bool", "int64", "double", "string", "string", "string", "string", "string", "string"]
    assert [(n, str(t)) for n, t in ImageSets(("t.jsonl",), columns=columns).metadata_fields()] == list(
        zip([*names[:-1], "nothing"], kinds, strict=True)
    )
    first, second, alone = items_of("t.jsonl", "x.jpg", columns=columns)
    assert first.metadata == (True, 1, 1.0, "a", "1", "[1]", str(2**64), "\ufffdé", None)
    assert second.metadata == (None, None, 0.5, None, '"é"', '{"k": null}', None, None, None)
    assert alone.metadata == (None,) * 9


def test_metadata_of_several_tables_agrees(here):
    write("x.jpg")
    nested = pa.list_(pa.struct([("k", pa.int8())]))
    a = pa.table({"uri": ["x.jpg"], "n": pa.array([2**60], pa.int64()), "l": pa.array([[{"k": 1}]], nested)})
    pq.write_table(a.append_column("c", pa.array(["u"]).dictionary_encode()), "a.parquet")
    pq.write_table(pa.table({"uri": ["x.jpg"], "n": [0.5], "l": pa.array([None], nested), "c": ["v"]}), "b.parquet")
    columns = Columns(metadata=("n", "l", "c"))
    source = ImageSets(("*.parquet",), columns=columns)
    fields = source.metadata_fields()
    assert fields == [("n", pa.float64()), ("l", nested), ("c", pa.string())]
    rows = [dict(zip("nlc", item.metadata, strict=True)) for item in listed(source)]
    assert pa.Table.from_pylist(rows, schema=pa.schema(fields)).to_pylist() == [
        {"n": 2.0**60, "l": [{"k": 1}], "c": "u"},
        {"n": 0.5, "l": None, "c": "v"},
    ]
    write("c.csv", content=b"uri,n\nx.jpg,1\n")
    found = refused("a.parquet", "c.csv", columns=Columns(metadata=("n",)))
    assert "found 'n' as int64 in a.parquet and as string in c.csv" in found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[st.text(max_size=5)] * 3)), st.sampled_from([1, 5, None]))
def test_every_row_of_a_csv_is_accounted_for(tmp_path, rows, limit):
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8", errors="replace") as handle:
        csv.writer(handle, quoting=csv.QUOTE_ALL).writerows([("uri", "id", "text"), *rows])
    columns = Columns(metadata=("text",))
    try:
        items = items_of(f"{tmp_path}/t.csv", root=(str(tmp_path),), columns=columns, limit=limit)
    except InputError as error:
        assert "--root: expected the images" in str(error) or "expected files that can be read" in str(error)
        return
    assert len(items) == min(len(rows), limit or len(rows))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=8) | st.sampled_from(['{"uri": "x.jpg"}', '{"uri": 1}', "{}", "null"])))
def test_every_line_of_a_jsonl_is_accounted_for(tmp_path, lines):
    text = [line.encode("utf-8", "replace").decode().replace("\n", "").replace("\r", "") for line in lines]
    (tmp_path / "x.jpg").write_bytes(b"")
    (tmp_path / "t.jsonl").write_bytes("\n".join(['{"uri": "x.jpg"}', *text]).encode())
    items = items_of(f"{tmp_path}/t.jsonl")
    assert len(items) == 1 + sum(bool(line.strip()) for line in text)


HALVES = [
    '{"uri": [1',
    "2]}",
    '{"uri": "a"}, {"uri": "b"}',
    '{"uri": "x.jpg"}',
    '{"uri": "y.jpg"',
    '"id": 3}',
    "{}",
    "1",
]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(HALVES)))
def test_lines_that_only_together_are_json_are_wrong(tmp_path, lines):
    def is_object(line):
        try:
            return isinstance(json.loads(line), dict)
        except ValueError:
            return False

    (tmp_path / "x.jpg").write_bytes(b"")
    lines = ['{"uri": "x.jpg"}', *lines]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    found = [i.problem and i.problem.message for i in items_of(f"{tmp_path}/t.jsonl")]
    assert ["a JSON object" in (message or "") for message in found] == [not is_object(line) for line in lines]


# Images in Parquet


def parquet(path, count, group=None, **columns):
    """A table of images as pandas writes it; returns them."""
    rng = random.Random(count)
    found = [rng.randbytes(rng.randrange(1, 3000)) for _ in range(count)]
    pq.write_table(pa.table({"image": found, **columns}), path, row_group_size=group)
    return found


@pytest.mark.parametrize("group", [None, 100, 7, 1])
def test_cells_are_read_in_any_order_by_many_threads(here, group):
    expected = parquet("t.parquet", 300, group)
    items = items_of("t.parquet")
    assert [item.uri for item in items[:2]] == ["t.parquet!/image/0", "t.parquet!/image/1"]
    assert [item.id for item in items[:2]] == ["t-00000000", "t-00000001"]
    assert [item.run - items[0].run for item in items] == [0] * 300
    orders = {"forward": range(300), "backward": range(299, -1, -1)}
    orders["shuffled"] = random.Random(0).sample(range(300), 300)
    orders["twice"] = [row for row in range(0, 60) for _ in (0, 1)]
    orders["two shards"] = [row for pair in zip(range(150), range(150, 300), strict=True) for row in pair]
    for name, order in orders.items():
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda row: reading.read(items[row].uri), order))
        assert found == [expected[row] for row in order], name


def test_reading_forward_decodes_each_row_once(here, monkeypatch):
    parquet("t.parquet", 500)
    decoded = []
    whole = parquet_cells._Cursor._decode
    monkeypatch.setattr(parquet_cells._Cursor, "_decode", lambda *args: (decoded.append(1), whole(*args)))
    uris = [item.uri for item in items_of("t.parquet")]

    def decodes(runs) -> int:
        parquet_cells.open_cells.cache_clear()
        decoded.clear()
        for run in runs:
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                list(pool.map(reading.read, run))
        return len(decoded)

    for runs in ([uris], [uris[:250], uris[250:]]):
        # One of ten: rows are so small here that a thread which has to wait for a core falls behind by 256.
        assert any(decodes(runs) <= 500 / 16 + 10 for _ in range(10))
    parquet_cells.open_cells.cache_clear()
    decoded.clear()
    for one, other in zip(uris[:250], uris[250:], strict=True):  # two shards at the same time
        reading.read(one), reading.read(other)
    assert len(decoded) <= 1.5 * 500 / 16 + 10
    cells = parquet_cells.open_cells("t.parquet", "image")
    assert sum(len(cursor.held) for cursor in cells._cursors) <= 2 * parquet_cells._KEPT


def test_hugging_face_parquet(here):
    datasets = pytest.importorskip("datasets")
    jpegs = []
    for number in range(4):
        Image.new("RGB", (8, 8), (number * 50, 0, 0)).save(buffer := io.BytesIO(), "JPEG")
        jpegs.append(buffer.getvalue())
    write("im/3.jpg", content=jpegs[3])
    rows = [{"bytes": data, "path": f"{number}.jpg"} for number, data in enumerate(jpegs[:3])]
    rows.append({"bytes": None, "path": "im/3.jpg"})
    dataset = datasets.Dataset.from_dict({"image": rows, "label": [1, 2, 3, 4]})
    dataset.cast_column("image", datasets.Image()).to_parquet("train.parquet", batch_size=2)
    assert pq.ParquetFile("train.parquet").num_row_groups == 2
    items = items_of("train.parquet", columns=Columns(id="label", metadata=("label",)))
    assert [(item.id, item.metadata) for item in items] == [("1", (1,)), ("2", (2,)), ("3", (3,)), ("4", (4,))]
    assert [item.uri.split("/", 1)[1] for item in items] == ["image/0", "image/1", "image/2", "im/3.jpg"]
    assert [item.run == items[0].run for item in items] == [True, True, True, False]
    assert [reading.read(item.uri) for item in items] == jpegs
    assert ids("train.parquet")[3] == "im/3"


def test_pandas_parquet(here):
    pandas = pytest.importorskip("pandas")
    data = [bytes([number]) * 9 for number in range(30)]
    pandas.DataFrame({"jpg": data, "day": pandas.date_range("2024-01-01", periods=30)}).to_parquet("p.parquet")
    items = items_of("p.parquet", columns=Columns(metadata=("day",)))
    assert [reading.read(item.uri) for item in items] == data and items[3].uri == "p.parquet!/jpg/3"
    fields = ImageSets(("p.parquet",), columns=Columns(metadata=("day",))).metadata_fields()
    column = pa.array([item.metadata[0] for item in items], fields[0][1])
    assert column.equals(pq.read_table("p.parquet")["day"].combine_chunks())
    stored = pq.read_metadata("p.parquet").row_group(0).column(0).total_compressed_size
    assert stored_bytes(ImageSets(("p.parquet",))) == stored


def test_rows_that_are_stored_together_are_in_one_shard(here):
    parquet("a.parquet", 30)
    (here / "b").mkdir()
    parquet("b/a.parquet", 10)
    write("f/1.jpg", "f/2.jpg")
    items = items_of("a.parquet", "f", "b/a.parquet", rows_together=7)
    assert items[0].id == "a-00000000" and items[30].id == "1" and items[32].id == "b/a-00000000"
    a, files, b = items[:30], items[30:32], items[32:]
    assert [item.run - a[0].run for item in a] == [row // 7 for row in range(30)]
    assert [item.run - b[0].run for item in b] == [row // 7 for row in range(10)]
    assert [item.run for item in files] == [None, None] and a[0].run != b[0].run
    alone = items_of("b/a.parquet", rows_together=7)
    assert [item.run for item in alone] == [item.run for item in b], "whatever lies beside it"


def test_two_rows_of_one_id_are_one_row_and_a_reject(here):
    parquet("a.parquet", 4, id=["w", "x", "x", "z"])
    write("t.csv", content=b"uri,id\na.jpg,w\na.jpg,y\n")
    write("a.jpg")
    items = items_of("a.parquet", "t.csv")
    assert [(item.id, item.problem.error if item.problem else None) for item in items] == [
        ("w", None),
        ("x", None),
        ("x", "DuplicateId"),
        ("z", None),
        ("w", "DuplicateId"),
        ("y", None),
    ]
    assert problems(items)[0] == ("list", "DuplicateId", "the id x was taken by a.parquet!/image/1")


def test_one_file_in_several_rows_is_one_image_and_rejects_that_say_so(here):
    write("t.csv", content=b"uri\na.jpg\nb.jpg\na.jpg\n")
    write("a.jpg", "b.jpg")
    items = items_of("t.csv")
    assert [item.problem is None for item in items] == [True, True, False]
    told = "this image was listed already, in an earlier row or place"
    assert problems(items) == [("list", "DuplicateId", told)]


def test_cells_without_an_image(here):
    rows = [{"bytes": b"0", "path": None}, {"bytes": None, "path": None}, None, {"bytes": b"", "path": "x.jpg"}]
    pq.write_table(pa.table({"image": pa.array(rows, HF_IMAGE)}), "hf.parquet")
    items = items_of("hf.parquet")
    assert [message for _, _, message in problems(items)] == [
        f"row {row} of hf.parquet: expected a name or URI in 'image.path', found nothing" for row in (1, 2)
    ]
    assert reading.read(items[0].uri) == b"0"
    pq.write_table(pa.table({"image": [b"0", None, b""]}), "t.parquet")
    first, *others = items_of("t.parquet")
    assert reading.read(first.uri) == b"0"
    for row, uri in enumerate([*(item.uri for item in others), items[3].uri], 1):
        with pytest.raises(ImageError) as error:
            reading.read(uri)
        where = f"row {row} of {uri.partition('!')[0]}"
        expected = ("list", "BadEntry", f"{where}: expected an image's bytes in 'image', found none")
        assert (error.value.stage, error.value.error, error.value.message) == expected


def test_which_column_holds_images(here):
    def column(**columns):
        pq.write_table(pa.table(columns), "t.parquet")
        return items_of("t.parquet")[0].uri

    struct = pa.array([{"bytes": b"1", "path": None}], HF_IMAGE)
    assert column(mask=[b"0"], image=[b"1"]) == "t.parquet!/image/0"
    assert column(mask=[b"0"], Img=struct) == "t.parquet!/Img/0"
    assert column(**{"a/b.c": [b"0"], "n": [1]}) == "t.parquet!/a/b.c/0" and reading.read("t.parquet!/a/b.c/0") == b"0"
    write("x.jpg")
    assert column(mask=[b"0"], other=[b"1"], path=["x.jpg"]) == "./x.jpg"
    assert column(image=["x.jpg"], n=[1]) == "./x.jpg"
    pq.write_table(pa.table({"mask": [b"0"], "other": struct}), "t.parquet")
    assert "found 'mask', 'other'" in refused("t.parquet")
    assert items_of("t.parquet", columns=Columns(image="other"))[0].uri == "t.parquet!/other/0"
    write("x.parquet!/image/0")
    assert reading.read("x.parquet!/image/0") == b"x.parquet!/image/0", "a file of this very name"


def test_damaged_parquet_is_rejected_row_by_row(here):
    expected = parquet("t.parquet", 90, 30)
    items = items_of("t.parquet")
    chunk = pq.read_metadata("t.parquet").row_group(1).column(0)
    data = bytearray((here / "t.parquet").read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    (here / "t.parquet").write_bytes(data)
    parquet_cells.open_cells.cache_clear()
    for row, item in enumerate(items):
        if 30 <= row < 60:
            with pytest.raises(ImageError) as error:
                reading.read(item.uri)
            assert (error.value.stage, error.value.error) == ("read", "Unreadable")
        else:
            assert reading.read(item.uri) == expected[row]
    (here / "t.parquet").unlink()
    parquet_cells.open_cells.cache_clear()
    with pytest.raises(ImageError) as error:
        reading.read(items[0].uri)
    assert error.value.error == "Absent"


# COCO's lists


def test_coco_images(here):
    write("val/1.jpg", "val/2.jpg")
    entries = [{"id": 2, "file_name": "2.jpg"}, {"id": 1, "file_name": "1.jpg"}, {"id": 3, "file_name": "3.jpg"}]
    write("info.json", content=json.dumps({"info": {}, "images": [*entries, {"id": 4}, "x"]}).encode())
    assert refused("info.json").startswith("--root: expected the images of info.json, found none of its first 3 ")
    items = items_of("info.json", root=("val",))
    assert [(item.id, item.uri) for item in items[:3]] == [("2", "val/2.jpg"), ("1", "val/1.jpg"), ("3", "val/3.jpg")]
    assert [message for _, _, message in problems(items)] == [
        "images[3] of info.json: expected an entry with 'file_name', found {\"id\": 4}",
        "images[4] of info.json: expected an entry with 'id', found \"x\"",
    ]
    with pytest.raises(ImageError, match="Absent"):
        reading.read(items[2].uri)
    for content in (b'{"annotations": []}', b"[1]", b"{", b"\xff"):
        write("bad.json", content=content)
        assert refused("bad.json").startswith("--images: bad.json: expected a COCO JSON with a list 'images', found ")


def test_an_archive_that_was_replaced_is_read_anew_by_the_next_run(here):
    for content in (b"one", b"another"):
        with zipfile.ZipFile("new.zip", "w") as archive:
            archive.writestr("m.jpg", content)
        os.replace("new.zip", "im.zip")
        (item,) = items_of("im.zip")
        assert reading.read(item.uri) == content


def test_a_mix_of_everything(here):
    write("p/a.jpg", "q/b.png")
    expected = parquet("t.parquet", 3, text=["x", "y", "z"])
    write("l.csv", content=b"uri,text\np/a.jpg,c\n")
    with zipfile.ZipFile("z.zip", "w") as archive:
        archive.writestr("m.jpg", b"member")
    write("c.json", content=b'{"images": [{"id": 9, "file_name": "q/b.png"}]}')
    given = ("p", "t.parquet", "q/*.png", "l.csv", "z.zip", "c.json")
    items = items_of(*given, columns=Columns(metadata=("text=said",)))
    found = [(item.id, item.metadata[0], reading.read(item.uri)) for item in items]
    assert found == [
        ("p/a", None, b"p/a.jpg"),
        *((f"t-0000000{row}", text, expected[row]) for row, text in enumerate("xyz")),
        ("q/b", None, b"q/b.png"),
        ("p/a", "c", b"p/a.jpg"),
        ("z/m", None, b"member"),
        ("9", None, b"q/b.png"),
    ]
    assert ImageSets(given, limit=5, root=("p",)).describe() == {"images": list(given), "root": ["p"], "limit": 5}
