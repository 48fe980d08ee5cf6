"""JSON Lines and COCO's lists of images, as tables of images."""

from __future__ import annotations

import itertools
import json
import pickle
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipelines.listing.catalogue import CHUNK, uncollected
from pipelines.sources.tables import Rows
from tfrecords_schema import captions_json
from tfrecords_schema.errors import InputError, reading
from tfrecords_schema.json_depth import require_shallow
from tfrecords_schema.storage import files
from tfrecords_schema.storage.files import open_text
from tfrecords_schema.text import whole

_LETTERS = 1 << 20  # of JSON Lines parsed at a time
# Stands between lines that are parsed together: no line can hold it, to pass for two.
_TOKEN = uuid.uuid4().hex
_BETWEEN = f',"{_TOKEN}",'


Objects = tuple[Sequence[Any], list[dict[str, Any] | str]]  # where each stands, and it, or what is wrong with it


class ObjectTable:
    """JSON objects as rows. A column of one type has it; any other is text that holds JSON.

    They are read once, since that takes longest; what is kept of them lies in a file.

    Args:
      chunks: some objects at a time.
      wanted: columns that may be asked for; which there are, and what they hold, only all objects tell.
    """

    def __init__(self, chunks: Iterable[Objects], wanted: Sequence[str]):
        self._kept = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this)
        self._kinds: dict[str, set[str]] = {name: set() for name in wanted}
        columns: dict[str, Any] = {}
        self.has_rows = False
        with uncollected():
            for places, found in chunks:
                self._keep(places, found, columns)
                self.has_rows |= bool(found)
        self.columns = list(columns)

    def _keep(self, places: Sequence[Any], found: list[dict[str, Any] | str], columns: dict[str, Any]) -> None:
        problems = {row: one for row, one in enumerate(found) if isinstance(one, str)}
        objects: list[dict[str, Any]] = [{} if isinstance(one, str) else one for one in found]
        for one in objects:
            columns.update(one)
        values = {name: [one.get(name) for one in objects] for name in self._kinds if name in columns}
        for name, column in values.items():
            self._kinds[name] |= _kinds(column)
        pickle.dump((places, values, problems), self._kept)

    def types(self, names: Sequence[str]) -> list[Any]:
        """What all rows of a column are: bool, int64, double or string; JSON in a string where they differ."""
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


class JsonlTable(ObjectTable):
    """A table with one JSON object a line."""

    unit = "line {}"

    def __init__(self, path: str, wanted: Sequence[str]):
        super().__init__(_json_chunks(path), wanted)
        if self.has_rows and not self.columns:  # where there are no columns, no rows are looked for
            raise InputError(f"{path}: expected a JSON object with columns in each line, found none in any")


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
    for lines, found in _json_chunks(path):
        yield from zip(lines, found, strict=True)


def _json_chunks(path: str) -> Iterator[Objects]:
    with reading(path, "JSON Lines in UTF-8"), open_text(path) as text:
        start = 1
        for lines in _some(text):
            numbers: Sequence[int] = range(start, start + len(lines))
            start += len(lines)
            if any(map(str.isspace, lines)):
                numbers = [number for number, line in zip(numbers, lines, strict=True) if line.strip()]
                lines = list(filter(str.strip, lines))
            yield numbers, _parsed(lines)


def _some(lines: Iterator[str]) -> Iterator[list[str]]:
    """Lines that follow each other, of about `_LETTERS` together."""
    some, letters = [], 0
    for line in lines:
        some.append(line)
        letters += len(line)
        if letters >= _LETTERS:
            yield some
            some, letters = [], 0
    if some:
        yield some


def _parsed(lines: list[str]) -> list[dict[str, Any] | str]:
    """The object of each line, or what is wrong with it; where all are good, they are parsed as one list: quickly."""
    try:
        found = _loaded(f"[{_BETWEEN.join(lines)}]")
    except (ValueError, RecursionError):
        found = []
    is_one_each = len(found) == 2 * len(lines) - 1 and found[1::2].count(_TOKEN) == len(lines) - 1
    if is_one_each and set(map(type, found[::2])) == {dict} and not any("\\u" in line for line in lines):
        return found[::2]
    objects = map(json_object, lines)
    return [
        f"expected a JSON object, found {line.strip()[:60]!r}" if found is None else found
        for line, found in zip(lines, objects, strict=True)
    ]


def json_object(line: str) -> dict[str, Any] | None:
    """The object that a line is; None where it is none."""
    try:
        found = _loaded(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return _whole_throughout(found) if "\\u" in line else found


def _loaded(text: str) -> Any:
    """The value of some JSON. Raises ValueError or RecursionError, also where it is nested too deep to be handled."""
    require_shallow(text.encode("utf-8", "surrogatepass"))
    return json.loads(text)


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
