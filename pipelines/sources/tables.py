"""Tables with one image a row: what all kinds have in common; CSV, TSV, JSON Lines and COCO's lists as streams."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import operator
import pickle
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from pipelines.listing.catalogue import CHUNK, uncollected
from pipelines.storage import files
from pipelines.storage.files import open_text
from tfrecords_schema import captions_json
from tfrecords_schema.errors import reading
from tfrecords_schema.text import whole

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
        """All strings."""
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


class JsonlTable:
    """One JSON object a line. A column of one type has it; any other is text that holds JSON.

    It is parsed once, since that takes longest; what is kept of it lies in a file.

    Args:
      wanted: columns that may be asked for; which there are, and what they hold, only all lines tell.
    """

    unit = "line {}"

    def __init__(self, path: str, wanted: Sequence[str]):
        self._path = path
        self._kept = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this)
        self._kinds: dict[str, set[str]] = {name: set() for name in wanted}
        columns: dict[str, Any] = {}
        lines = json_lines(path)
        with uncollected():
            while chunk := list(itertools.islice(lines, CHUNK)):
                self._keep(chunk, columns)
        self.columns = list(columns)

    def _keep(self, chunk: list[tuple[int, dict[str, Any] | str]], columns: dict[str, Any]) -> None:
        places, found = zip(*chunk, strict=True)
        problems = {row: one for row, one in enumerate(found) if isinstance(one, str)}
        objects = [{} if isinstance(one, str) else one for one in found] if problems else found
        for one in objects:
            columns.update(one)
        values = {name: [one.get(name) for one in objects] for name in self._kinds if name in columns}
        for name, column in values.items():
            self._kinds[name] |= _kinds(column)
        pickle.dump((places, values, problems), self._kept)

    def types(self, names: Sequence[str]) -> list[Any]:
        """What all rows of a column are: bool, int64, double or string; JSON in a string where they differ."""
        import pyarrow as pa

        types = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
        return [types.get(self._kind(name), pa.string()) for name in names]

    def rows(self, names: Sequence[str], carried: Sequence[str] = ()) -> Iterator[Rows]:
        """A value that a row has not is None."""
        is_text = [self._kind(name) == "json" for name in carried]
        self._kept.seek(0)
        while True:
            try:
                places, values, problems = pickle.load(self._kept)
            except EOFError:
                return
            nothing = [None] * len(places)
            columns = [values.get(name, nothing) for name in (*names, *carried)]
            for index, text in enumerate(is_text, start=len(names)):
                if text:
                    columns[index] = list(map(_json_text, columns[index]))
            yield Rows(places, columns, problems)

    def _kind(self, name: str) -> str:
        kinds = self._kinds[name] - {"NoneType"}
        if kinds == {"int", "float"}:
            return "float"
        kind = kinds.pop() if len(kinds) == 1 else "json" if kinds else "str"
        return kind if kind in ("bool", "int", "float", "str") else "json"


def _kinds(values: list[Any]) -> set[str]:
    types = set(map(type, values))
    is_large = int in types and any(type(one) is int and not -(1 << 63) <= one < 1 << 63 for one in values)
    return {kind.__name__ for kind in types} | ({"large"} if is_large else set())


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


class CocoTable:
    """The `images` of a COCO JSON."""

    unit = "images[{}]"
    columns: list[str] = ["file_name", "id"]  # noqa: RUF012

    def __init__(self, path: str):
        self._path = path

    def types(self, names: Sequence[str]) -> list[Any]:
        """Not asked for: nothing of them is carried along."""
        raise NotImplementedError

    def rows(self, names: Sequence[str], carried: Sequence[str] = ()) -> Iterator[Rows]:
        """By number in the list."""
        entries = enumerate(captions_json.read_images(self._path, files.open_binary))
        while chunk := list(itertools.islice(entries, CHUNK)):
            numbers, found = zip(*chunk, strict=True)
            problems = {
                row: one.problem.message.partition(": ")[2] for row, one in enumerate(found) if one.problem is not None
            }
            columns = {"file_name": [one.names[0] if one.names else None for one in found]}
            columns["id"] = [None if one.problem else str(one.id) for one in found]
            yield Rows(numbers, [columns[name] for name in names], problems)
