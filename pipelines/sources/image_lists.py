"""Files that list images (tables, and COCO's JSON): their rows as drafts, with what is wrong with each."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.listing import entries
from pipelines.listing.catalogue import Catalogue
from pipelines.sources import drafts
from pipelines.sources.json_tables import CocoTable, JsonlTable
from pipelines.sources.locations import Locations
from pipelines.sources.parquet_table import ParquetTable
from pipelines.sources.table_columns import Chosen, Columns, choose
from pipelines.sources.tables import CsvTable, Rows, Table, is_table
from pipelines.storage import parquet_cells
from tfrecords_schema.captions_json import is_id
from tfrecords_schema.errors import InputError, blaming, reading
from tfrecords_schema.shards import shard_of
from tfrecords_schema.storage import paths
from tfrecords_schema.storage.paths import normalised

_SAMPLE = 100  # names that are looked for, to see whether images lie where they are looked for at all
_ODD_FOLDERS = r"//|(^|/)\.\.?(/|$)|/$"  # what `normalised` may change: only such names are looked at one by one
_NOTHING = Chosen(None, None, None, ())
_UNKNOWN = (KeyError, NotImplementedError, OverflowError)  # Arrow's dates and time zones that Python does not know
_INSERT = """
    INSERT INTO entries BY NAME SELECT * {replaced} FROM (
    WITH rows AS (
        SELECT *, {position} AS position, coalesce(message, name) IS NULL AS in_cell, {below} AS below
        FROM drafts WHERE place = {place} AND {position} < {end}
    )
    SELECT 'captions' AS split, position, CASE WHEN in_cell THEN {start} + number // {together} END AS run,
      coalesce(id, id_of(below), {prefix} || printf('-%08d', number)) AS id,
      CASE WHEN in_cell THEN $2 || number WHEN name IS NULL THEN $1 WHEN is_absolute(name) OR found.message IS NOT NULL
        THEN name ELSE coalesce(found.uri, $4 || name) END AS uri,
      CASE WHEN name IS NULL THEN $3 ELSE coalesce(found.version, '') END AS version,
      CASE WHEN coalesce(rows.message, found.message) IS NOT NULL THEN 'list' END AS stage,
      CASE WHEN rows.message IS NOT NULL THEN 'BadEntry'
        WHEN found.message IS NOT NULL THEN 'AmbiguousName' END AS error,
      coalesce(rows.message, found.message) AS message, coalesce(captions, []) AS captions{carried}
    FROM rows LEFT JOIN found USING (position))
