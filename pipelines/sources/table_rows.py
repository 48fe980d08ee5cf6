"""Tables with one image a row: what CSV, TSV, JSON Lines and Parquet have in common."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from tfrecords_schema.errors import InputError

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


@contextlib.contextmanager
def telling(path: str, expected: str) -> Iterator[None]:
    """Any error of reading becomes one line."""
    try:
        yield
    except (OSError, ValueError, NotImplementedError, csv.Error) as error:  # of which pyarrow's are kinds
        text = " ".join(str(error).split()[:20])
        raise InputError(f"--images: {path}: expected {expected}, found what cannot be read: {text}") from None
