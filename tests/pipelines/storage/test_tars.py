"""Tar files: what Python's `tarfile` finds in them, and files that mean harm."""

import io
import random
import tarfile

import pytest

from pipelines.items import ImageError
from pipelines.storage import tar_headers, tars
from pipelines.vision import reading
from tests.support import bounded, tar_files
from tests.support.tar_files import header, padded

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = "folder/" * 12 + "x" * 90 + ".jpg"
VERY_LONG = "f/" * 400 + "é" * 300 + ".jpg"


@pytest.fixture(autouse=True)
def forget():
    tars.forget()


def walked(path):
    """(name, kind, content) of each member, as one goes through the file."""
    return [(member.name, member.kind, read(member.size)) for member, read in tars.walk(str(path))]


def damage(path) -> tuple[list[str], str]:
    """(names of the members before the damage, what is told of it)."""
    names = []
    with pytest.raises(tar_headers.TarError) as error:
        for member, _ in tars.walk(str(path)):
            names.append(member.name)
    assert "\n" not in str(error.value)
    return names, str(error.value)


@pytest.mark.parametrize("form", FORMS)
def test_members_are_those_that_python_finds(tmp_path, form):
    rng = random.Random(form)
    names = ["a.jpg", "dir/b.jpg", "é.txt", LONG, *([] if form == "ustar" else [VERY_LONG])]
    members = [(name, rng.randbytes(rng.choice([0, 1, 511, 512, 513, 5000]))) for name in names * 2]
    path = tar_files.write(tmp_path / "x.tar", members, FORMS[form])
    assert walked(path) == [(name, "", data) for name, data in members]
    with tarfile.open(path) as archive:
        known = {(info.name, info.offset_data, info.size) for info in archive}
    found = [member for member, _ in tars.walk(str(path))]
    assert {(member.name, member.start, member.size) for member in found} == known
    for member, (name, data) in zip(found, members, strict=True):
        uri = tars.member_uri(str(path), member.offset, name)
        assert tars.parse_uri(uri) == (str(path), member.offset, name) and reading.read(uri) == data


