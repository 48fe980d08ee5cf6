"""Tables of images (CSV, TSV, JSON Lines, Parquet) and COCO's lists of them."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterator
from typing import Any

from pipelines.sources.image_lists import Entry, ImageList, Overview
from pipelines.sources.parquet_table import ParquetTable
from pipelines.sources.table_columns import Chosen, Columns, choose
from pipelines.sources.tables import CsvTable, JsonlTable, Row, Table
from pipelines.storage import parquet_cells
from tfrecords_schema.captions_json import is_id, read_images
from tfrecords_schema.errors import blaming
from tfrecords_schema.storage import files
from tfrecords_schema.storage.paths import normalised


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
        with blaming("--images"):
            self._table = open_table(path)
        self._unit = self._table.unit
        self.width = len(columns.metadata)
        # A file without a first line is a table without rows.
        self._chosen = choose(self._table, path, columns) if self._table.columns else Chosen(None, None, None, ())
        self.has_cells = bool(self._chosen.image)
        self.takes_ids = bool(self._chosen.id)

    def metadata_types(self) -> list[Any] | None:
        """Arrow types of the columns that are carried along; None for a file without columns."""
        return self._table.types(self._chosen.metadata) if self._table.columns else None

    def image_bytes(self) -> int:
        """Of all of its cells together, as they are stored."""
        image = self._chosen.image
        return sum(group.bytes for group in self._parquet.groups(image)) if image else 0

    def _look_through(self) -> Overview:
        """Where every image stands in a cell, Parquet's footer tells enough."""
        if self.has_cells and not self._some_without_bytes():
            return Overview(self._parquet.metadata.num_rows, has_others=True)
        return super()._look_through()

    def _cell_uri(self, row: int) -> str:
        return parquet_cells.cell_uri(self.path, str(self._chosen.image), row)

    @property
    def _parquet(self) -> ParquetTable:
        """The table, of which only this kind can have cells."""
        assert isinstance(self._table, ParquetTable)
        return self._table

    def _some_without_bytes(self) -> bool:
        """Whether names are needed for some rows; a row without bytes and without a name is found out in reading."""
        return bool(self._chosen.name) and any(
            group.nulls for group in self._parquet.groups(f"{self._chosen.image}.bytes")
        )

    def entries(self) -> Iterator[Entry]:
        """Its rows; those without what they need have a problem."""
        chosen = self._chosen
        if not self._table.columns:
            return
        named = not chosen.image or self._some_without_bytes()
        names = [str(name) for name in [chosen.name] * named + [chosen.id] * bool(chosen.id)]
        for number, ((line, values), in_cell) in enumerate(self._rows(names, named)):
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
            name = None if problem or in_cell else _normalised(str(name))
            yield Entry(number, where, name, item_id, metadata, problem, in_cell)

    def _rows(self, names: list[str], named: bool) -> Iterator[tuple[Row, bool]]:
        """Each row, and whether its image stands in it."""
        chosen = self._chosen
        with blaming("--images"):
            known = itertools.repeat(self.has_cells)
            in_cell = self._parquet.has_bytes(chosen.image) if chosen.image and named else known
            yield from zip(self._table.rows(names, chosen.metadata), in_cell, strict=False)


def _checked_id(value: Any, column: str) -> tuple[str | None, str | None]:
    """(id, what is wrong with it): text, or an integer as decimal text."""
    if is_id(value):
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
        with blaming("--images"):
            for number, listed in enumerate(read_images(self.path, files.open_binary)):
                where = f"images[{number}] of {self.path}"
                if listed.problem:
                    yield Entry(number, where, problem=listed.problem.message.partition(": ")[2])
                else:
                    yield Entry(number, where, _normalised(listed.names[0]), str(listed.id))
