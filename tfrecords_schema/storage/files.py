"""Files wherever they are: here, in object stores, on HDFS. A name appears when its content is whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import posixpath
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from typing import IO, Any, BinaryIO

from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import finding, objects, paths
from tfrecords_schema.storage.faults import TooLargeError
from tfrecords_schema.text import one_line

WORK = ".work"  # under an output directory: what is needed only until the output is complete
_CHUNK_BYTES = 8 << 20
_MOST_TEXT_BYTES = 256 << 20
_MOST_INPUT_BYTES = 1 << 30
_LONGEST_LINE = 1 << 26  # letters


class DigestingWriter(io.RawIOBase):
    """A handle that only appends, and knows the SHA-256 and the length of what it was given."""

    def __init__(self, handle: IO[bytes]):
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
    """A handle to read a file as it is: a name that ends in .gz is not unpacked. Raises OSError."""
    return open(path, "rb", opener=_open_regular) if paths.is_local(path) else objects.open_binary(path)


def _open_regular(path: str, flags: int) -> int:
    """A descriptor. A pipe would be waited on for ever, a device may have no end."""
    number = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISREG(mode := os.fstat(number).st_mode) or stat.S_ISDIR(mode):  # Python has its own words for these
        return number
    os.close(number)
    raise OSError(errno.EINVAL, "a pipe or a device, not a file", path)


@contextlib.contextmanager
def open_text(path: str, newline: str | None = None) -> Iterator[Iterator[str]]:
    """A file as lines of UTF-8, behind a byte order mark, as spreadsheets write one.

    Raises OSError or ValueError, this also where a line has more letters than memory should be given to.
    """
    with open_binary(path) as handle, io.TextIOWrapper(handle, encoding="utf-8-sig", newline=newline) as text:
        yield _lines(text)


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise ValueError(f"a line of more than {_LONGEST_LINE:,} letters")
        yield line


def read_bytes(path: str, most: int | None = None) -> bytes:
    """All of a file. Raises OSError; TooLargeError where it has more than `most` bytes, before they come."""
    if paths.is_remote(path):
        return objects.read(path, most=most)
    with open_binary(path) as handle:
        if most is not None and (size := os.fstat(handle.fileno()).st_size) > most:
            raise TooLargeError(size, most)
        return handle.read()


def read_if_there(path: str, most: int | None = None) -> bytes | None:
    """All of a file; None where there is none. Errors are those of `read_bytes`."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return read_bytes(path, most)
    return None


def exists(path: str) -> bool:
    """Whether there is a file or, locally, a directory of this name. Raises OSError where that cannot be told."""
    return os.path.exists(path) if paths.is_local(path) else size(path) is not None


def size(path: str) -> int | None:
    """Bytes of a file; None where there is none. No pattern: a name may hold brackets."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.getsize(path) if paths.is_local(path) else objects.entry(path)[1]
    return None


def read_text(path: str) -> str | None:
    """All of a UTF-8 file, without a byte order mark; None where there is none. Raises OSError or ValueError.

    It is one of those that describe others, and is refused where it has more than 256 MB.
    """
    content = read_if_there(path, _MOST_TEXT_BYTES)
    return None if content is None else content.decode("utf-8-sig")


def open_input(flag: str, path: str) -> BinaryIO:
    """A file that the user gave, as `open_binary` opens it. Raises InputError, naming the flag."""
    try:
        return open_binary(path)
    except FileNotFoundError:
        raise InputError(f"{flag}: expected a file, found none at {path}") from None
    except OSError as error:
        raise InputError(f"{flag}: {path}: expected a file that can be read, found: {one_line(error)}") from None


def read_input_bytes(flag: str, path: str) -> bytes:
    """All of a file that the user gave, 1 GiB at most. Raises InputError, naming the flag."""
    with open_input(flag, path) as handle:
        if (size := handle.seek(0, os.SEEK_END)) > _MOST_INPUT_BYTES:
            raise InputError(f"{flag}: {path}: expected at most {_MOST_INPUT_BYTES:,} bytes, found {size:,}")
        handle.seek(0)
        return handle.read()


def read_input(flag: str, path: str) -> str:
    """The same of UTF-8 text."""
    try:
        return read_input_bytes(flag, path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{flag}: {path}: expected a file of UTF-8 text, found: {one_line(error)}") from None


def parse_json(text: str, where: str) -> Any:
    """The value. Raises InputError, beginning with `where`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: expected JSON, found something else: {one_line(error)}") from None


def reason(error: Exception) -> str:
    """The first line of an error's message; TensorFlow's errors carry it without their own decoration."""
    return (str(getattr(error, "message", error)).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def replacing(directory: str, name: str, work: str = WORK) -> Iterator[DigestingWriter]:
    """A handle whose content becomes `directory/name` at the end, or, after an exception, nothing.

    A remote file is written to this machine's disk, and sent: it has its name when all of it has come. A local one is
    written under `directory/.work`, or where `work` says, and renamed.
    """
    target = paths.join(directory, name)
    if paths.is_remote(directory):
        with tempfile.NamedTemporaryFile() as held:
            yield DigestingWriter(held.file)
            held.flush()
            objects.write(target, held.name)
        return
    temporary = paths.join(directory, work, f"{posixpath.basename(name)}.{uuid.uuid4().hex}.tmp")
    os.makedirs(os.path.dirname(temporary), exist_ok=True)
    try:
        with open(temporary, "wb") as handle:
            yield DigestingWriter(handle)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def write_text(directory: str, name: str, text: str) -> None:
    """Replaces `directory/name` in one step."""
    with replacing(directory, name) as handle:
        handle.write(text.encode("utf-8"))


def replace(directory: str, contents: Mapping[str, bytes]) -> None:
    """Writes files, by name, over those that are there: all new local ones are whole before the first has its name.

    Remote ones are replaced one after the other, each in one step.

    Raises:
      OSError: one could not be written; then nothing is replaced (remote: neither it nor those after it).
    """
    if paths.is_remote(directory):
        for name, content in contents.items():
            with replacing(directory, name) as handle:
                handle.write(content)
        return
    temporary = {name: os.path.join(directory, f".{name}.tmp") for name in contents}
    try:
        for name, content in contents.items():
            delete(temporary[name])  # what a kill left, or a link, which would be followed
            with open(temporary[name], "xb") as file:
                file.write(content)
        for name, path in temporary.items():
            os.replace(path, os.path.join(directory, name))
    finally:
        delete(*temporary.values())


def make_directory(path: str) -> None:
    """Makes it, and those above it, where they are not there; object stores have none. Raises OSError."""
    if paths.is_local(path):
        os.makedirs(path, exist_ok=True)


def download(uri: str, path: str) -> None:
    """Copies a remote file to a local one, by a request for each few megabytes. Raises OSError."""
    with objects.open_binary(uri) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, _CHUNK_BYTES)


def upload(path: str, uri: str) -> None:
    """Copies a local file to a remote one, which is replaced in one step. Raises OSError."""
    objects.write(uri, path)


def delete(*given: str) -> None:
    """Deletes files, and directories with what is in them; those that are not there are passed over."""
    for path in given:
        if paths.is_remote(path):
            below = (found for batch in finding.batches(path.rstrip("/") + "/") for found, _, _ in batch)
            objects.delete([path.rstrip("/"), *below])
        elif os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
