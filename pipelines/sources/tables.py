"""Tables with one image a row: what all kinds have in common; CSV, TSV and JSON Lines as streams of rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from tfrecords_schema.errors import reading
from tfrecords_schema.storage.files import open_text
from tfrecords_schema.text import whole

_MAX_FIELD = 1 << 24  # letters in a field of CSV
ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
Row = tuple[int, tuple[Any, ...] | str]  # where it stands, and its values, or what is wrong with it


class Table(Protocol):
    """A table.

    Attributes:
      columns: their names.
      unit: what `rows` counts, "line" or "row".
    """

    columns: list[str]
    unit: str

    def types(self, names: Sequence[str]) -> list[Any]:
        """The Arrow types of columns."""

    def rows(self, names: Sequence[str], carried: Sequence[str] = ()) -> Iterator[Row]:
        """Every row: its values in some columns as they stand there, then in those to be carried along as of `types`.

        Raises:
          InputError: the file is broken as a whole.
        """


def is_table(path: str) -> bool:
    """Whether a path's ending tells that it is a table."""
    return path.lower().endswith(ENDINGS)


class CsvTable:
    """CSV or TSV in UTF-8 whose first line names the columns. All values are text."""

    unit = "line"

    def __init__(self, path: str, delimiter: str):
        self._path, self._delimiter = path, delimiter
        self.columns: list[str] = []
        for _, values in self._lines():
            self.columns = values
            break

    def types(self, names: Sequence[str]) -> list[Any]:
        """All strings."""
        import pyarrow as pa

        return [pa.string()] * len(names)

    def rows(self, names: Sequence[str], carried: Sequence[str] = ()) -> Iterator[Row]:
        """A row that has more or fewer columns than the first line is wrong."""
        indices = [self.columns.index(name) for name in (*names, *carried)]
        width = len(self.columns)
        lines = self._lines()
        next(lines, None)
        for line, values in lines:
            if len(values) == width:
                yield line, tuple([values[index] for index in indices])
            else:
                yield line, f"expected {width} columns, as the first line has, found {len(values)}"

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        kind = "TSV" if self._delimiter == "\t" else "CSV"
        csv.field_size_limit(_MAX_FIELD)
        with reading(self._path, f"{kind} in UTF-8", csv.Error), open_text(self._path, newline="") as lines:
            reader = csv.reader(lines, delimiter=self._delimiter, skipinitialspace=True, strict=True)
            try:
                for values in reader:
                    if values:
                        yield reader.line_num, values
            except csv.Error as error:  # what follows cannot be told apart into rows
                raise csv.Error(f"line {reader.line_num}: {error}") from None


class JsonlTable:
    """One JSON object a line. A column of one type has it; any other is text that holds JSON."""

    unit = "line"

    def __init__(self, path: str):
        self._path = path
        self._kinds = _kinds(path)
        self.columns = list(self._kinds)

    def types(self, names: Sequence[str]) -> list[Any]:
        """What all rows of a column are: bool, int64, double or string; JSON in a string where they differ."""
        import pyarrow as pa

        types = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
        return [types.get(self._kinds[name], pa.string()) for name in names]

    def rows(self, names: Sequence[str], carried: Sequence[str] = ()) -> Iterator[Row]:
        """A value that a row has not is None."""
        pairs = [(name, False) for name in names] + [(name, self._kinds[name] == "json") for name in carried]
        for line, row in json_lines(self._path):
            if isinstance(row, str):
                yield line, row
            else:
                yield line, tuple([_json_text(row.get(name)) if text else row.get(name) for name, text in pairs])


def _json_text(value: Any) -> str | None:
    return None if value is None else whole(json.dumps(value, ensure_ascii=False))


def json_lines(path: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, its object, or what is wrong with it) of each line that is not blank; texts are whole.

    Raises:
      InputError: the file is broken as a whole.
    """
    with reading(path, "JSON Lines in UTF-8"), open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                found = json_object(line)
                yield number, f"expected a JSON object, found {line.strip()[:60]!r}" if found is None else found


def json_object(line: str) -> dict[str, Any] | None:
    """The object that a line is; None where it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return _whole_throughout(found) if "\\u" in line else found


def _whole_throughout(value: Any) -> Any:
    """The value with all its texts whole."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {whole(key): _whole_throughout(one) for key, one in value.items()}
    return [_whole_throughout(one) for one in value] if isinstance(value, list) else value


def _kinds(path: str) -> dict[str, str]:
    """What the values of each key are; read from all lines, since the last may be another."""
    found: dict[str, set[type]] = {}
    large = set()
    for _, row in json_lines(path):
        if isinstance(row, dict):
            for key, value in row.items():
                found.setdefault(key, set()).add(type(value))
                if type(value) is int and not -(1 << 63) <= value < 1 << 63:
                    large.add(key)
    kinds = {}
    for key, types in found.items():
        types.discard(type(None))
        one = next(iter(types), str)
        names = {bool: "bool", int: "int", float: "float", str: "str"}
        several = "float" if types == {int, float} else "json"
        kinds[key] = several if len(types) > 1 else names.get(one, "json")
        if key in large:
            kinds[key] = "json"
    return kinds
