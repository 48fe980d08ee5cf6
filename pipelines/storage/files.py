"""Files wherever Beam's filesystems reach (local, gs://, s3://, hdfs://). A name appears when its content is whole."""

from __future__ import annotations

import contextlib
import glob as python_glob
import hashlib
import io
import os
import posixpath
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

WORK = ".work"  # under an output directory: what is needed only until the output is complete


def is_local(path: str) -> bool:
    """Whether this machine's own file functions can open the path."""
    return "://" not in path or FileSystems.get_scheme(path) in (None, "file")


def has_filesystem(path: str) -> bool:
    """Whether Beam can open the path, by its scheme."""
    try:
        FileSystems.get_filesystem(path)
    except ValueError:
        return False
    return True


def is_absolute(path: str) -> bool:
    """Whether a path means the same file wherever it stands."""
    return not is_local(path) or os.path.isabs(path)


def is_file(path: str) -> bool:
    """Whether a path is a local file."""
    return is_local(path) and os.path.isfile(path)


def is_pattern(path: str) -> bool:
    """Whether a path has characters that a glob pattern is made of; a name may have them too."""
    return any(character in path for character in "*?[")


def is_directory(path: str) -> bool:
    """Whether a path is a directory; object stores have none, and any prefix of names may be meant as one."""
    return os.path.isdir(path) if is_local(path) else True


def absolute(path: str) -> str:
    """One spelling for each file, however it was given."""
    return os.path.abspath(path) if is_local(path) else path.rstrip("/")


def join(directory: str, *names: str) -> str:
    """A path below a directory, on any filesystem."""
    return os.path.join(directory, *names) if is_local(directory) else posixpath.join(directory, *names)


def open_binary(path: str) -> BinaryIO:
    """A handle to read a file as it is: a name that ends in .gz is not unpacked."""
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def read_bytes(path: str) -> bytes:
    """All of a file."""
    with open_binary(path) as handle:
        return handle.read()


def exists(path: str) -> bool:
    """Whether there is a file or directory of this name."""
    return FileSystems.exists(path)


def size(path: str) -> int | None:
    """Bytes of a file; None where there is none. No pattern: a name may hold brackets."""
    return FileSystems.get_filesystem(path).size(path) if exists(path) else None


def read_text(path: str) -> str | None:
    """All of a UTF-8 file; None where there is none."""
    return read_bytes(path).decode("utf-8") if exists(path) else None


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


@contextlib.contextmanager
def replacing(directory: str, name: str) -> Iterator[DigestingWriter]:
    """A handle whose content becomes `directory/name` at the end, or, after an exception, nothing.

    It is written under `directory/.work` and renamed; object stores rename by copying, which also shows a whole file
    or none.
    """
    temporary = join(directory, WORK, f"{posixpath.basename(name)}.{uuid.uuid4().hex}.tmp")
    handle = FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED)
    try:
        with handle:
            yield DigestingWriter(handle)
        target = join(directory, name)
        if is_local(directory):
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


def delete(*paths: str) -> None:
    """Deletes files, and directories with what is in them; those that are not there are passed over."""
    for path in paths:
        if is_local(path):
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)
        elif found := [m.path for m in match(path) + match(join(path, "**"))]:
            FileSystems.delete(found)


def names(directory: str) -> list[str]:
    """The names of the files directly in a directory; none where it does not exist."""
    if is_local(directory):
        return sorted(e.name for e in os.scandir(directory) if e.is_file()) if os.path.isdir(directory) else []
    return sorted(posixpath.basename(found.path) for found in match(join(directory, "*")))


def match(pattern: str) -> list:
    """FileMetadata (`path`, `size_in_bytes`) of the files that a glob pattern finds."""
    return FileSystems.match([pattern])[0].metadata_list


def glob(pattern: str) -> list[str]:
    """The paths that a pattern finds, sorted; the file of this very name, if there is one.

    Local patterns are Python's and not Beam's, which pass over links that lead nowhere and files directly above `**/`.
    As in object stores, `**.jpg` is `**/*.jpg`. Directories are no files, a broken link is one (and will be rejected).
    """
    if not is_local(pattern):
        return sorted(found.path for found in match(pattern))
    if os.path.lexists(pattern) and not os.path.isdir(pattern):
        return [pattern]
    found = python_glob.glob(re.sub(r"\*\*(?=[^/])", "**/*", pattern), recursive=True)
    return sorted(path for path in _once(found) if not os.path.isdir(path))


def _once(paths: list[str]) -> Iterator[str]:
    """Without what links to directories find again: one to a directory above it finds everything some forty times."""
    ways: dict[str, str] = {}  # to each real directory, the shortest one
    is_shortest: dict[str, bool] = {}
    for path in sorted(paths, key=lambda path: (path.count("/"), path)):
        directory = os.path.dirname(path)
        if directory not in is_shortest:
            is_shortest[directory] = ways.setdefault(os.path.realpath(directory), directory) == directory
        if is_shortest[directory]:
            yield path


def version(path: str) -> str:
    """Changes when a local file does: its size in bytes and its time in nanoseconds; empty where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # the latter for a name with a zero byte
        return ""
    return f"{found.st_size}:{found.st_mtime_ns}"


def glob_versions(pattern: str) -> list[tuple[str, str]]:
    """(path, version) of what `glob` finds; a remote listing tells sizes and times at no cost."""
    if is_local(pattern):
        return [(path, version(path)) for path in glob(pattern)]
    return sorted((m.path, f"{m.size_in_bytes}:{m.last_updated_in_seconds}") for m in match(pattern))


def listed_version(path: str) -> str:
    """Changes when a file does, wherever it is; empty where there is none."""
    if is_local(path):
        return version(path)
    return next((found for name, found in glob_versions(path) if name == path), "")


def local_copy(directory: str) -> str:
    """A local directory with the same files: itself where it is local, else one copy for all processes of this machine.

    The copy's name follows from the names, sizes and times of the files, so that one that changed is copied anew.
    """
    if is_local(directory):
        return directory
    root = directory.rstrip("/") + "/"
    found = match(root + "**")
    listing = sorted((f.path, f.size_in_bytes, f.last_updated_in_seconds) for f in found)
    digest = hashlib.sha256(repr(listing).encode()).hexdigest()[:16]
    # Of this user alone: whoever may write to a directory that everybody shares must not choose our model.
    parent = os.path.join(tempfile.gettempdir(), f"captioning-copies-{os.getuid()}")
    os.makedirs(parent, mode=0o700, exist_ok=True)
    if os.stat(parent).st_uid != os.getuid():
        parent = tempfile.mkdtemp(prefix="captioning-copies-")
    target = os.path.join(parent, digest)
    if not os.path.isdir(target):
        making = tempfile.mkdtemp(dir=parent)
        for file in found:
            path = os.path.join(making, file.path.removeprefix(root))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open_binary(file.path) as source, open(path, "wb") as handle:
                shutil.copyfileobj(source, handle)
        try:
            os.rename(making, target)
        except OSError:  # another process was quicker
            shutil.rmtree(making)
    return target
