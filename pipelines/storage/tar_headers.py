"""Headers of a tar file: ustar, GNU's and pax, each checked before anything it says is believed.

Python's `tarfile` takes a pax record, or a long name, of as many bytes as its header claims, keeps every header it has
seen, and goes on from a size that is negative.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tfrecords_schema.text import shortened

BLOCK = 512
_MOST_RECORD = 64 << 10  # bytes of a long name, or of all pax records of a member
_MOST_RECORDS = 8  # before a member
_PAX, _PAX_OF_ALL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_REGULAR, _SPARSE = (b"0", b"\0", b"7"), b"S"
_KINDS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"5": "a folder", b"6": "a pipe"}
_HAVE_NO_CONTENT = frozenset(_KINDS)
_OCTAL = re.compile(rb" *([0-7]*) *(?:\0.*)?", re.DOTALL)
_RECORD = re.compile(rb"(\d{1,6}) ")
_DECIMAL = re.compile(rb"\d{1,18}")

ReadAt = Callable[[int, int], bytes]  # (first byte, how many) -> these, fewer where the file ends


class TarError(ValueError):
    """A tar file is damaged from here on; the message is one line, without the file's name."""


class Member(NamedTuple):
    """A member of a tar file.

    Attributes:
      name: as stored; bytes that are no UTF-8 as `surrogateescape` has them.
      offset: of the first of its headers.
      start: of its content.
      size: of its content, in bytes.
      kind: "" for a file, else what it is: "a link".
    """

    name: str
    offset: int
    start: int
    size: int
    kind: str

    @property
    def end(self) -> int:
        """Where the next member begins."""
        return self.start + -(-self.size // BLOCK) * BLOCK


def members(read_at: ReadAt, total: int) -> Iterator[Member]:
    """The members of a file of `total` bytes, in its order. Raises OSError, and TarError after those that are whole."""
    offset = 0
    while offset < total:
        member = member_at(read_at, offset)
        if member is None:
            return
        if member.start + member.size > total:
            raise TarError(
                f"at byte {offset}: expected {member.size} bytes of {shortened(member.name)!r}, found the end of the "
                f"file at byte {total}"
            )
        yield member
        offset = member.end
    raise TarError(f"at byte {total}: expected the mark of an end, found the end of the file: it was cut short")


def member_at(read_at: ReadAt, offset: int) -> Member | None:
    """The member whose headers begin here; None where the archive ends. Raises TarError and OSError."""
    told: dict[bytes, bytes] = {}
    at = offset
    for _ in range(_MOST_RECORDS):
        header = read_at(at, BLOCK)
        if at == offset and not header.strip(b"\0"):  # also a file that ends here without the marks of an end
            return None
        _check(header, at)
        size, flag = _number(header[124:136], at), header[156:157]
        at += BLOCK
        if flag not in (_PAX, _PAX_OF_ALL, _LONG_NAME, _LONG_LINK):
            return _member(read_at, header, offset, at, told, size)
        if size > _MOST_RECORD:
            raise TarError(f"at byte {at - BLOCK}: expected a name or records of {_MOST_RECORD} bytes, found {size}")
        content = read_at(at, size)
        if len(content) < size:
            raise TarError(f"at byte {at}: expected {size} bytes of a name or records, found {len(content)}")
        if flag == _LONG_NAME:
            told[b"path"] = content.partition(b"\0")[0]
        elif flag == _PAX:
            told.update(_records(content, at))
        at += -(-size // BLOCK) * BLOCK
    raise TarError(f"at byte {offset}: expected a member, found more than {_MOST_RECORDS} headers that belong to one")


def _check(header: bytes, at: int) -> None:
    """Raises TarError where the header is cut short, or its sum (signed in some old files) is not what it says."""
    if len(header) < BLOCK:
        raise TarError(f"at byte {at}: expected a header of {BLOCK} bytes, found {len(header)}")
    found = _OCTAL.fullmatch(header[148:156])
    summed = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    told = int(found[1] or b"0", 8) if found else -1
    if told != summed and told != summed - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):
        raise TarError(f"at byte {at}: expected a member's header, found {header[:8]!r}, whose checksum is another")


def _number(field: bytes, at: int) -> int:
    """A size: octal digits, or GNU's binary number behind a byte of 128."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")  # up to 88 bits: more than any file has is found out by its end
    found = _OCTAL.fullmatch(field)
    if found is None:
        raise TarError(f"at byte {at}: expected a size, found {field!r}")
    return int(found[1] or b"0", 8)


def _records(content: bytes, at: int) -> dict[bytes, bytes]:
    """pax records, each `length key=value\\n`."""
    found: dict[bytes, bytes] = {}
    place = 0
    while place < len(content) and content[place]:
        length = _RECORD.match(content, place)
        end = place + int(length[1]) if length else 0
        if not length or not length.end() < end <= len(content) or content[end - 1 : end] != b"\n":
            raise TarError(f"at byte {at + place}: expected a pax record, found {content[place : place + 8]!r}")
        key, _, value = content[length.end() : end - 1].partition(b"=")
        found[key] = value
        place = end
    return found


def _member(read_at: ReadAt, header: bytes, offset: int, start: int, told: dict[bytes, bytes], size: int) -> Member:
    flag = header[156:157]
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].partition(b"\0")[0]):
        name = prefix + b"/" + name
    name = told.get(b"path", name)
    if b"size" in told:
        if not _DECIMAL.fullmatch(told[b"size"]):
            raise TarError(f"at byte {offset}: expected a size in the pax records, found {told[b'size'][:20]!r}")
        size = int(told[b"size"])
    kind = "" if flag in _REGULAR else _KINDS.get(flag, f"of the type {flag!r}")
    if flag in _REGULAR and name.endswith(b"/"):  # as a folder was told before ustar
        kind = "a folder"
    if flag == _SPARSE or any(key.startswith(b"GNU.sparse.") for key in told):
        kind = "a sparse file"
    if flag == _SPARSE:
        is_more = header[482]
        while is_more:  # blocks of its map
            block = read_at(start, BLOCK)
            if len(block) < BLOCK:
                raise TarError(f"at byte {start}: expected the map of a sparse file, found the end")
            start, is_more = start + BLOCK, block[504]
    if flag in _HAVE_NO_CONTENT:
        size = 0
    return Member(name.decode("utf-8", "surrogateescape"), offset, start, size, kind)
