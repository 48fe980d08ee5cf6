"""What `pipelines.caption --images` takes: files, directories, zip files and tables in any mix, as one source."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import posixpath
import sys
from collections.abc import Iterator
from typing import Any

from pipelines.items import Item
from pipelines.listing.catalogue import Catalogue
from pipelines.sources import tables
from pipelines.sources.image_files import FilePlace, common_directory, has_image_ending, name_below
from pipelines.sources.image_ids import NamedIds
from pipelines.sources.image_lists import ImageList
from pipelines.sources.image_tables import CocoImages, ImageTable
from pipelines.sources.locations import Locations, open_locations
from pipelines.sources.table_columns import NO_COLUMNS, Columns, merge_types
from pipelines.storage import archives, finding, parquet_cells, paths
from tfrecords_schema.errors import InputError, blaming

_ACCEPTED = (
    "a quoted pattern such as 'photos/**.jpg', a directory, a zip file, an image file, a table "
    f"({', '.join(tables.ENDINGS)}) or a COCO .json"
)


@dataclasses.dataclass(frozen=True)
class ImageSets:
    """The images that --images means.

    Attributes:
      images: patterns, directories, zip files, image files, tables and COCO JSONs.
      root: directories, zip files and patterns in which names in tables are looked up; by default the table's own
        directory.
      columns: of the tables.
      excluding: a directory whose files are passed over: the output, which may lie below the images.
      limit: only so many, from the beginning.
      rows_together: so many rows that hold images are read together, by the worker that makes their shard.
    """

    images: tuple[str, ...]
    root: tuple[str, ...] = ()
    columns: Columns = NO_COLUMNS
    excluding: str = ""
    limit: int | None = None
    rows_together: int = 1000

    def list(self, catalogue: Catalogue) -> None:
        """Lists all images. Says on the screen which files were passed over.

        Raises:
          InputError: a place holds no images or is none, a table is not as expected, or a flag does not fit.
        """
        self._check()
        catalogue.add(self.read())
        catalogue.set_duplicates_aside()

    def _check(self) -> None:
        places = self._places()
        lists = [place for place in places if isinstance(place, ImageList)]
        self._check_flags(lists)
        root = self._root()
        for one in lists:
            one.check(root)

    def read(self) -> Iterator[Item]:
        """Items in the order of --images, those of a directory or pattern by name. A file found twice is one Item."""
        return itertools.islice(self._read(), self.limit)

    def describe(self) -> dict[str, Any]:
        """As options that a later run is compared with; flags that are not given are left out."""
        given = {"images": list(self.images), "root": list(self.root), **self.columns.given(), "limit": self.limit}
        return {flag: value for flag, value in given.items() if value not in (None, [])}

    def metadata_fields(self) -> list[tuple[str, Any]]:
        """(name, Arrow type) of the columns that Items' metadata hold. Raises InputError as `list`."""
        for cache in (archives.open_archive, parquet_cells.open_cells, open_list):
            cache.cache_clear()  # what an earlier run in this process saw may have changed
        self.columns.check()
        names = [name for _, name in self.columns.carried()]
        if not names:
            return []
        opened = [place for place in self._places() if isinstance(place, ImageTable)]
        types = [(table.path, kinds) for table in opened if (kinds := table.metadata_types()) is not None]
        return list(zip(names, merge_types(types, names), strict=True))

    def bytes(self, catalogue: Catalogue) -> int | None:
        """Of all images together, as far as listings tell; None where they tell nothing."""
        size = "try_cast(split_part(version, ':', 1) AS BIGINT)"
        usable = f"count(*) FILTER (run IS NOT NULL), sum({size}) FILTER (run IS NULL AND error IS NULL)"
        cells, total = catalogue.run(f"SELECT {usable} FROM entries")[0]
        total = int(total or 0)
        if cells:
            opened = [place for place in self._places() if isinstance(place, ImageTable)]
            rows = sum(table.overview.rows for table in opened if table.has_cells)
            total += sum(table.image_bytes() for table in opened) * cells // rows
        return total or None

    def _check_flags(self, lists: list[ImageList]) -> None:
        given = [*self.columns.given(), *["root"] * bool(self.root)]
        is_table = any(isinstance(one, ImageTable) for one in lists)
        if given and not (is_table or (lists and given == ["root"])):
            kinds = ", ".join(tables.ENDINGS)
            raise InputError(f"--{given[0]}: expected a table ({kinds}) among --images, found none; leave it out")

    def _root(self) -> Locations | None:
        with blaming("--root"):
            return open_locations(self.root) if self.root else None

    def _places(self) -> list[FilePlace | ImageList]:
        return open_places(self.images, self.columns)

    def _float_columns(self) -> list[int]:
        import pyarrow as pa

        return [index for index, (_, kind) in enumerate(self.metadata_fields()) if pa.types.is_floating(kind)]

    def _read(self) -> Iterator[Item]:
        places, root, positions = self._places(), self._root(), itertools.count()
        lists = [place for place in places if isinstance(place, ImageList)]
        file_places = [place for place in places if isinstance(place, FilePlace)]
        directory = common_directory(place.root() for place in file_places)
        common = common_directory(one.overview.common for one in lists if one.overview.common is not None)
        listings = {place: place.list(self.excluding) for place in file_places}
        ids = NamedIds(
            itertools.chain(
                (name_below(directory, file.path) for listing in listings.values() for file in listing.images),
                (name_below(common, name) for one in lists for name in one.names()),
            )
        )
        prefixes = _prefixes([one.path for one in lists])
        seen: set[str] = set()

        def items() -> Iterator[Item]:
            for place in places:
                if isinstance(place, FilePlace):
                    listing = listings[place]
                    if note := place.note(listing):
                        print(note, file=sys.stderr, flush=True)
                    id_of = lambda path: ids(name_below(directory, path))  # noqa: E731
                    yield from place.items(listing, id_of, seen, positions, len(self.columns.metadata))
                else:
                    id_of = lambda name: ids(name_below(common, name))  # noqa: E731
                    yield from place.items(prefixes[place.path], id_of, root, self.rows_together, positions)

        return _as_floats(items(), self._float_columns())


