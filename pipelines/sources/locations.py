"""Where images lie: a directory, a glob pattern or a zip file; from names in a captions file or table to URIs."""

from __future__ import annotations

import itertools
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator

import pyarrow as pa

from pipelines.listing.catalogue import CHUNK, Catalogue
from pipelines.listing.entries import escape, texts, unescape
from pipelines.storage import archives
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import braces, faults, files, finding, paths
from tfrecords_schema.text import one_line

_FILES = pa.schema([(name, pa.string()) for name in ("place", "path", "uri", "version", "same")])
_HITS = pa.schema([("position", pa.int64()), ("rank", pa.int32()), ("name", pa.string()), ("ordinal", pa.int64())])
_HITS = pa.schema([*_HITS, *((name, pa.string()) for name in ("uri", "version", "same"))])
FOUND = pa.schema([("position", pa.int64()), *((name, pa.string()) for name in ("uri", "version", "message"))])


class Locations:
    """Several places, where one image should be in exactly one.

    Args:
      places: directories, zip files and patterns. All but local directories, and a single remote one, are listed, each
        once in a catalogue.

    Raises:
      InputError: a place is not there, or is no place for images.
    """

    def __init__(self, catalogue: Catalogue, places: Iterable[str]):
        self._catalogue = catalogue
        catalogue.run("CREATE TABLE IF NOT EXISTS files (place TEXT, path TEXT, uri TEXT, version TEXT, same TEXT)")
        self._places = [found for place in places for one in braces.expand(place) for found in _expanded(one)]
        alone = len(self._places) == 1
        self._directories = [place for place in self._places if _is_directory(place, alone)]
        for place in self._places:
            known = catalogue.run("SELECT 1 FROM files WHERE place = ? LIMIT 1", escape(place))
            if place not in self._directories and not known:
                catalogue.fill("files", _listed(place))
        first = self._places[0]
        self.fallback = paths.join(first, "") if first in self._directories else f"{first}{_mark(first)}/"
        self._is_certain = alone and bool(self._directories)

    def find(self, wanted: str) -> None:
        """Makes a table `found` of the names that are anywhere: position, and either URI and version, or a message.

        Where all names are in one directory nothing has to be looked for: a URI is `fallback` and the name, as for
        names that are nowhere.

        Args:
          wanted: a query of (position, rank, name); of the names of one position the lowest rank counts.
        """
        run = self._catalogue.run
        self._catalogue.create("found", FOUND)
        if self._is_certain:
            return
        self._catalogue.create("hits", _HITS)
        run(f"CREATE OR REPLACE TABLE wanted AS {wanted}")
        for number, place in enumerate(self._places):
            if place in self._directories:
                self._catalogue.fill("hits", self._looked_up(number << 40, place))
        run("CREATE OR REPLACE TABLE places (ordinal BIGINT, place TEXT)")
        self._catalogue.database.executemany(
            "INSERT INTO places VALUES (?, ?)",
            [(number << 40, escape(place)) for number, place in enumerate(self._places)],
        )
        # A name with folders fits a path that ends in it.
        last = "regexp_extract({}, '[^/]*$')".format
        run(
            f"""
            INSERT INTO hits SELECT position, rank, name, ordinal + files.rowid, uri, version, same
            FROM wanted JOIN (SELECT *, files.rowid FROM files JOIN places USING (place)) AS files
              ON {last("name")} = {last("path")} AND (path = name OR ends_with(path, '/' || name))
            """
        )
        # Numbers alone are grouped first, and names of those few that have several files: names of all of a million
        # images would not fit into the catalogue's memory.
        run("CREATE OR REPLACE TABLE best AS SELECT position, min(rank) AS rank FROM hits GROUP BY position")
        run(
            "CREATE OR REPLACE TABLE several AS SELECT position FROM hits SEMI JOIN best USING (position, rank) "
            "GROUP BY position HAVING count(*) > 1"
        )
        run(
            "INSERT INTO found SELECT position, uri, version, NULL FROM hits SEMI JOIN best USING (position, rank) "
            "ANTI JOIN several USING (position)"
        )
        run(
            """
            INSERT INTO found
            WITH each AS (
                SELECT position, name, version, min(ordinal) AS ordinal, arg_max(uri, ordinal) AS uri
                FROM hits SEMI JOIN best USING (position, rank) SEMI JOIN several USING (position)
                GROUP BY position, name, version, same
            )
            SELECT position, CASE WHEN count(*) = 1 THEN any_value(uri) END,
              CASE WHEN count(*) = 1 THEN any_value(version) END,
              CASE WHEN count(*) > 1 THEN count(*) || ' files have the name ' || any_value(name) || ': '
                || array_to_string(list(uri ORDER BY ordinal)[:3], ', ') END
            FROM each GROUP BY position
            """
        )
        for table in ("hits", "wanted", "places", "best", "several"):
            run(f"DROP TABLE {table}")

    def has_any(self, names: list[str], positions: list[int]) -> bool:
        """Whether an image of these names is there, as far as can be told; after `find`."""
        if not paths.is_local(self.fallback):
            return True
        if self._is_certain:
            return any(finding.version(self.fallback + name) for name in names)
        return bool(self._catalogue.run("SELECT 1 FROM found WHERE list_contains(?, position) LIMIT 1", positions))

    def _looked_up(self, ordinal: int, directory: str) -> Iterator[pa.Table]:
        """Hits among the files directly named, which are asked for one by one."""
        query = "SELECT position, rank, name FROM wanted WHERE rowid >= ? AND rowid < ?"
        (count,) = self._catalogue.run("SELECT count(*) FROM wanted")[0]
        for start in range(0, count, CHUNK):
            rows = []
            for position, rank, name in self._catalogue.run(query, start, start + CHUNK):
                uri = paths.join(directory, unescape(name))
                if os.path.lexists(uri):
                    rows.append((position, rank, name, ordinal, uri, finding.version(uri), paths.absolute(uri)))
            if rows:
                *known, uris, versions, same = zip(*rows, strict=True)
                columns = [*map(pa.array, known), *map(texts, (uris, versions, same))]
                yield pa.table(columns, names=_HITS.names).cast(_HITS)


