"""Tables of images (CSV, TSV, JSON Lines, Parquet) and COCO's lists of them."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterator
from typing import Any

from pipelines.sources import annotations
from pipelines.sources.image_lists import Entry, ImageList, Overview
from pipelines.sources.listing import normalised, whole
from pipelines.sources.parquet_table import ParquetTable
from pipelines.sources.table_columns import Columns, choose
from pipelines.sources.tables import CsvTable, JsonlTable, Table
from pipelines.storage import parquet_cells
from tfrecords_schema.errors import InputError


def open_table(path: str) -> Table:
    """The table of a path, by its ending. Raises InputError where it cannot be read."""
    ending = posixpath.splitext(path)[1].lower()
    if ending == ".parquet":
        return ParquetTable(path)
    return JsonlTable(path) if ending in (".jsonl", ".ndjson") else CsvTable(path, "\t" if ending == ".tsv" else ",")


class ImageTable(ImageList):
    """A CSV, TSV, JSON Lines or Parquet table.

    Raises:
      InputError: it is none, or has not the columns.
    """

    def __init__(self, path: str, version: str, columns: Columns):
        self.path, self.version = path, version
        self._table = open_table(path)
        self._unit = self._table.unit
        self.width = len(columns.metadata)
        # A file without a first line is a table without rows.
        self._chosen = choose(self._table, path, columns) if self._table.columns else None
        self.has_cells = bool(self._chosen and self._chosen.image)
        self.takes_ids = bool(self._chosen and self._chosen.id)

    def metadata_types(self) -> list[Any] | None:
        """Arrow types of the columns that are carried along; None for a file without columns."""
        return self._table.types(self._chosen.metadata) if self._chosen else None

    def image_bytes(self) -> int:
        """Of all of its cells together, as they are stored."""
        return sum(group.bytes for group in self._table.groups(self._chosen.image)) if self.has_cells else 0

    def _look_through(self) -> Overview:
        """Where every image stands in a cell, Parquet's footer tells enough."""
        if self.has_cells and not self._some_without_bytes():
            return Overview(self._table.metadata.num_rows, has_others=True)
        return super()._look_through()

    def _cell_uri(self, row: int) -> str:
        return parquet_cells.cell_uri(self.path, self._chosen.image, row)

    def _some_without_bytes(self) -> bool:
        """Whether names are needed for some rows; a row without bytes and without a name is found out in reading."""
        return bool(self._chosen.name) and any(
            group.nulls for group in self._table.groups(f"{self._chosen.image}.bytes")
        )

    def entries(self) -> Iterator[Entry]:
        """Its rows; those without what they need have a problem."""
        chosen = self._chosen
        if chosen is None:
            return
        named = not chosen.image or self._some_without_bytes()
        names = [chosen.name] * named + [chosen.id] * bool(chosen.id)
        with_bytes = self._table.has_bytes(chosen.image) if chosen.image and named else itertools.repeat(self.has_cells)
        rows = zip(self._table.rows(names, chosen.metadata), with_bytes, strict=False)
        for number, ((line, values), in_cell) in enumerate(rows):
            where = f"{self._unit} {line} of {self.path}"
            if isinstance(values, str):
                yield Entry(number, where, problem=values)
                continue
            metadata = values[named + bool(chosen.id) :]
            item_id, problem = None, None
            if chosen.id:
                item_id, problem = _checked_id(values[named], chosen.id)
            name = values[0] if named and not in_cell else None
            if not in_cell and not problem and not (isinstance(name, str) and name.strip()):
                problem = f"expected a name or URI in {chosen.name!r}, found {_shown(name)}"
            name = None if problem or in_cell else _normalised(name)
            yield Entry(number, where, name, item_id, metadata, problem, in_cell)


def _checked_id(value: Any, column: str) -> tuple[str | None, str | None]:
    """(id, what is wrong with it): text, or an integer as decimal text."""
    if isinstance(value, str) and value:
        return value, None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value), None
    return None, f"expected an id in {column!r}, text or an integer, found {_shown(value)}"


def _shown(value: Any) -> str:
    return "nothing" if value is None or value == "" else repr(value)[:60]


def _normalised(name: str) -> str:
    """As of captions files; and file:///a.jpg is /a.jpg."""
    return normalised(re.sub(r"^file:(//(localhost)?)?(?=/)", "", name.strip()))


class CocoImages(ImageList):
    """The `images` of a COCO JSON."""

    has_cells, takes_ids = False, True

    def __init__(self, path: str, version: str, columns: Columns):
        self.path, self.version, self.width = path, version, len(columns.metadata)

    def entries(self) -> Iterator[Entry]:
        """Its images, by COCO's id."""
        try:
            for number, listed in enumerate(annotations.read_images(self.path)):
                where = f"images[{number}] of {self.path}"
                if listed.problem:
                    yield Entry(number, where, problem=listed.problem.message.partition(": ")[2])
                else:
                    name = _normalised(whole(listed.names[0]))
                    yield Entry(number, where, name, whole(listed.id))
        except InputError as error:
            raise InputError(f"--images: {error}") from None
