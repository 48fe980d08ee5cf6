"""Zip files read in place: a member's URI is `images.zip!/folder/name.jpg`, and one ranged read brings its bytes."""

from __future__ import annotations

import bz2
import collections
import lzma
import os
import re
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pipelines.items import ImageError
from pipelines.storage import ranges
from tfrecords_schema.storage import files
from tfrecords_schema.storage.faults import Awaited
from tfrecords_schema.text import one_line

_SEPARATOR = "!/"
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a member: 30 bytes that end in the lengths of its name and extra field
_MOST_MEMBERS = 1_000_000  # of all archives whose directories are kept: some 400 bytes each
_MAX_EXTRA = 512  # bytes of a local extra field that are read along; a longer one costs a second read
_LZMA_HEADER = struct.Struct("<2xHBI")  # version, length of the rest, lc/lp/pb in one number, bytes of the dictionary
_LEAST_DICTIONARY = 4096  # bytes, of LZMA


def is_archive(path: str) -> bool:
    """Whether a path is to be taken for a zip file."""
    return path.lower().endswith(".zip")


def member_uri(archive: str, name: str) -> str:
    """The URI of a member, which `parse_uri` takes apart."""
    return f"{archive}{_SEPARATOR}{name}"


def parse_uri(uri: str) -> tuple[str, str] | None:
    """(archive, member) of a member's URI; None for any other."""
    match = re.search(r"\.zip!/", uri, re.IGNORECASE)
    return (uri[: match.end() - len(_SEPARATOR)], uri[match.end() :]) if match else None


class _Open:
    """The archive of a path, its directory read once per process, by the first of the threads that come to it.

    Raises OSError, or zipfile.BadZipFile where it is none.
    """

    def __init__(self) -> None:
        self._archives: collections.OrderedDict[str, Awaited[Archive]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, path: str) -> Archive:
        while True:
            with self._lock:
                kept = self._archives.pop(path, None)
                opening = self._archives[path] = kept or Awaited()  # the one used last stands last
            if not kept:
                self._open(path, opening)
            if not opening.was_given_up():
                return opening.result()

    def _open(self, path: str, opening: Awaited[Archive]) -> None:
        try:
            opening.set_result(Archive(path))
        except BaseException as error:
            with self._lock:
                self._archives.pop(path, None)
            opening.set_exception(error)
        self._shrink()

    def cache_clear(self) -> None:
        """Has every directory be read anew."""
        with self._lock:
            self._archives.clear()
        ranges.forget()

    def _shrink(self) -> None:
        with self._lock:
            opened = [(path, future.result()) for path, future in self._archives.items() if future.done()]
            too_many = sum(archive.count for _, archive in opened) - _MOST_MEMBERS
            for path, archive in opened[:-1]:
                if too_many > 0:
                    del self._archives[path]
                    too_many -= archive.count


open_archive = _Open()


def _opened(handle: BinaryIO) -> zipfile.ZipFile:
    """The archive. An error of reading it is raised as it is, which zipfile would call no zip file."""
    try:
        return zipfile.ZipFile(handle)
    except zipfile.BadZipFile as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    # What zipfile makes of a name that is not the UTF-8 it says it is, and of a version that it does not know.
    except (NotImplementedError, ValueError) as error:
        raise zipfile.BadZipFile(f"its directory cannot be read: {one_line(error)}") from None


