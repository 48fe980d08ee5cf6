"""Tables of captions, one row a caption: CSV and JSONL of image, caption and, if there is one, split."""

from __future__ import annotations

import csv
import itertools
import posixpath
from collections.abc import Iterator
from typing import Any

from pipelines.sources.json_tables import json_lines, json_object
from pipelines.sources.tables import CsvTable
from tfrecords_schema.captions_json import BAD_ENTRY, Listed, Problem, make_listed
from tfrecords_schema.storage.paths import normalised

_Row = tuple[int, tuple[Any, ...] | str]  # its line, and its values, or what is wrong with it
_COLUMNS = ("image", "caption", "split")


def read_csv(path: str) -> Iterator[Listed]:
    """The images of a CSV file. Raises InputError, naming the line, where it is none."""
    table = CsvTable(path, ",")
    # Too few or too many columns are a bad row: a comma in a caption that is not in quotes would cut it short.
    chunks = table.rows([name for name in _COLUMNS if name in table.columns])
    return _join(
        (line, rows.problems.get(row) or tuple(values))
        for rows in chunks
        for row, (line, *values) in enumerate(zip(rows.lines, *rows.columns, strict=True))
    )


def read_jsonl(path: str) -> Iterator[Listed]:
    """The images of a JSONL file. Raises InputError where it is none."""
    rows = json_lines(path)
    return _join((line, row if isinstance(row, str) else tuple(map(row.get, _COLUMNS))) for line, row in rows)


def is_csv(first_line: str) -> bool:
    """Whether a file that begins so is such a table."""
    try:
        names = next(csv.reader([first_line], skipinitialspace=True), [])
    except csv.Error:  # letters without end
        return False
    return {"image", "caption"} <= set(names)


def is_jsonl(first_line: str) -> bool:
    """Whether a file that begins so is such a table."""
    return "image" in (json_object(first_line) or ())


def bad_row(line: int, problem: str) -> Listed:
    """A line that says nothing of any image."""
    return Listed(f"line {line}", (), problem=Problem(BAD_ENTRY, f"line {line}: {problem}"))


def _join(rows: Iterator[_Row]) -> Iterator[Listed]:
    """Rows of image, caption and maybe split -> one Listed for rows of one image that follow each other."""

    def key(numbered: _Row) -> tuple[str, Any] | None:
        values = numbered[1]
        good = not isinstance(values, str) and isinstance(values[0], str) and values[0].strip()
        return (normalised(values[0].strip()), *values[2:]) if good else None

    for found, group in itertools.groupby(rows, key):
        if found is None:
            for line, values in group:
                told = values if isinstance(values, str) else f"expected a name in 'image', found {values[0]!r:.60}"
                yield bad_row(line, told)
            continue
        name, *split = found
        captions = [values[1] for _, values in group if isinstance(values[1], str)]
        yield make_listed(posixpath.splitext(name)[0], (name,), captions, *split)
