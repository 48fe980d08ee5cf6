"""Where images lie: directories, patterns and zip files, damaged ones too."""

import concurrent.futures
import random
import struct
import zipfile

import pytest

from pipelines.items import ImageError
from pipelines.listing.catalogue import open_catalogue
from pipelines.listing.entries import unescape
from pipelines.sources.locations import Locations
from pipelines.storage import archives
from pipelines.vision import reading
from tfrecords_schema.errors import InputError

NAMES = ("a b%20#1.jpg", "new\nline.jpg", "é.jpg", "deep/x.jpg")


def find(places, *names):
    """(URI, version, message) of an image under the first of its names that is anywhere."""
    with open_catalogue() as catalogue:
        locations = Locations(catalogue, map(str, places))
        catalogue.run("CREATE TABLE asked AS SELECT 7 AS position, 0 AS rank, '' AS name LIMIT 0")
        for rank, name in enumerate(names):
            catalogue.run("INSERT INTO asked VALUES (7, ?, ?)", rank, name)
        locations.find("FROM asked")
        fallback = (locations.fallback + names[0], None, None)
        (found,) = catalogue.run("SELECT uri, version, message FROM found WHERE position = 7") or [fallback]
        return tuple(text and unescape(text) for text in found)


@pytest.fixture
def images(tmp_path):
    """A directory, and a zip file of the same below `train2017/`, one half of it stored and one deflated."""
    archives.open_archive.cache_clear()
    with zipfile.ZipFile(tmp_path / "train.ZIP", "w") as archive:
        for number, name in enumerate(NAMES):
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode() * 1000)
            kind = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[number % 2]
            archive.write(path, f"train2017/{name}", compress_type=kind)
    return tmp_path


@pytest.mark.parametrize("place", ["images", "train.ZIP", "images/**", "images/**/*.jpg"])
def test_each_name_is_found_and_read(images, place):
    (images / "other").mkdir()
    for places in ([images / place, images / "other"], [images / "other", images / place]):
        for name in NAMES:
            uri, version, _ = find(places, "elsewhere/" + name, name)
            assert version and reading.read(uri) == name.encode() * 1000
    for name in NAMES:  # in a single directory nothing is looked for, as its worker will tell
        assert reading.read(find([images / place], name)[0]) == name.encode() * 1000
    uri, version, message = find([images / place], "none.jpg")
    assert not version and not message
    with pytest.raises(ImageError) as error:
        reading.read(uri)
    assert (error.value.stage, error.value.error) == ("read", "Absent")


def test_folders_tell_equal_names_apart(images):
    (images / "images/other").mkdir()
    (images / "images/other/x.jpg").write_bytes(b"other")
    places = [images / "images/**"]
    assert reading.read(find(places, "other/x.jpg")[0]) == b"other"
    found = [f"{images}/images/{folder}/x.jpg" for folder in ("deep", "other")]
    assert find(places, "x.jpg") == (None, None, f"2 files have the name x.jpg: {', '.join(found)}")


def test_a_file_beside_a_directory_that_is_called_like_an_archive(tmp_path):
    (tmp_path / "odd.zip!").mkdir()
    (tmp_path / "odd.zip!/x.jpg").write_bytes(b"a file")
    assert reading.read(str(tmp_path / "odd.zip!/x.jpg")) == b"a file"


def test_members_are_read_from_many_threads(tmp_path):
    rng = random.Random(0)
    contents = {f"{number}.jpg": rng.randbytes(rng.randrange(20_000)) for number in range(200)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    opened = archives.Archive(str(tmp_path / "a.zip"))
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert (
            dict(zip(contents, pool.map(lambda name: opened.read(name, admit=int), contents), strict=True)) == contents
        )


def test_damaged_members_are_rejected_alone(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("good", "changed", "no header", "unpackable"):
            archive.writestr(name, name.encode() * 50, zipfile.ZIP_DEFLATED if name == "unpackable" else None)
        archive.writestr("long extra", b"behind a long extra field")
        offsets = {info.filename: info.header_offset for info in archive.infolist()}
    data = bytearray(path.read_bytes())
    data[offsets["changed"] + 60] ^= 1  # one bit of its bytes
    data[offsets["no header"]] = 0
    data[offsets["unpackable"] + 42 : offsets["unpackable"] + 50] = b"\xff" * 8
    path.write_bytes(data)
    archives.open_archive.cache_clear()
    outcomes = {}
    for name in offsets:
        try:
            outcomes[name] = reading.read(archives.member_uri(str(path), name))
        except ImageError as error:
            outcomes[name] = (error.stage, error.error)
    damaged = ("read", "DamagedMember")
    assert outcomes["good"] == b"good" * 50 and outcomes["long extra"] == b"behind a long extra field"
    assert outcomes["changed"] == outcomes["no header"] == outcomes["unpackable"] == damaged


def test_a_long_extra_field_costs_a_second_read(tmp_path):
    info = zipfile.ZipInfo("x.jpg")
    info.extra = struct.pack("<HH", 0xCAFE, 2000) + b"e" * 2000
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, b"content" * 1000)
    assert archives.Archive(str(tmp_path / "a.zip")).read("x.jpg", admit=int) == b"content" * 1000


def test_encrypted_and_repeated_members(tmp_path):
    path = tmp_path / "a.zip"
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.jpg", b"one")
        archive.writestr("x.jpg", b"two")
        archive.writestr("secret.jpg", b"three")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"secret.jpg") - 46  # its entry in the archive's directory
    data[entry + 8] |= 1
    path.write_bytes(data)
    archives.open_archive.cache_clear()
    assert find([path], "x.jpg")[2].startswith("2 files have the name x.jpg: ")
    with pytest.raises(ImageError, match="encrypted"):
        reading.read(find([path], "secret.jpg")[0])


@pytest.mark.parametrize("content", [b"", b"no zip file", None])
def test_archives_that_are_none(tmp_path, content):
    archives.open_archive.cache_clear()
    if content is not None:
        (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"expected a zip file, found none at .*a.zip"):
        find([str(tmp_path / "a.zip")], "x.jpg")


def test_places_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"found no file matches '.*/\*.jpg'"):
        find([f"{tmp_path}/*.jpg"], "x.jpg")
    with pytest.raises(InputError, match=r"expected a directory, a zip file or a pattern, found none at"):
        find([str(tmp_path / "none")], "x.jpg")


def test_files_too_large_for_memory_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_MAX_FILE_BYTES", 1000)
    (tmp_path / "x.jpg").write_bytes(b"x" * 2000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.jpg", b"x" * 2000)
    for uri in (str(tmp_path / "x.jpg"), archives.member_uri(str(tmp_path / "bomb.zip"), "x.jpg")):
        with pytest.raises(ImageError, match="2000 bytes, more than 1000"):
            reading.read(uri)
