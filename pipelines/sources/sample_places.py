"""Tar shards, and directories of files beside each other, as places of samples: their images, captions and columns."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import posixpath
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from pipelines.items import ImageError
from pipelines.listing import entries
from pipelines.listing.catalogue import CHUNK
from pipelines.sources import drafts
from pipelines.sources.image_files import has_image_ending
from pipelines.sources.json_tables import Objects, ObjectTable, json_object
from pipelines.sources.table_columns import Columns
from pipelines.sources.tables import Rows
from pipelines.storage import tars
from pipelines.storage.beside import beside
from pipelines.storage.samples import JSON, Grouping, Parts, Sample
from pipelines.storage.tar_headers import TarError
from tfrecords_schema.errors import InputError, blaming, reading
from tfrecords_schema.shards import shard_of
from tfrecords_schema.storage import files, finding, paths
from tfrecords_schema.text import on_screen

CAPTIONS = "txt"  # the ending of captions, by default
_WALKING = 8  # threads that go through remote files
_CHUNK_LETTERS = 4 << 20  # of texts, about, that are held at a time
_NAMES_SHOWN = 30


class _File(NamedTuple):
    """A file of a directory, as a part of a sample."""

    name: str
    size: int
    kind: str
    path: str
    version: str


@dataclasses.dataclass(frozen=True)
class SamplePlace:
    """A tar shard; or a directory, whose files are grouped as if they stood in one, by name.

    Attributes:
      path: as given.
      version: of a tar file, which all of its images have too; a directory has none.
      is_tar: whether it is no directory.
    """

    path: str
    version: str = ""
    is_tar: bool = True

    def parts(self) -> Parts:
        """All files in this place. Raises OSError, and TarError where it is damaged, after the files that are whole."""
        return tars.walk(self.path) if self.is_tar else self._files()

    def _files(self) -> Parts:
        root = posixpath.join(self.path, "")
        # In an order that keeps samples together: `a.jpg a.txt ab.jpg`.
        found = finding.streamed(self.path, below=True)
        names = [(path.removeprefix(root), path, version) for path, version in found]
        for name, path, version in sorted(names, key=lambda found: (found[0].partition(".")[0], found[0])):
            size = int(version.partition(":")[0] or 0)

            def read(_: int, path: str = path, size: int = size) -> bytes:
                return files.read_bytes(path, size)

            yield _File(name, size, "", path, version), read

    def uri(self, part: Any) -> str:
        """Where the bytes of a file in it are."""
        return part.path if isinstance(part, _File) else tars.member_uri(self.path, part.offset, part.name)

    def version_of(self, part: Any) -> str:
        """Changes when the file does; in a tar file, whenever anything of it does: its members have no checksums."""
        return part.version if isinstance(part, _File) else f"{part.size}:{self.version}"


class _Row(NamedTuple):
    """A sample as a row of drafts."""

    place: int
    number: int
    id: str
    uri: str
    version: str
    problem: ImageError | None


@functools.lru_cache(maxsize=2)
def open_samples(places: tuple[tuple[int, SamplePlace], ...], columns: Columns) -> Samples:
    """The samples of places, with what was learned of them, once per process."""
    return Samples(places, columns)


class Samples:
    """The samples of several places, each by its number. Each place is gone through once.

    Raises:
      InputError: a place cannot be read, or has not the columns.
    """

    def __init__(self, places: Sequence[tuple[int, SamplePlace]], columns: Columns):
        self._places = dict(places)
        self._carried = [name for name, _ in columns.carried()]
        self._captions = None if columns.captions is None else columns.captions or CAPTIONS
        self._wanted = list(dict.fromkeys([*filter(None, [self._captions]), *self._carried]))
        self._grouping = Grouping(has_image_ending, columns.image, self._wanted)
        self._names: dict[str, None] = {}
        # What the columns hold, only all samples tell; without columns nothing has to be kept.
        self._table = ObjectTable(self._chunks(), self._wanted) if self._wanted else None
        for flag, name in [
            ("caption_field", columns.captions),
            *(("metadata_columns", name) for name in self._carried),
        ]:
            if name and self._table and name not in self._table.columns:
                found = ", ".join(map(repr, self._names)) or "none"
                where = f"{places[0][1].path}{' and others' if len(places) > 1 else ''}"
                raise InputError(f"--{flag}: {where}: expected files or JSON fields {name!r} in samples, found {found}")

    def types(self) -> list[Any]:
        """Arrow types of the columns that are carried along."""
        return self._table.types(self._carried) if self._table else []

    def drafts(self, metadata: Sequence[tuple[str, Any]], together: int) -> Iterator[pa.Table]:
        """All samples as rows of `drafts`, those of one place in its order.

        Args:
          metadata: (name, Arrow type) of the columns that are carried along, of all tables.
          together: so many that stand one behind the other in a tar file make a run.
        """
        captions = [self._captions] if self._captions else []
        usable, problem = False, None
        for rows in self._rows(captions):
            found: Sequence[Any] = rows.lines
            problems = [row.problem for row in found]
            for index, bad in rows.problems.items():
                problems[index] = problems[index] or _bad(bad)
            number = found[0].place
            place = self._places[number]
            spelled = paths.absolute(place.path)
            columns: dict[str, Any] = {
                "name": [spelled + row.uri[len(place.path) :] for row in found],
                "id": [row.id for row in found],
                "uri": [row.uri for row in found],
                "version": [row.version for row in found],
                "error": [one and one.error for one in problems],
                "message": [one and f"{row.uri}: {one.message}" for row, one in zip(found, problems, strict=True)],
            }
            if place.is_tar:
                start = shard_of(spelled, 1 << 32)
                columns["run"] = pa.array([start + row.number // together for row in found], pa.uint64())
            if captions:
                columns["captions"] = drafts.captions_of(rows.columns[0], by_line=self._captions == CAPTIONS)
            for index, values in enumerate(rows.columns[len(captions) :]):
                columns[f"m{index}"] = entries.store(values, metadata[index][1])
            usable |= None in problems
            problem = problem or next(filter(None, columns["message"]), None)
            yield drafts.batch(number, [row.number for row in found], columns)
        if not usable:
            where = ", ".join(place.path for place in itertools.islice(self._places.values(), 3))
            told = f"none that could be used; the first: {problem}" if problem else f"none in {where}"
            raise InputError(f"--images: expected samples with images, found {told}")

    def _rows(self, names: Sequence[str]) -> Iterator[Rows]:
        if self._table:
            yield from self._table.rows(names, self._carried)
        else:
            yield from (Rows(rows, []) for rows, _ in self._chunks())

    def _chunks(self) -> Iterator[Objects]:
        """Some samples of one place at a time: their rows, and the values of each or what is wrong with them."""
        remote = {number: place for number, place in self._places.items() if paths.is_remote(place.path)}
        local = (self._walk(number, place) for number, place in self._places.items() if number not in remote)
        yield from itertools.chain.from_iterable(local)
        yield from beside([functools.partial(self._walk, *one) for one in remote.items()], _WALKING)

    def _walk(self, number: int, place: SamplePlace) -> Iterator[Objects]:
        rows: list[_Row] = []
        objects: list[dict[str, Any] | str] = []
        letters = 0
        with blaming("--images"), reading(place.path, "a tar file" if place.is_tar else "a directory"):
            for count, sample in enumerate(self._samples(place)):
                uri, version = place.uri(sample.part), place.version_of(sample.part)
                rows.append(_Row(number, count, sample.key, uri, version, sample.problem))
                values = self._values(sample.texts)
                objects.append(values)
                letters += len(str(values)) if values else 0
                if len(rows) >= CHUNK or letters >= _CHUNK_LETTERS:
                    yield rows, objects
                    rows, objects, letters = [], [], 0
        if rows:
            yield rows, objects

    def _values(self, texts: dict[str, str]) -> dict[str, Any] | str:
        """The values of the columns that are wanted. A file of its own comes before a field of that name in JSON."""
        fields: dict[str, Any] | None = json_object(texts[JSON]) if JSON in texts else {}
        if fields is None:
            return f"its {JSON}: expected a JSON object, found {texts[JSON].strip()[:60]!r}"
        there = {**fields, **texts}
        if self._wanted and len(self._names) < _NAMES_SHOWN:
            self._names.update(dict.fromkeys(there))
        return {name: there[name] for name in self._wanted if name in there}

    def _samples(self, place: SamplePlace) -> Iterator[Sample]:
        """The samples of a place; where it is damaged, what follows is one more, which cannot be used."""
        damage: list[TarError] = []

        def parts() -> Parts:
            try:
                yield from place.parts()
            except TarError as error:
                damage.append(error)

        passed_over = 0
        for sample in self._grouping.samples(parts()):
            # In a directory there may be anything; in a tar file an image may have any ending.
            if place.is_tar or has_image_ending(sample.part.name):
                yield sample
            else:
                passed_over += 1
        if passed_over:
            note = f"{passed_over:,} names in {place.path} have no file with an image's ending and were skipped"
            print(on_screen(note), file=sys.stderr, flush=True)
        for error in damage:
            part = _File(posixpath.basename(place.path), 0, "", place.path, place.version)
            yield Sample(part.name, part, {}, _bad(f"{error}; what follows in this file is not read"))


def _bad(message: str) -> ImageError:
    return ImageError("list", "BadEntry", message)