def _as_floats(items: Iterator[Item], columns: list[int]) -> Iterator[Item]:
    """Makes the integers of these columns of metadata floats: Arrow refuses large ones that a float only comes near."""
    for item in items:
        if columns and any(isinstance(item.metadata[index], int) for index in columns):
            values = list(item.metadata)
            for index in columns:
                values[index] = None if values[index] is None else float(values[index])
            item = dataclasses.replace(item, metadata=tuple(values))
        yield item


def _prefixes(given: list[str]) -> dict[str, str]:
    """For each table what ids of its rows begin with: an id of its own, made as those of images are."""
    absolute = {path: paths.absolute(path) for path in given}
    directory = common_directory(map(posixpath.dirname, absolute.values()))
    names = {path: name_below(directory, whole) for path, whole in absolute.items()}
    ids = NamedIds(names.values())
    return {path: ids(name) for path, name in names.items()}


def open_places(images: tuple[str, ...], columns: Columns) -> list[FilePlace | ImageList]:
    """The places of all values of --images, in their order, each once.

    Raises:
      InputError: one is not there, is of no known kind, or is a table without the columns.
    """
    places: dict[str, FilePlace | ImageList] = {}
    for given in images:
        for kind, path, version in _expanded(given):
            # A pattern of images may be the name of a directory too.
            place = FilePlace(path, kind) if kind != "list" else open_list(path, version, columns)
            places.setdefault(f"{kind} {paths.absolute(path)}", place)
    return list(places.values())


@functools.lru_cache(maxsize=4096)
def open_list(path: str, version: str, columns: Columns) -> ImageList:
    """A table or COCO JSON, with what was learned of it, once per process."""
    kind = ImageTable if tables.is_table(path) else CocoImages
    return kind(path, version, columns)


def _expanded(given: str) -> Iterator[tuple[str, str, str]]:
    """(kind, path, version) of each place that a value means."""
    local = paths.is_local(given)
    there = os.path.lexists(given) if local else paths.is_pattern(given) and finding.is_directory(given)
    pattern = paths.is_pattern(given) and not there
    is_list = tables.is_table(given) or given.lower().endswith(".json")
    if there and finding.is_directory(given):
        yield "directory", given, ""
    elif is_list or archives.is_archive(given):
        found = finding.glob_versions(given)
        if not found:
            raise _nothing_at(given, pattern)
        for path, version in found:
            yield "list" if is_list else "zip", path, version
    elif pattern:
        yield "pattern", given, ""
    elif has_image_ending(given):
        if local and not there:
            raise _nothing_at(given, pattern)
        yield "image", given, ""
    elif not local and paths.has_filesystem(given):  # object stores have no directories to ask for
        yield "directory", given, ""
    elif there:
        raise InputError(f"--images: expected {_ACCEPTED}, found {given!r}, whose ending is of none of them")
    else:
        raise _nothing_at(given, pattern)


def _nothing_at(given: str, pattern: bool) -> InputError:
    if pattern:
        return InputError(f"--images: expected images, found no file that matches {given!r}")
    return InputError(f"--images: expected {_ACCEPTED}, found no file at {given!r}")