def _expanded(place: str) -> list[str]:
    """The zip files that a pattern of them finds; any other place is itself."""
    if archives.is_archive(place) and paths.is_pattern(place) and not files.exists(place):
        return finding.glob(place) or [place]
    return [place]


def _mark(place: str) -> str:
    return "!" if archives.is_archive(place) else ""


def _is_directory(place: str, alone: bool) -> bool:
    """Whether names are joined to it. Which of several places has an image, only listings tell of remote ones."""
    if archives.is_archive(place) or (paths.is_pattern(place) and not finding.is_directory(place)):
        return False
    if not finding.is_directory(place):
        raise InputError(f"expected a directory, a zip file or a pattern, found none at {place}")
    return alone or paths.is_local(place)


def _listed(place: str) -> Iterator[pa.Table]:
    """The files of a place, as rows of `files`."""
    chunks = _listed_archive(place) if archives.is_archive(place) else _listed_files(place)
    for found, uris, versions, same in chunks:
        columns = [[place] * len(found), found, uris, versions, same]
        yield pa.table(list(map(texts, columns)), schema=_FILES)


def _listed_files(place: str) -> Iterator[tuple[list[str], ...]]:
    is_pattern = paths.is_pattern(place) and not finding.is_directory(place)
    listing = finding.glob_versions(place) if is_pattern else finding.versions_below(place)
    empty = True
    for uris, versions in chunks(listing):
        empty = False
        yield uris, uris, versions, absolutes(uris)
    if empty and is_pattern:
        raise InputError(f"expected a directory, a zip file or a pattern, found no file matches {place!r}")


def chunks(listing: Iterable[tuple[str, str]]) -> Iterator[tuple[list[str], list[str]]]:
    """Paths and versions of a listing, some at a time."""
    remaining = iter(listing)
    while chunk := list(itertools.islice(remaining, CHUNK)):
        found, versions = zip(*chunk, strict=True)
        yield list(found), list(versions)


def absolutes(uris: Iterable[str]) -> list[str]:
    """`paths.absolute` of the files of a listing, of which many are in one directory."""
    known: dict[str, str] = {}
    found = []
    for uri in uris:
        directory, slash, name = uri.rpartition("/")
        if directory not in known:
            known[directory] = paths.absolute(directory + slash or ".").rstrip("/") + "/"
        found.append(known[directory] + name)
    return found


def open_archive(path: str) -> archives.Archive:
    """The archive of a path. Raises InputError where it is none that can be listed."""
    try:
        return archives.open_archive(path)
    # ValueError: a name that says it is UTF-8 and is none; struct.error: a record of the directory that is cut short.
    except (OSError, NotImplementedError, ValueError, struct.error, zipfile.BadZipFile) as error:
        if faults.is_of_the_machine(error):
            raise
        raise InputError(f"expected a zip file, found none at {path}: {one_line(error)}") from None


def _listed_archive(path: str) -> Iterator[tuple[list[str], ...]]:
    archive = open_archive(path)
    names = list(archive.names())
    members = [(name, archive.version(name)) for name in names]
    members += [(name, "another member of this name") for name in names if name in archive.repeated]
    for found, versions in chunks(members):
        uris = [archives.member_uri(path, name) for name in found]
        yield found, uris, versions, absolutes(uris)
