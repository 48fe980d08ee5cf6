"""Files wherever Beam's filesystems reach (local, gs://, s3://, hdfs://). A name appears when its content is whole."""

from __future__ import annotations

import contextlib
import glob as python_glob
import os
import posixpath
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from pipelines.storage import objects
from pipelines.storage.digesting import DigestingWriter
from tfrecords_schema.errors import InputError

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
    """Whether a path is a directory; object stores have none, and any prefix of names may be meant as one.

    What may be a pattern too is a directory if there are files in it.
    """
    if is_local(path):
        return os.path.isdir(path)
    return not is_pattern(path) or any(True for _ in _list(path.rstrip("/") + "/"))


def absolute(path: str) -> str:
    """One spelling for each file, however it was given."""
    return os.path.abspath(path) if is_local(path) else path.rstrip("/")


def join(directory: str, *names: str) -> str:
    """A path below a directory, on any filesystem."""
    return os.path.join(directory, *names) if is_local(directory) else posixpath.join(directory, *names)


def open_binary(path: str) -> BinaryIO:
    """A handle to read a file as it is: a name that ends in .gz is not unpacked."""
    if objects.is_object(path):
        return objects.open_binary(path)
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


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
    target = join(directory, name)
    if objects.is_object(directory):
        with tempfile.TemporaryFile() as handle:
            yield DigestingWriter(handle)
            handle.seek(0)
            objects.write(target, handle)
        return
    temporary = join(directory, WORK, f"{posixpath.basename(name)}.{uuid.uuid4().hex}.tmp")
    handle = FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED)
    try:
        with handle:
            yield DigestingWriter(handle)
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
        else:
            found = [path] * exists(path) + [m.path for m in below(path)]
            objects.delete(found) if objects.is_object(path) else FileSystems.delete(found)


def names(directory: str) -> list[str]:
    """The names of the files directly in a directory; none where it does not exist."""
    if is_local(directory):
        return sorted(e.name for e in os.scandir(directory) if e.is_file()) if os.path.isdir(directory) else []
    root = directory.rstrip("/") + "/"
    found = (m.path.removeprefix(root) for m in below(directory))
    return sorted(name for name in found if name and "/" not in name)


def below(directory: str) -> list:
    """FileMetadata (`path`, `size_in_bytes`) of the files in a remote directory; its name is no pattern."""
    root = directory.rstrip("/") + "/"
    return [m for m in _list(root) if not m.path.endswith("/")]


def _list(prefix: str) -> Iterator:
    """What Beam's `match` makes its choice from, with no pattern: it has no way to quote one."""
    with _listing(prefix):
        yield from FileSystems.get_filesystem(prefix)._list(prefix)


@contextlib.contextmanager
def _listing(path: str) -> Iterator[None]:
    """The store's own error, out of what Beam wraps around it."""
    try:
        yield
    except BeamIOError as error:
        cause: object = error
        while isinstance(cause, BeamIOError) and cause.exception_details:
            cause = next(iter(cause.exception_details.values()))
        told = " ".join(str(getattr(cause, "message", None) or cause).split())
        raise InputError(f"{path}: expected a place that can be listed, found: {told[:300]}") from None


def match(pattern: str) -> list:
    """FileMetadata (`path`, `size_in_bytes`) of the files that a glob pattern finds. Raises InputError."""
    with _listing(pattern):
        return FileSystems.match([pattern])[0].metadata_list


def glob(pattern: str) -> list[str]:
    """The paths that a pattern finds, sorted; the file of this very name, if there is one.

    Local patterns are Python's and not Beam's, which pass over links that lead nowhere and files directly above `**/`.
    As in object stores, `**.jpg` is `**/*.jpg`. Directories are no files, a broken link is one (and will be rejected).
    """
    if not is_local(pattern):
        return [path for path, _ in glob_versions(pattern)]
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
    found = [m for m in _list(pattern) if m.path == pattern] if is_pattern(pattern) else []
    return _versions(found or match(pattern))


def versions_below(directory: str) -> list[tuple[str, str]]:
    """(path, version) of all files in a directory, at any depth; its name is no pattern."""
    if is_local(directory):
        return glob_versions(os.path.join(python_glob.escape(directory), "**"))
    return _versions(below(directory))


def _versions(found: list) -> list[tuple[str, str]]:
    return sorted((m.path, f"{m.size_in_bytes}:{m.last_updated_in_seconds}") for m in found)


def listed_version(path: str) -> str:
    """Changes when a file does, wherever it is; empty where there is none."""
    if is_local(path):
        return version(path)
    return next((found for name, found in glob_versions(path) if name == path), "")