"""


def _open_table(path: str, columns: Columns) -> Table:
    """The table of a path, by its ending. Raises InputError where it cannot be read."""
    ending = posixpath.splitext(path)[1].lower()
    if ending == ".parquet":
        return ParquetTable(path)
    if not is_table(path):
        return CocoTable(path)
    is_json = ending in (".jsonl", ".ndjson")
    return JsonlTable(path, columns.wanted()) if is_json else CsvTable(path, "\t" if ending == ".tsv" else ",")


class ImageList:
    """A CSV, TSV, JSON Lines or Parquet table, or a COCO JSON.

    Attributes:
      path: as given.
      version: of the file.
      is_table: whether it is no COCO JSON.
      cells: the column of images that stand in it; None where it has names.

    Raises:
      InputError: it is none, or has not the columns.
    """

    def __init__(self, path: str, version: str, columns: Columns):
        self.path, self.version, self.is_table = path, version, is_table(path)
        with blaming("--images"):
            self._table = _open_table(path, columns)
        if not self._table.columns:  # a file without a first line is a table without rows
            self._chosen = _NOTHING
        elif self.is_table:
            self._chosen = choose(self._table, path, columns)
        else:
            self._chosen = Chosen(None, "file_name", "id", ())
        self.cells = self._chosen.image

    def metadata_types(self) -> list[Any] | None:
        """Arrow types of the columns that are carried along; None for a file without columns."""
        return self._table.types(self._chosen.metadata) if self.is_table and self._table.columns else None

    def image_bytes(self) -> tuple[int, int]:
        """(how many of its rows may hold images, bytes of all of these together, as they are stored)."""
        groups = self._parquet.groups(self.cells) if self.cells else []
        return sum(group.rows for group in groups), sum(group.bytes for group in groups)

    def drafts(self, place: int, metadata: list[tuple[str, Any]]) -> Iterator[pa.Table]:
        """The rows of this list. A row that has an image in it has neither name nor message.

        Args:
          metadata: (name, Arrow type) of the columns that are carried along, of all tables.
        """
        chosen, number = self._chosen, 0
        if not self._table.columns:
            return
        named = not chosen.image or self._some_without_bytes()
        columns = [*filter(None, [chosen.name if named else None, chosen.id, chosen.captions])]
        with blaming("--images"), reading(self.path, "a table of images", *_UNKNOWN):
            in_cells = self._parquet.has_bytes(chosen.image) if named and chosen.image else None
            for rows in self._table.rows(columns, chosen.metadata):
                count = len(rows.lines)
                in_cell = np.full(count, bool(chosen.image))
                if in_cells is not None:
                    in_cell = np.fromiter(itertools.islice(in_cells, count), bool, count)
                found = self._checked(rows, in_cell, named)
                if chosen.captions:
                    found["captions"] = drafts.captions_of(_listed(rows.columns[len(columns) - 1]))
                for index, values in enumerate(rows.columns[len(columns) :]):
                    found[f"m{index}"] = entries.store(values, metadata[index][1])
                yield drafts.batch(place, range(number, number + count), found)
                number += count

    def _some_without_bytes(self) -> bool:
        """Whether names are needed for some rows; a row without bytes and without a name is found out in reading."""
        chosen = self._chosen
        return bool(chosen.name) and any(group.nulls for group in self._parquet.groups(f"{chosen.image}.bytes"))

    @property
    def _parquet(self) -> ParquetTable:
        """The table, of which only this kind can have cells."""
        assert isinstance(self._table, ParquetTable)
        return self._table

    def _checked(self, rows: Rows, in_cell: np.ndarray, named: bool) -> dict[str, Any]:
        """Columns of drafts: names and ids where they are good, else a message."""
        count, problems = len(rows.lines), dict(rows.problems)
        names = ids = pa.nulls(count, pa.string())
        if self._chosen.id:
            ids = _as_ids(rows.columns[named])
            for row in np.flatnonzero(ids.is_null()).tolist():
                found = _shown(rows.columns[named], row)
                problems.setdefault(row, f"expected an id in {self._chosen.id!r}, text or an integer, found {found}")
        if named:
            names = _as_names(rows.columns[0])
            for row in np.flatnonzero(np.asarray(names.is_null()) & ~in_cell).tolist():
                found = _shown(rows.columns[0], row)
                problems.setdefault(row, f"expected a name or URI in {self._chosen.name!r}, found {found}")
        messages: Any = pa.nulls(count, pa.string())
        if problems:
            told = {row: f"{self._where(rows.lines[row])}: {problem}" for row, problem in problems.items()}
            messages = [told.get(row) for row in range(count)]
        is_nameless = in_cell.copy()
        is_nameless[list(problems)] = True
        names = pc.if_else(pa.array(is_nameless), pa.scalar(None, pa.string()), names)
        return {"line": drafts.integers(rows.lines), "name": names, "id": ids, "message": messages}

    def _where(self, line: int) -> str:
        return f"{self._table.unit.format(line)} of {self.path}"

    def insert(self, catalogue: Catalogue, place: int, locations: Locations, root: bool, given: dict[str, Any]) -> None:
        """Makes entries of its drafts.

        Args:
          locations: where names are looked up; `root`, whether these are --root.
          given: for `_INSERT`: SQL of `below`, `replaced` and the `prefix` of ids; `together`, how many rows with bytes
            make a run; `end`, the first position that is too much.

        Raises:
          InputError: nothing here reads its URIs, or not one of its first names is found.
        """
        sample = f"SELECT * FROM ({_names(place)}) ORDER BY position LIMIT {_SAMPLE}"
        names = f"SELECT * FROM ({_names(place)}) WHERE position < {given['end']} UNION ({sample})"
        locations.find(f"SELECT position, 0 AS rank, name FROM ({names})")
        self._check(catalogue, place, locations, root, catalogue.run(sample))
        # Tables begin anywhere, but one and the same, so that another one beside them moves none of their rows.
        start = shard_of(paths.absolute(self.path), 1 << 32)
        cells = parquet_cells.cell_uri(self.path, self.cells or "", 0).removesuffix("0")
        carried = "".join(f", m{index}" for index in range(len(catalogue.metadata)))
        statement = _INSERT.format(place=place, start=start, carried=carried, position=drafts.POSITION, **given)
        texts = (self.path, cells, self.version, locations.fallback)
        catalogue.run(statement, *map(entries.escape, texts))

    def _check(self, catalogue: Catalogue, place: int, locations: Locations, root: bool, sample: list[Any]) -> None:
        others, name, line = catalogue.run(
            "SELECT bool_or(name IS NULL OR (is_absolute(name) AND NOT is_foreign(name))), "
            "arg_min(name, number) FILTER (is_foreign(name)), arg_min(line, number) FILTER (is_foreign(name)) "
            f"FROM drafts WHERE place = {place} AND message IS NULL"
        )[0]
        if others:
            return
        if not sample and name is not None:
            raise _foreign(entries.unescape(name), self._where(line))
        names = [entries.unescape(name) for _, name in sample]
        if not names or locations.has_any(names, [position for position, _ in sample]):
            return
        where = "in --root" if root else f"beside {self.path}"
        raise InputError(
            f"--root: expected the images of {self.path}, found none of its first {len(names)} {where}, such as "
            f"{names[0]!r}; give the directories or zip files that they are in with --root"
        )


def _names(place: int) -> str:
    """Names that have to be looked up."""
    return (
        f"SELECT {drafts.POSITION} AS position, name FROM drafts "
        f"WHERE place = {place} AND name IS NOT NULL AND NOT is_absolute(name)"
    )


def _foreign(name: str, where: str) -> InputError:
    scheme = name.partition("://")[0]
    way = paths.way_to_read(name)
    return InputError(f"--images: {where}: expected files that can be read, found {scheme}:// in {name[:100]!r}; {way}")


def _listed(values: Any) -> list[Any]:
    return values.to_pylist() if isinstance(values, pa.Array) else values


def _shown(values: Any, row: int) -> str:
    try:
        (value,) = _listed(values[row : row + 1])
    except (ValueError, *_UNKNOWN):
        return "what Python cannot hold"
    return "nothing" if value is None or value == "" else repr(value)[:60]


def _as_ids(values: Any) -> pa.Array:
    """Text, or integers as decimal text; null for anything else."""
    if isinstance(values, pa.Array):
        if pa.types.is_integer(values.type):
            return values.cast(pa.string())
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            return pa.nulls(len(values), pa.string())
    return entries.texts([str(value) if is_id(value) else None for value in _listed(values)])


def _as_names(values: Any) -> pa.Array:
    """Names as captions files have them, and `/a.jpg` of `file:///a.jpg`; null for what is no text, or blank."""
    if isinstance(values, pa.Array) and pa.types.is_string(values.type):
        names = values
    else:
        try:
            names = pa.array(_listed(values), pa.string())
        except TypeError:
            names = pa.array([value if isinstance(value, str) else None for value in _listed(values)], pa.string())
    names = pc.utf8_trim_whitespace(names)
    names = pc.if_else(pc.equal(names, ""), pa.scalar(None, pa.string()), names)
    has_folders = pc.and_(pc.match_substring_regex(names, _ODD_FOLDERS), pc.invert(pc.match_substring(names, "://")))
    is_odd = pc.fill_null(pc.or_(pc.starts_with(names, "file:"), has_folders), False)
    if is_odd.true_count:
        odd = [_normalised(name) for name in names.filter(is_odd).to_pylist()]
        names = pc.replace_with_mask(names, is_odd, pa.array(odd, pa.string()))
    return entries.marked(names)


def _normalised(name: str) -> str:
    return normalised(re.sub(r"^file:(//(localhost)?)?(?=/)", "", name))
