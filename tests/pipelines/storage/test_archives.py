"""Zip files that mean harm: nothing is unpacked beyond what is declared, and nothing of them ends a process."""

import bz2
import lzma
import struct
import zipfile
import zlib

import pytest

from pipelines.items import ImageError
from pipelines.sources.image_sets import ImageSets
from pipelines.storage import archives
from pipelines.vision import reading
from tests.support import bounded, listing
from tfrecords_schema.errors import InputError

METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflate": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}
CONTENT = b"one of the usual contents " * 1000
_DIRECTORY = struct.Struct("<4s4B4HL2L5H2L")  # an entry of a zip file's directory, before its name


def read(path, name="x.jpg"):
    return archives.Archive(str(path)).read(name, admit=int)


def refused(path) -> tuple[str, str]:
    with pytest.raises(ImageError) as error:
        read(path)
    assert error.value.stage == "read"
    return error.value.error, error.value.message


def write(path, content=CONTENT, method=zipfile.ZIP_STORED, name="x.jpg"):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("before.jpg", b"good")
        archive.writestr(name, content)
        archive.writestr("behind.jpg", b"good too")
    return path


def change(path, member="x.jpg", **fields):
    """Declares something else in the directory's entry of a member."""
    names = "signature create system version reserved flags method time date crc packed size name extra comment disk"
    order = [*names.split(), "internal", "external", "offset"]
    data = bytearray(path.read_bytes())
    at = data.rindex(member.encode()) - _DIRECTORY.size
    values = dict(zip(order, _DIRECTORY.unpack_from(data, at), strict=True))
    assert values["signature"] == b"PK\1\2" and not fields.keys() - values.keys()
    data[at : at + _DIRECTORY.size] = _DIRECTORY.pack(*(values | fields).values())
    path.write_bytes(data)
    return path


