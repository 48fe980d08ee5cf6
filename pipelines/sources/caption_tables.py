"""Tables of captions, one row a caption: CSV and JSONL of image, caption and, if there is one, split."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import posixpath
from collections.abc import Iterator
from typing import Any

from pipelines.sources.listing import Listed, bad_row, make_listed, normalised, open_text
from tfrecords_schema.errors import InputError


def read_csv(path: str) -> Iterator[Listed]:
    """The images of a CSV file. Raises InputError, naming the line, where it is none."""
    with open_text(path, newline="") as lines:
        reader = csv.DictReader(lines, skipinitialspace=True, strict=True)
        try:
            # Too few or too many columns: a comma in a caption that is not in quotes would cut it short.
            rows = ((reader.line_num, None if None in (*row, *row.values()) else row) for row in reader)
            yield from _join(rows, "an image and a caption, and as many columns as the first line has")
        except csv.Error as error:
            raise InputError(f"{path}: line {reader.line_num}: expected CSV, found a broken row: {error}") from None


def read_jsonl(path: str) -> Iterator[Listed]:
    """The images of a JSONL file."""
    with open_text(path) as lines:
        rows = ((number, _loads(line)) for number, line in enumerate(lines, 1) if line.strip())
        yield from _join(rows, 'a JSON object with "image" and "caption"')


def is_csv(first_line: str) -> bool:
    """Whether a file that begins so is such a table."""
    return {"image", "caption"} <= set(next(csv.reader([first_line], skipinitialspace=True), ()))


def is_jsonl(first_line: str) -> bool:
    """Whether a file that begins so is such a table."""
    row = _loads(first_line)
    return isinstance(row, dict) and "image" in row


def _loads(line: str) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(line)
    return None


def _join(rows: Iterator[tuple[int, Any]], expected: str) -> Iterator[Listed]:
    """Rows -> one Listed for rows of one image that follow each other."""

    def key(numbered: tuple[int, Any]) -> tuple[str, Any] | None:
        row = numbered[1]
        good = isinstance(row, dict) and isinstance(row.get("image"), str) and row["image"].strip()
        return (normalised(row["image"].strip()), row.get("split")) if good else None

    for found, group in itertools.groupby(rows, key):
        if found is None:
            for number, _ in group:
                yield bad_row(number, f"expected {expected}")
            continue
        name, split = found
        yield make_listed(posixpath.splitext(name)[0], (name,), [row.get("caption") for _, row in group], split)
