"""Tables with one image a row: what all kinds have in common; CSV and TSV as streams of rows."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import operator
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from pipelines.listing.catalogue import CHUNK
from tfrecords_schema.errors import reading
from tfrecords_schema.storage.files import open_text

_MAX_FIELD = 1 << 24  # letters in a field of CSV
_BREAK = re.compile(r"\r\n|\r|\n")
ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some rows of a table that follow each other.

    Attributes:
      lines: where each stands.
      columns: the values of each column, an Arrow array or a sequence. Of columns that are carried along they are of
        the type that `Table.types` gives, of others as they stand there.
      problems: what is wrong with a row as a whole, by its number among these.
    """

    lines: Sequence[int]
    columns: list[Any]
    problems: dict[int, str] = dataclasses.field(default_factory=dict)


class Table(Protocol):
    """A table.

    Attributes:
      columns: their names.
      unit: how a message names the place of a row: "line {}".
    """

    columns: list[str]
    unit: str

    def types(self, names: Sequence[str]) -> list[Any]:
        """The Arrow types of columns."""

    def rows(self, names: Sequence[str], carried: Sequence[str] = ()) -> Iterator[Rows]:
        """Every row: its values in some columns, then in those to be carried along.

        Raises:
          InputError: the file is broken as a whole.
        """


def is_table(path: str) -> bool:
    """Whether a path's ending tells that it is a table."""
    return path.lower().endswith(ENDINGS)


class CsvTable:
    """CSV or TSV in UTF-8 whose first line names the columns. All values are text."""

    unit = "line {}"

    def __init__(self, path: str, delimiter: str):
        self._path, self._delimiter = path, delimiter
        self.columns: list[str] = []
        for _, chunk in self._chunks():
            self.columns = chunk[0]
            break

    def types(self, names: Sequence[str]) -> list[Any]:
        """The Arrow types of columns: all are strings."""
        import pyarrow as pa

        return [pa.string()] * len(names)

    def rows(self, names: Sequence[str], carried: Sequence[str] = ()) -> Iterator[Rows]:
        """A row that has more or fewer columns than the first line is wrong."""
        indices = [self.columns.index(name) for name in (*names, *carried)]
        width = len(self.columns)
        chunks = self._chunks()
        next(chunks, None)
        for lines, chunk in chunks:
            problems = {}
            if set(map(len, chunk)) != {width}:
                for row, values in enumerate(chunk):
                    if len(values) != width:
                        problems[row] = f"expected {width} columns, as the first line has, found {len(values)}"
                        chunk[row] = [None] * width
            yield Rows(lines, [list(map(operator.itemgetter(index), chunk)) for index in indices], problems)

    def _chunks(self) -> Iterator[tuple[Sequence[int], list[list[Any]]]]:
        """Rows and the last line of each, those that are not blank: at first the names of the columns, alone."""
        kind = "TSV" if self._delimiter == "\t" else "CSV"
        csv.field_size_limit(_MAX_FIELD)
        with reading(self._path, f"{kind} in UTF-8", csv.Error), open_text(self._path, newline="") as text:
            reader = csv.reader(text, delimiter=self._delimiter, skipinitialspace=True, strict=True)
            try:
                first = next((row for row in reader if row), None)
                if first is None:
                    return
                yield [reader.line_num], [first]
                start = reader.line_num
                while chunk := list(itertools.islice(reader, CHUNK)):
                    lines: Sequence[int] = range(start + 1, reader.line_num + 1)
                    if len(lines) != len(chunk):
                        lines = list(itertools.accumulate(map(_lines, chunk), initial=start))[1:]
                    start = reader.line_num
                    if not all(chunk):
                        lines = list(itertools.compress(lines, chunk))
                        chunk = list(filter(None, chunk))
                    if chunk:
                        yield lines, chunk
            except csv.Error as error:  # what follows cannot be told apart into rows
                raise csv.Error(f"line {reader.line_num}: {error}") from None


def _lines(row: list[str]) -> int:
    """How many lines a row takes: one, and one for each break in its values."""
    return 1 + sum(len(_BREAK.findall(value)) for value in row)