def bomb(path, method, packed, declared=100):
    """A zip file with one member of these packed bytes, declared to hold few."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.jpg", packed)
    return change(path, method=METHODS[method], size=declared, packed=len(packed), crc=zlib.crc32(bytes(declared)))


def deflated(megabytes: int) -> bytes:
    packing = zlib.compressobj(9, wbits=-15)
    return b"".join(packing.compress(bytes(1 << 20)) for _ in range(megabytes)) + packing.flush()


def bzipped(megabytes: int) -> bytes:
    packing = bz2.BZ2Compressor()
    return b"".join(packing.compress(bytes(1 << 20)) for _ in range(megabytes)) + packing.flush()


def lzma_packed(megabytes: int, dictionary: int = 1 << 20) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20}]
    packing = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=filters)
    packed = b"".join(packing.compress(bytes(1 << 20)) for _ in range(megabytes)) + packing.flush()
    return struct.pack("<BBHBI", 9, 4, 5, 93, dictionary) + packed


BOMBS = {"deflate": deflated, "bzip2": bzipped, "lzma": lzma_packed}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("content", [b"", b"x", CONTENT, bytes(300_000)])
def test_each_method_is_unpacked_and_checked(tmp_path, method, content):
    path = write(tmp_path / "a.zip", content, METHODS[method])
    assert read(path) == content and read(path, "behind.jpg") == b"good too"
    change(path, crc=zlib.crc32(content) ^ 1)
    assert refused(path)[0] == "DamagedMember" and "CRC-32" in refused(path)[1]
    assert read(path, "before.jpg") == b"good"


@pytest.mark.parametrize("method", BOMBS)
def test_no_more_is_unpacked_than_is_declared(tmp_path, method):
    """Sixteen at once; each would be 100 MB."""
    path = change(bomb(tmp_path / "a.zip", method, BOMBS[method](100)), flags=2)  # LZMA's mark of an end
    uris = [archives.member_uri(str(path), "x.jpg")] * 16
    outcomes, peak_mb = bounded.read(uris, limit_mb=1000, threads=16)
    message = "EOFError: expected the 100 bytes that the archive's directory declares, found more"
    assert outcomes == [["read", "DamagedMember", message]] * 16
    assert peak_mb < 50


def test_a_dictionary_of_four_gigabytes_is_not_made(tmp_path):
    packed = lzma_packed(1, dictionary=0xFFFFFFFF)
    path = bomb(tmp_path / "a.zip", "lzma", packed, declared=1 << 20)
    outcomes, peak_mb = bounded.read([archives.member_uri(str(path), "x.jpg")], limit_mb=1000)
    assert outcomes == [1 << 20] and peak_mb < 50


def test_lzma_without_a_mark_of_its_end(tmp_path):
    packed = lzma_packed(1)
    path = change(bomb(tmp_path / "a.zip", "lzma", packed, declared=1 << 19), flags=0)
    assert read(path) == bytes(1 << 19)
    assert refused(change(path, flags=2)) == (
        "DamagedMember",
        "EOFError: expected the 524288 bytes that the archive's directory declares, found more",
    )


@pytest.mark.parametrize("header", [b"", b"\t\4\5\0", b"\t\4\0\0" + bytes(9), b"\t\4\5\0" + b"\xff" * 9])
def test_headers_of_lzma_that_are_none(tmp_path, header):
    assert refused(bomb(tmp_path / "a.zip", "lzma", header))[0] == "DamagedMember"


@pytest.mark.parametrize("method", BOMBS)
def test_a_member_that_ends_early(tmp_path, method):
    packed = BOMBS[method](1)
    path = bomb(tmp_path / "a.zip", method, packed[: len(packed) // 2], declared=1 << 20)
    assert refused(path)[0] == "DamagedMember" and "expected the 1048576 bytes" in refused(path)[1]


@pytest.mark.parametrize("packed", [0, 1 << 31, 0xFFFFFFF0])
@pytest.mark.parametrize("size", [0, 1 << 31, 0xFFFFFFF0])
def test_declared_sizes_that_are_absurd(tmp_path, packed, size):
    path = change(write(tmp_path / "a.zip"), packed=packed, size=size)
    archives.open_archive.cache_clear()
    outcomes, peak_mb = bounded.read(
        [archives.member_uri(str(path), name) for name in ("x.jpg", "behind.jpg")], limit_mb=200
    )
    if packed == size == 0:
        assert outcomes[0][:2] == ["read", "DamagedMember"]  # of the wrong CRC-32
    else:
        assert outcomes[0][:2] == ["read", "TooLarge"]
    assert outcomes[1] == 8 and peak_mb < 50


@pytest.mark.parametrize("offset", [1, 60, 1 << 20, 0xFFFFFFFE])
def test_offsets_at_which_no_member_begins(tmp_path, offset):
    path = change(write(tmp_path / "a.zip"), offset=offset)
    assert refused(path)[0] == "DamagedMember" and read(path, "behind.jpg") == b"good too"


def test_offsets_and_sizes_of_sixty_four_bits(tmp_path):
    """More than any file has, and than pread takes."""
    for number, fields in enumerate([(1 << 62, 5, 1), (5, 1 << 62, 1), (5, 5, (1 << 64) - 1), ((1 << 64) - 1,) * 3]):
        info = zipfile.ZipInfo("x.jpg")
        path = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(info, CONTENT)
            info.extra = struct.pack("<HHQQQ", 1, 24, *fields)
            info.file_size = info.compress_size = info.header_offset = 0
        change(path, size=0xFFFFFFFF, packed=0xFFFFFFFF, offset=0xFFFFFFFF)
        with pytest.raises(ImageError) as error:
            reading.read(archives.member_uri(str(path), "x.jpg"))
        assert (error.value.stage, error.value.error) in (("read", "TooLarge"), ("read", "DamagedMember"))


@pytest.mark.parametrize("method", [1, 6, 9, 93, 95, 98, 99])
def test_methods_that_are_not_known(tmp_path, method):
    path = change(write(tmp_path / "a.zip"), method=method)
    assert refused(path) == ("DamagedMember", f"NotImplementedError: compression method {method}")
    assert read(path, "before.jpg") == b"good"


@pytest.mark.parametrize("fields", [{"version": 255}, {"flags": 0x800}], ids=["unknown version", "no UTF-8"])
def test_directories_that_cannot_be_read(tmp_path, fields):
    path = write(tmp_path / "a.zip", name="NAME.jpg")
    change(path, "NAME.jpg", **fields)
    path.write_bytes(path.read_bytes().replace(b"NAME", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(
        InputError, match=r"--images: expected a zip file, found none at .*its directory cannot be read"
    ):
        listing.listed(ImageSets((str(path),)))
    archives.open_archive.cache_clear()
    with pytest.raises(ImageError) as error:
        reading.read(archives.member_uri(str(path), "before.jpg"))
    assert (error.value.stage, error.value.error) == ("read", "Unreadable")
