"""Tar files to read, and to break: members by name, headers whose checksums are right whatever else they say."""

import io
import pathlib
import tarfile
from collections.abc import Iterable


def write(path, members: Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> pathlib.Path:
    """A tar file of members in this order; a name may be there twice."""
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return pathlib.Path(path)


def header(name: bytes, size: int | bytes = 0, flag: bytes = b"0") -> bytes:
    """A block with a right checksum; a size of bytes stands in its field as it is."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    block[156:157] = flag
    block[257:265] = b"ustar\x0000"
    return mended(block)


def mended(block: bytes) -> bytes:
    """The block with the checksum that it should have."""
    changed = bytearray(block)
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


def padded(data: bytes) -> bytes:
    """Data up to the end of its last block."""
    return data + bytes(-len(data) % 512)