def test_what_is_no_file_is_told_apart(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in [("d", tarfile.DIRTYPE), ("s", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0
            archive.addfile(info)
        for name, kind in [("f", tarfile.FIFOTYPE), ("c", tarfile.CHRTYPE)]:
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("last.jpg"))
    kinds = [(name, kind) for name, kind, _ in walked(path)]
    expected = {"d/": "a folder", "s": "a link", "h": "a link", "f": "a pipe", "c": "a device", "last.jpg": ""}
    assert dict(kinds) == expected and len(kinds) == len(expected)
    with pytest.raises(ImageError) as error:
        reading.read(tars.member_uri(str(path), 512, "s"))
    assert (error.value.stage, error.value.error) == ("read", "Unreadable")


def test_sparse_files_are_passed_and_not_unpacked(tmp_path):
    gnu = bytearray(header(b"s.jpg", 512, b"S"))
    gnu[482] = 1  # its map goes on in a further block
    pax = b"30 GNU.sparse.realsize=999999\n"
    content = tar_files.mended(gnu) + bytes(512) + bytes(512)
    content += header(b"p", len(pax), b"x") + padded(pax) + header(b"t.jpg", 3) + padded(b"abc")
    (tmp_path / "x.tar").write_bytes(content + header(b"u.jpg", 3) + padded(b"def") + bytes(1024))
    assert [(name, kind) for name, kind, _ in walked(tmp_path / "x.tar")] == [
        ("s.jpg", "a sparse file"),
        ("t.jpg", "a sparse file"),
        ("u.jpg", ""),
    ]


GOOD = header(b"a.jpg", 3) + padded(b"abc")
BAD = {
    "a checksum": GOOD[:100] + b"9" + GOOD[101:],
    "a size below zero": header(b"b.jpg", b"\xff" * 12),
    "a size that is no number": header(b"b.jpg", b"12x456789ab\0"),
    "a size beyond the file": header(b"b.jpg", 1 << 30),
    "a huge binary size": header(b"b.jpg", b"\x80" + b"\xff" * 11),
    "half a header": header(b"b.jpg", 3)[:300],
    "half a content": header(b"b.jpg", 600) + bytes(100),
    "a name of gigabytes": header(b"././@LongLink", 5 << 30, b"L"),
    "records of gigabytes": header(b"pax", b"\x80" + (5 << 30).to_bytes(11, "big"), b"x"),
    "records that are cut short": header(b"pax", 900, b"x") + bytes(512),
    "a record of no length": header(b"pax", 9, b"x") + padded(b"0 path=x\n") + GOOD,
    "a record beyond the others": header(b"pax", 9, b"x") + padded(b"99 path=x\n") + GOOD,
    "a record that is no number": header(b"pax", 9, b"x") + padded(b"xx path=x\n") + GOOD,
    "a pax size that is no number": header(b"pax", 11, b"x") + padded(b"11 size=-5\n") + GOOD,
    "a pax size beyond the file": header(b"pax", 15, b"x") + padded(b"15 size=999999\n") + GOOD,
    "headers without end": (header(b"pax", 11, b"x") + padded(b"11 path=ab\n")) * 20,
    "a sparse map without end": tar_files.mended(header(b"s", 0, b"S")[:482] + b"\1" + header(b"s", 0, b"S")[483:]),
    "something else": b"\x1f\x8b\x08" + bytes(range(256)) * 3,
}


@pytest.mark.parametrize("what", BAD)
def test_damage_ends_the_file_and_what_was_before_it_is_there(tmp_path, what):
    (tmp_path / "x.tar").write_bytes(GOOD + BAD[what])
    names, told = damage(tmp_path / "x.tar")
    assert names == ["a.jpg"] and told.startswith("at byte 1")
    with pytest.raises(ImageError) as error:
        reading.read(tars.member_uri(str(tmp_path / "x.tar"), 1024, "b.jpg"))
    assert error.value.stage == "read" and "\n" not in error.value.message


def test_old_sums_of_signed_bytes_are_taken(tmp_path):
    block = bytearray(header("é.jpg".encode(), 3))
    summed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + b" " * 8 + block[156:])
    block[148:156] = b"%06o\0 " % summed
    (tmp_path / "x.tar").write_bytes(bytes(block) + padded(b"abc") + bytes(1024))
    assert walked(tmp_path / "x.tar") == [("é.jpg", "", b"abc")]


def test_nothing_behind_the_mark_of_an_end_is_read_and_a_file_without_one_was_cut_short(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(GOOD + bytes(512) + GOOD)
    assert walked(path) == [("a.jpg", "", b"abc")]
    for content in (GOOD, GOOD[:520]):
        path.write_bytes(content)
        names, told = damage(path)
        assert names == ["a.jpg"] and told.endswith("the end of the file: it was cut short")
    path.write_bytes(b"")
    assert damage(path)[0] == []


def test_another_file_under_the_same_name_is_noticed(tmp_path):
    path = tar_files.write(tmp_path / "x.tar", [("a.jpg", b"one"), ("b.jpg", b"two")])
    second = tars.member_uri(str(path), 1024, "b.jpg")
    assert reading.read(second) == b"two"
    for members in ([("a.jpg", b"o" * 600), ("b.jpg", b"two")], [("a.jpg", b"one"), ("c.jpg", b"two")]):
        tar_files.write(tmp_path / "x.tar", members)
        tars.forget()
        with pytest.raises(ImageError) as error:
            reading.read(second)
        assert error.value.error == "DamagedMember"


def test_what_a_header_claims_is_not_taken_into_memory(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(header(b"a.jpg", (1 << 30) - 1) + BAD["a name of gigabytes"] + BAD["records of gigabytes"])
    uris = [tars.member_uri(str(path), offset, name) for offset, name in [(512, "x"), (1024, "x")]]
    outcomes, peak_mb = bounded.read(uris, limit_mb=400)
    assert [outcome[1] for outcome in outcomes] == ["DamagedMember"] * 2 and peak_mb < 20


def test_a_file_is_walked_past_what_is_not_asked_for(tmp_path, monkeypatch):
    members = [(f"{n}.jpg", bytes(300_000)) for n in range(20)]
    path = tar_files.write(tmp_path / "x.tar", members)
    taken = []

    class Counted(io.FileIO):
        def readinto(self, buffer):
            taken.append(super().readinto(buffer))
            return taken[-1]

    monkeypatch.setattr(tars.files, "open_binary", lambda given: io.BufferedReader(Counted(given)))
    assert len(list(tars.walk(str(path)))) == 20 and sum(taken) < 400_000