class Archive:
    """A zip file's directory. Reading members is safe, and parallel, from many threads."""

    def __init__(self, path: str):
        self.path = path
        with files.open_binary(path) as handle, _opened(handle) as archive:
            self._bytes = handle.seek(0, os.SEEK_END)
            self._members: dict[str, zipfile.ZipInfo] = {}
            self.repeated: set[str] = set()
            for info in archive.infolist():
                if info.filename in self._members:
                    self.repeated.add(info.filename)
                self._members[info.filename] = info

    @property
    def count(self) -> int:
        """How many members there are."""
        return len(self._members)

    def names(self) -> Iterator[str]:
        """The members that are files."""
        return (name for name in self._members if not name.endswith("/"))  # one may be empty

    def version(self, name: str) -> str:
        """Changes when the member's content does: its size and CRC-32."""
        info = self._members[name]
        return f"{info.file_size}:{info.CRC:08x}"

    def ambiguity(self, name: str) -> ImageError | None:
        """What is wrong with a name that several members have."""
        message = f"several members of {self.path} have the name {name}"
        return ImageError("list", "AmbiguousName", message) if name in self.repeated else None

    def read(self, name: str, admit: Callable[[int], None]) -> bytes:
        """A member's bytes, checked against its CRC-32. Raises ImageError, stage "read", and what `admit` does.

        Args:
          admit: is given the bytes that the member takes, before they are read.
        """
        info = self._members.get(name)
        if info is None:
            raise ImageError("read", "Absent", f"no such member in {self.path}")
        if info.flag_bits & 1:
            raise ImageError("read", "Unreadable", "the zip member is encrypted")
        admit(max(info.file_size, info.compress_size))
        packed = self._packed(info)
        try:
            return _unpacked(packed, info)
        # OSError and ValueError are what bzip2 and LZMA raise; there is no file behind these bytes any more.
        except (EOFError, NotImplementedError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
            raise ImageError("read", "DamagedMember", f"{type(error).__name__}: {error}") from None

    def _packed(self, info: zipfile.ZipInfo) -> bytes:
        """What is stored of a member: one read where its local extra field is of the usual size."""
        if not 0 <= info.header_offset <= self._bytes - info.compress_size:
            raise ImageError("read", "DamagedMember", f"it lies outside the {self._bytes} bytes of its archive")
        length = _LOCAL_HEADER.size + len(info.filename.encode()) + _MAX_EXTRA + info.compress_size
        data = ranges.read(self.path, info.header_offset, info.header_offset + length)
        if data[:4] != b"PK\x03\x04" or len(data) < _LOCAL_HEADER.size:
            raise ImageError("read", "DamagedMember", "no member begins where the archive's directory says")
        name_bytes, extra_bytes = _LOCAL_HEADER.unpack_from(data)
        start = _LOCAL_HEADER.size + name_bytes + extra_bytes
        packed = data[start : start + info.compress_size]
        if len(packed) < info.compress_size:
            start += info.header_offset
            packed = ranges.read(self.path, start, start + info.compress_size)
        return packed


def _unpacked(packed: bytes, info: zipfile.ZipInfo) -> bytes:
    """What was packed, never more of it than is declared, however much would come.

    zipfile bounds deflate alone, and lets LZMA's header ask for 4 GB before the first byte.

    Raises:
      EOFError, NotImplementedError, OSError, ValueError, lzma.LZMAError, zlib.error: it is damaged.
    """
    size = info.file_size
    if info.compress_type == zipfile.ZIP_STORED:
        content = packed
    elif info.compress_type == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
    elif info.compress_type == zipfile.ZIP_BZIP2:
        content = bz2.BZ2Decompressor().decompress(packed, size + 1)
    elif info.compress_type == zipfile.ZIP_LZMA:
        # Without a mark of its end, by flag 2, what comes behind the last byte is no part of it.
        content = _lzma(packed, size).decompress(packed[_LZMA_HEADER.size :], size + bool(info.flag_bits & 2))
    else:
        raise NotImplementedError(f"compression method {info.compress_type}")
    if len(content) != size:
        found = "more" if len(content) > size else f"{len(content)} bytes"
        raise EOFError(f"expected the {size} bytes that the archive's directory declares, found {found}")
    if zlib.crc32(content) != info.CRC:
        raise ValueError(f"expected the CRC-32 {info.CRC:08x}, found {zlib.crc32(content):08x}")
    return content


def _lzma(packed: bytes, size: int) -> lzma.LZMADecompressor:
    """A decompressor as a member's header asks for, its dictionary no larger than what there is to look back at."""
    if len(packed) < _LZMA_HEADER.size:
        raise EOFError("no LZMA header")
    length, numbers, dictionary = _LZMA_HEADER.unpack_from(packed)
    if length != _LZMA_HEADER.size - 4:
        raise ValueError(f"expected an LZMA header of 5 bytes, found {length}")
    lc, lp, pb = numbers % 9, numbers // 9 % 5, numbers // 45
    most = max(_LEAST_DICTIONARY, min(dictionary, size))
    return lzma.LZMADecompressor(
        lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": most, "lc": lc, "lp": lp, "pb": pb}]
    )
