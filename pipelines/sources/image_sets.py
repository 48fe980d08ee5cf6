"""What `pipelines.caption --images` takes: files, directories, zip files and tables in any mix, as one source."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import posixpath
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pipelines.listing.catalogue import Catalogue
from pipelines.listing.entries import escape, unescape
from pipelines.sources import drafts, tables
from pipelines.sources.drafts import quoted
from pipelines.sources.image_files import FilePlace, common_directory, has_image_ending, name_below
from pipelines.sources.image_ids import learn_names
from pipelines.sources.image_lists import ImageList
from pipelines.sources.locations import Locations
from pipelines.sources.table_columns import NO_COLUMNS, Columns, merge_types
from pipelines.storage import archives, parquet_cells
from tfrecords_schema.errors import InputError, blaming
from tfrecords_schema.storage import finding, paths

_ACCEPTED = (
    "a quoted pattern such as 'photos/**.jpg', a directory, a zip file, an image file, a table "
    f"({', '.join(tables.ENDINGS)}) or a COCO .json"
)
_NO_END = 1 << 62
_IN_ORDER = """
    UPDATE drafts SET number = sorted.number
    FROM (
        SELECT name, row_number() OVER (ORDER BY name) - 1 AS number FROM drafts WHERE place = {place}
    ) AS sorted
    WHERE drafts.place = {place} AND drafts.name = sorted.name
"""
_FOUND_AGAIN = """
    DELETE FROM drafts WHERE rowid IN (
        SELECT rowid FROM drafts WHERE uri IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY name ORDER BY place, number) > 1
    )
"""
_INSERT_FILES = """
    INSERT INTO entries BY NAME
    SELECT 'captions' AS split, {position} AS position, id_of({below}) AS id, uri, version,
      CASE WHEN error IS NOT NULL THEN 'list' END AS stage, error, message, []::VARCHAR[] AS captions
    FROM drafts WHERE uri IS NOT NULL AND {position} < {end}
"""


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

    def metadata_fields(self) -> list[tuple[str, Any]]:
        """(name, Arrow type) of the columns that Items' metadata hold. Raises InputError as `list`."""
        for cache in (archives.open_archive, parquet_cells.open_cells, open_list):
            cache.cache_clear()  # what an earlier run in this process saw may have changed
        self.columns.check()
        names = [name for _, name in self.columns.carried()]
        if not names:
            return []
        opened = [place for place in self._places() if isinstance(place, ImageList)]
        types = [(table.path, kinds) for table in opened if (kinds := table.metadata_types()) is not None]
        return list(zip(names, merge_types(types, names), strict=True))

    def list_into(self, catalogue: Catalogue) -> None:
        """Lists all images, in the order of --images, those of a directory or pattern by name; a file found twice once.

        Says on the screen which files were passed over.

        Raises:
          InputError: a place holds no images or is none, a table is not as expected, or a flag does not fit.
        """
        places = self._places()
        lists = {number: place for number, place in enumerate(places) if isinstance(place, ImageList)}
        self._check_flags(lists.values())
        with blaming("--root"):
            root = Locations(catalogue, self.root) if self.root else None
        drafts.begin(catalogue)
        found = (
            place.drafts(number, catalogue.metadata)
            if isinstance(place, ImageList)
            else place.drafts(number, self.excluding)
            for number, place in enumerate(places)
        )
        catalogue.fill("drafts", itertools.chain.from_iterable(found))
        for number, place in enumerate(places):
            if isinstance(place, FilePlace) and paths.is_remote(place.given):  # whose files come in no order
                catalogue.run(_IN_ORDER.format(place=number))
        drafts.learn_schemes(catalogue)
        prefixes = _prefixes(catalogue, {number: place.path for number, place in lists.items()})
        below = self._learn_ids(catalogue, places)
        if len(places) - len(lists) > 1:
            catalogue.run(_FOUND_AGAIN)
        last = f"SELECT {drafts.POSITION} FROM drafts ORDER BY 1 LIMIT 1 OFFSET {self.limit}"
        end = next((end for (end,) in catalogue.run(last)), _NO_END) if self.limit is not None else _NO_END
        catalogue.run(_INSERT_FILES.format(below=below, end=end, position=drafts.POSITION))
        for number, table in lists.items():
            given = {"below": below, "prefix": prefixes[number], "end": end, "together": self.rows_together}
            where = root or Locations(catalogue, (posixpath.dirname(table.path) or ".",))
            table.insert(catalogue, number, where, bool(root), given)
        drafts.end(catalogue)
        catalogue.set_duplicates_aside()

    def _learn_ids(self, catalogue: Catalogue, places: Sequence[FilePlace | ImageList]) -> str:
        """Makes the macro `id_of`; returns SQL of what it is to be given. Files and names in tables share it."""
        directory = common_directory(place.root() for place in places if isinstance(place, FilePlace))
        first, last = catalogue.run(
            "SELECT min(name), max(name) FROM drafts WHERE uri IS NULL AND is_absolute(name) AND NOT is_foreign(name)"
        )[0]
        # What the first and the last have in common, all between them have.
        common = common_directory(posixpath.dirname(unescape(name)) for name in (first, last) if name)
        below = f"CASE WHEN uri IS NULL THEN {name_below(common)} ELSE {name_below(directory)} END"
        learn_names(catalogue, f"SELECT {below} FROM drafts WHERE id IS NULL AND name IS NOT NULL")
        return below

    def describe(self) -> dict[str, Any]:
        """As options that a later run is compared with; flags that are not given are left out."""
        given = {"images": list(self.images), "root": list(self.root), **self.columns.given(), "limit": self.limit}
        return {flag: value for flag, value in given.items() if value not in (None, [])}

    def bytes(self, catalogue: Catalogue) -> int | None:
        """Of all images together, as far as listings tell; None where they tell nothing."""
        size = "try_cast(split_part(version, ':', 1) AS BIGINT)"
        usable = f"count(*) FILTER (run IS NOT NULL), sum({size}) FILTER (run IS NULL AND error IS NULL)"
        cells, total = catalogue.run(f"SELECT {usable} FROM entries")[0]
        total = int(total or 0)
        if cells:
            stored = [place.image_bytes() for place in self._places() if isinstance(place, ImageList)]
            total += sum(size for _, size in stored) * cells // sum(rows for rows, _ in stored)
        return total or None

    def _check_flags(self, lists: Collection[ImageList]) -> None:
        given = [*self.columns.given(), *["root"] * bool(self.root)]
        if given and not (any(one.is_table for one in lists) or (lists and given == ["root"])):
            kinds = ", ".join(tables.ENDINGS)
            raise InputError(f"--{given[0]}: expected a table ({kinds}) among --images, found none; leave it out")

    def _places(self) -> Sequence[FilePlace | ImageList]:
        return open_places(self.images, self.columns)


def _prefixes(catalogue: Catalogue, given: dict[int, str]) -> dict[int, str]:
    """For each table SQL of what ids of its rows begin with: an id of its own, made as those of images are."""
    absolute = {place: paths.absolute(path) for place, path in given.items()}
    below = name_below(common_directory(map(posixpath.dirname, absolute.values())))
    known = ", ".join(f"({place}, {quoted(escape(path))})" for place, path in absolute.items()) or "(0, '')"
    query = f"SELECT place, {below} AS name FROM (VALUES {known}) AS known(place, name)"
    learn_names(catalogue, f"SELECT name FROM ({query})")
    return {place: quoted(prefix) for place, prefix in catalogue.run(f"SELECT place, id_of(name) FROM ({query})")}


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
    return ImageList(path, version, columns)


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
