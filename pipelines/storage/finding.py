"""Which files there are, wherever Beam's filesystems reach: below a directory, or by a pattern, with their versions."""

from __future__ import annotations

import contextlib
import glob as python_glob
import os
import re
from collections.abc import Iterator

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from pipelines.storage import paths
from tfrecords_schema.errors import InputError


def is_directory(path: str) -> bool:
    """Whether a path is a directory; object stores have none, and any prefix of names may be meant as one.

    What may be a pattern too is a directory if there are files in it.
    """
    if paths.is_local(path):
        return os.path.isdir(path)
    return not paths.is_pattern(path) or any(True for _ in _list(path.rstrip("/") + "/"))


def names(directory: str) -> list[str]:
    """The names of the files directly in a directory; none where it does not exist."""
    if paths.is_local(directory):
        return sorted(e.name for e in os.scandir(directory) if e.is_file()) if os.path.isdir(directory) else []
    root = directory.rstrip("/") + "/"
    found = (m.path.removeprefix(root) for m in below(directory))
    return sorted(name for name in found if name and "/" not in name)


def below(directory: str) -> list:
    """FileMetadata (`path`, `size_in_bytes`) of the files in a remote directory; its name is no pattern."""
    root = directory.rstrip("/") + "/"
    return [m for m in _list(root) if not m.path.endswith("/")]


def _list(prefix: str) -> Iterator:
    """What Beam's `match` makes its choice from, with no pattern: it has no way to quote one.

    Only Beam is meant to call `_list`, which its filesystems must define; what is public takes patterns.
    """
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
    if not paths.is_local(pattern):
        return [path for path, _ in glob_versions(pattern)]
    if os.path.lexists(pattern) and not os.path.isdir(pattern):
        return [pattern]
    found = python_glob.glob(re.sub(r"\*\*(?=[^/])", "**/*", pattern), recursive=True)
    return sorted(path for path in _once(found) if not os.path.isdir(path))


def _once(found: list[str]) -> Iterator[str]:
    """Without what links to directories find again: one to a directory above it finds everything some forty times."""
    ways: dict[str, str] = {}  # to each real directory, the shortest one
    is_shortest: dict[str, bool] = {}
    for path in sorted(found, key=lambda path: (path.count("/"), path)):
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
    if paths.is_local(pattern):
        return [(path, version(path)) for path in glob(pattern)]
    found = [m for m in _list(pattern) if m.path == pattern] if paths.is_pattern(pattern) else []
    return _versions(found or match(pattern))


def versions_below(directory: str) -> list[tuple[str, str]]:
    """(path, version) of all files in a directory, at any depth; its name is no pattern."""
    if paths.is_local(directory):
        return glob_versions(os.path.join(python_glob.escape(directory), "**"))
    return _versions(below(directory))


def _versions(found: list) -> list[tuple[str, str]]:
    return sorted((m.path, f"{m.size_in_bytes}:{m.last_updated_in_seconds}") for m in found)


def listed_version(path: str) -> str:
    """Changes when a file does, wherever it is; empty where there is none."""
    if paths.is_local(path):
        return version(path)
    return next((found for name, found in glob_versions(path) if name == path), "")
