"""Files wherever Beam's filesystems reach (local, gs://, s3://, hdfs://). A name appears when its content is whole."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import posixpath
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.storage import finding, objects, paths

WORK = ".work"  # under an output directory: what is needed only until the output is complete


class DigestingWriter(io.RawIOBase):
    """A handle that only appends, and knows the SHA-256 and the length of what it was given."""

    def __init__(self, handle: BinaryIO):
        self._handle, self._digest, self._written = handle, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        """Appends bytes."""
        length = memoryview(data).nbytes
        self._handle.write(data)
        self._digest.update(data)
        self._written += length
        return length

    def tell(self) -> int:
        """How many bytes there are, also after closing."""
        return self._written

    def sha256(self) -> str:
        """Of the bytes so far, hexadecimal."""
        return self._digest.hexdigest()


def open_binary(path: str) -> BinaryIO:
    """A handle to read a file as it is: a name that ends in .gz is not unpacked."""
    if objects.is_object(path):
        return objects.open_binary(path)
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


@contextlib.contextmanager
def open_text(path: str, newline: str | None = None) -> Iterator[io.TextIOWrapper]:
    """A file as lines of UTF-8, behind a byte order mark, as spreadsheets write one."""
    with open_binary(path) as handle, io.TextIOWrapper(handle, encoding="utf-8-sig", newline=newline) as lines:
        yield lines


def read_bytes(path: str) -> bytes:
    """All of a file."""
    if objects.is_object(path):
        return objects.read(path)
    with open_binary(path) as handle:
        return handle.read()


def exists(path: str) -> bool:
    """Whether there is a file or, locally, a directory of this name."""
    return size(path) is not None if objects.is_object(path) else FileSystems.exists(path)


def size(path: str) -> int | None:
    """Bytes of a file; None where there is none. No pattern: a name may hold brackets."""
    if objects.is_object(path):
        with contextlib.suppress(FileNotFoundError):
            return objects.size(path)
        return None
    return FileSystems.get_filesystem(path).size(path) if exists(path) else None


def read_text(path: str) -> str | None:
    """All of a UTF-8 file; None where there is none."""
    if not objects.is_object(path) and not exists(path):
        return None
    with contextlib.suppress(FileNotFoundError):
        return read_bytes(path).decode("utf-8")
    return None


@contextlib.contextmanager
def replacing(directory: str, name: str) -> Iterator[DigestingWriter]:
    """A handle whose content becomes `directory/name` at the end, or, after an exception, nothing.

    For an object store it is written to this machine's disk, and sent: an object has its name when all of it has come.
    Elsewhere it is written under `directory/.work` and renamed, which in an object store would be to copy and delete.
    """
    target = paths.join(directory, name)
    if objects.is_object(directory):
        with tempfile.TemporaryFile() as handle:
            yield DigestingWriter(handle)
            handle.seek(0)
            objects.write(target, handle)
        return
    temporary = paths.join(directory, WORK, f"{posixpath.basename(name)}.{uuid.uuid4().hex}.tmp")
    handle = FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED)
    try:
        with handle:
            yield DigestingWriter(handle)
        if paths.is_local(directory):
            os.makedirs(os.path.dirname(target), exist_ok=True)
        FileSystems.rename([temporary], [target])
    except BaseException:
        with contextlib.suppress(Exception):
            FileSystems.delete([temporary])
        raise


def write_text(directory: str, name: str, text: str) -> None:
    """Replaces `directory/name` in one step."""
    with replacing(directory, name) as handle:
        handle.write(text.encode("utf-8"))


def delete(*given: str) -> None:
    """Deletes files, and directories with what is in them; those that are not there are passed over."""
    for path in given:
        if paths.is_local(path):
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)
        else:
            found = [path] * exists(path) + [m.path for m in finding.below(path)]
            objects.delete(found) if objects.is_object(path) else FileSystems.delete(found)
