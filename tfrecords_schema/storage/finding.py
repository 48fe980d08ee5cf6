"""Which files there are, here or in a store: below a directory, or by a pattern, with their versions."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import stat
from collections.abc import Iterable, Iterator

from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import faults, objects, paths

_DEEP = r"[^/]*(?:/(?!\.)[^/]*)*"  # of a pattern `**`: the rest of a name, and names below it that are not hidden


def is_directory(path: str) -> bool:
    """Whether a path is a directory; object stores have none, and any prefix of names may be meant as one.

    What may be a pattern too is a directory if there are files in it. A web server's files are in none.
    """
    if paths.is_local(path):
        return os.path.isdir(path)
    return not paths.is_web(path) and (not paths.is_pattern(path) or directory_exists(path))


def directory_exists(path: str) -> bool:
    """Whether a path is a directory that is there: in an object store, one with files. Raises OSError."""
    if paths.is_local(path):
        return os.path.isdir(path)
    return not paths.is_web(path) and any(True for _ in objects.listing(path.rstrip("/") + "/"))


def names(directory: str) -> list[str]:
    """The names of the files directly in a directory; none where it does not exist."""
    if paths.is_local(directory):
        return sorted(e.name for e in os.scandir(directory) if e.is_file()) if os.path.isdir(directory) else []
    root = directory.rstrip("/") + "/"
    found = (path.removeprefix(root) for batch in batches(root) for path, _, _ in batch)
    return sorted(name for name in found if "/" not in name)


def names_below(directory: str) -> list[str]:
    """The names of all files below a directory, relative to it, sorted; links are not followed. Raises OSError."""
    if paths.is_local(directory):
        found = (os.path.join(folder, name) for folder, _, there in os.walk(directory) for name in there)
        return sorted(os.path.relpath(path, directory) for path in found)
    root = directory.rstrip("/") + "/"
    return sorted(path.removeprefix(root) for batch in objects.listing(root) for path, _, _ in batch)


def batches(prefix: str) -> Iterator[list[objects.Entry]]:
    """(path, bytes, mark of the content) of the remote files that begin with a prefix, as they come. Raises InputError.

    It is no pattern. A few thousand are held at a time, however many there are.
    """
    with _listing(prefix):
        yield from objects.listing(prefix)


@contextlib.contextmanager
def _listing(place: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if faults.is_of_the_machine(error):
            raise
        said = str(error).removeprefix(f"{place}: ")
        raise InputError(f"{place}: expected a place that can be listed, found: {said}") from None


def matching(pattern: str) -> Iterator[list[objects.Entry]]:
    """As `batches`, of the remote files that a pattern finds; of the one of this very name, if there is one."""
    with _listing(pattern), contextlib.suppress(FileNotFoundError):
        yield [objects.entry(pattern)]
        return
    if paths.is_pattern(pattern):
        found = re.compile(_regular(pattern), re.DOTALL).fullmatch
        for batch in batches(re.split(r"[*?\[]", pattern, maxsplit=1)[0]):
            yield [entry for entry in batch if found(entry[0])]


def _regular(pattern: str) -> str:
    """A regular expression of a pattern: `*`, `?` stay in a directory, `**` does not; hidden names are as in `glob`."""
    parts = re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", pattern, re.DOTALL)

    def meaning(part: str, before: str) -> str:
        shown = r"(?!\.)" if before.endswith("/") else ""  # here a name begins
        if len(part) > 2 and part[0] == "[":
            kept = part[1:-1].replace("\\", r"\\")
            return f"{shown}[^{kept[1:]}]" if kept[0] == "!" else f"{shown}[{kept}]"
        if part == "**/":
            return f"(?:{shown}{_DEEP}/)?"
        wild = {"**": _DEEP, "*": "[^/]*", "?": "[^/]"}.get(part)
        return re.escape(part) if wild is None else shown + wild

    return "".join(map(meaning, parts, ["/", *parts]))


def glob(pattern: str) -> list[str]:
    """The paths that a pattern finds, sorted; the file of this very name, if there is one.

    As in object stores, `**.jpg` is `**/*.jpg`. Directories are no files, a broken link is one (and will be rejected).
    What begins with a dot is found only where the pattern says so.

    Raises:
      InputError: a directory cannot be listed; Python's own glob would find nothing in it, and say nothing.
    """
    if not paths.is_local(pattern):
        return [path for path, _ in glob_versions(pattern)]
    if os.path.lexists(pattern) and not os.path.isdir(pattern):
        return [pattern]
    parts = re.sub(r"\*\*(?=[^/])", "**/*", pattern).split("/")
    found = _matches("", parts) if parts[0] else _matches("/", parts[1:])
    return sorted(_once(found))


def _matches(directory: str, parts: list[str]) -> Iterator[str]:
    """The files that the parts of a pattern find in a directory."""
    part, *rest = parts
    if part == "**":
        for below in _directories(directory):
            yield from _matches(below, rest or ["*"])
    elif paths.is_pattern(part):
        fits = re.compile(fnmatch.translate(part)).match
        for entry in _entries(directory, hidden=part.startswith(".")):
            if fits(entry.name) and _is_directory(entry) == bool(rest):
                path = os.path.join(directory, entry.name)
                yield from _matches(path, rest) if rest else [path]
    else:
        path = os.path.join(directory, part)
        try:
            mode = os.stat(path, follow_symlinks=bool(rest)).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _unlisted(path, error) from None
        if rest and stat.S_ISDIR(mode):
            yield from _matches(path, rest)
        elif not rest and not os.path.isdir(path):
            yield path


def _directories(top: str) -> Iterator[str]:
    """A directory and all below it, each real one once, by the shortest way to it."""
    known, level = set(), [top]
    while level:
        following: list[str] = []
        for directory in sorted(level):
            if (real := os.path.realpath(directory)) not in known:
                known.add(real)
                yield directory
                found = (entry for entry in _entries(directory) if _is_directory(entry))
                following += (os.path.join(directory, entry.name) for entry in found)
        level = following


def _entries(directory: str, hidden: bool = False) -> Iterator[os.DirEntry[str]]:
    """What is in a directory; without names that begin with a dot, if `hidden` does not say so."""
    try:
        with os.scandir(directory or ".") as entries:
            yield from (entry for entry in entries if hidden or not entry.name.startswith("."))
    except OSError as error:
        raise _unlisted(directory, error) from None


def _unlisted(directory: str, error: OSError) -> Exception:
    way = "make it readable, or give only places that are"
    told = f"{directory}: expected a directory that can be listed, found: {error.strerror}; {way}"
    return error if faults.is_of_the_machine(error) else InputError(told)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Also a link to one; one that leads nowhere, or round in circles, is a file that nobody can read."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _once(found: Iterable[str]) -> Iterator[str]:
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
    """(path, version) of what `glob` finds; a remote listing tells sizes and marks of the content at no cost."""
    if paths.is_local(pattern):
        return [(path, version(path)) for path in glob(pattern)]
    return _versions(matching(pattern))


def versions_below(directory: str) -> list[tuple[str, str]]:
    """(path, version) of all files in a directory, at any depth; its name is no pattern."""
    if paths.is_local(directory):
        found = _matches(directory, ["**"]) if os.path.isdir(directory) else ()
        return [(path, version(path)) for path in sorted(found)]
    return _versions(batches(directory.rstrip("/") + "/"))


def _versions(found: Iterator[list[objects.Entry]]) -> list[tuple[str, str]]:
    return sorted((path, f"{size}:{mark}") for batch in found for path, size, mark in batch)


def streamed(place: str, below: bool) -> Iterator[tuple[str, str]]:
    """(path, version) below a directory, without hidden ones, or by a pattern; remote ones as they come, unsorted."""
    if paths.is_local(place):
        yield from versions_below(place) if below else glob_versions(place)
        return
    root = place.rstrip("/") + "/"
    for batch in batches(root) if below else matching(place):
        for path, size, mark in batch:
            if not (below and is_hidden(path[len(root) :])):
                yield path, f"{size}:{mark}"


def is_hidden(name: str) -> bool:
    """Whether a file's name, or that of a directory before it, begins with a dot; `.` and `..` are no names."""
    return re.search(r"(^|/)\.(?!\.?/)", name) is not None


def listed_version(path: str) -> str:
    """Changes when a file does, wherever it is; empty where there is none."""
    if paths.is_local(path):
        return version(path)
    try:
        _, size, mark = objects.entry(path)
    except FileNotFoundError:
        return ""
    return f"{size}:{mark}"
