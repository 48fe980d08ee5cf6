"""The caption table: its columns, and how readers find it. report.json names the list of its files."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from tfrecords_schema import shards
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import typed_json

REPORT = "report.json"
SHARD_LIST = ".shards/list.parquet"  # what report.json calls the list of the table's files, whatever its name is
COLUMNS = ("image_id", "image_uri", "height", "width", "caption", "log_prob", "captions")
ATTENTION = "attention"
_ROWS = 256  # in memory at a time


@dataclasses.dataclass(frozen=True)
class TableReport:
    """What of a table's report.json its readers need: the names of its files by role, and what it was made with."""

    files: dict[str, str]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def shard_list(self) -> str:
        """The name of the list of its shards. Raises ValueError where it can be none."""
        name = self.files.get(SHARD_LIST, "")
        if not shards.is_named(name, SHARD_LIST):
            raise ValueError(f"expected {SHARD_LIST}, found {name[:100]!r}")
        return name


def read_report(directory: str, read_text: Callable[[str], str | None]) -> TableReport:
    """Raises InputError where the directory, the flag --captions, holds no complete caption table."""
    path = posixpath.join(directory, REPORT)
    try:
        return typed_json.decode(read_text(path) or "", TableReport, path)
    except (OSError, ValueError):
        raise _no_table(directory) from None


def _no_table(directory: str) -> InputError:
    return InputError(f"--captions: expected a directory that pipelines.caption completed, found {directory}")


def schema(metadata: dict[str, str], further: Sequence[tuple[str, Any]] = (), attention: bool = False):
    """The Arrow schema of the table.

    Args:
      metadata: for the file's key-value metadata.
      further: (name, Arrow type) of the columns that are carried along from an input table.
      attention: whether there is a column of what the model looked at: for each word of `caption` in order its weights
        over the positions of the feature grid, row by row.
    """
    import pyarrow as pa

    scored = pa.struct([("caption", pa.string()), ("log_prob", pa.float32())])
    looked_at = pa.struct([("word", pa.string()), ("weights", pa.list_(pa.float32()))])
    types = (pa.string(), pa.string(), pa.int32(), pa.int32(), pa.string(), pa.float32(), pa.list_(scored))
    columns = [*zip(COLUMNS, types, strict=True), *further]
    return pa.schema(columns + [(ATTENTION, pa.list_(looked_at))] * attention, metadata=metadata)


def read_rows(
    directory: str,
    read_text: Callable[[str], str | None],
    open_binary: Callable[[str], BinaryIO],
    columns: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of a caption table, shard by shard, as report.json lists them.

    Args:
      directory: that pipelines.caption wrote; in messages it is the flag --captions.
      read_text: path -> all of a UTF-8 file; None where there is none. The two sides of the project reach files by
        functions of their own, which raise OSError.
      open_binary: path -> a handle to read, which can seek.
      columns: by name; all by default.

    Raises:
      InputError: the directory holds no complete caption table.
    """
    import pyarrow.parquet as pq

    report = read_report(directory, read_text)
    try:
        with open_binary(posixpath.join(directory, report.shard_list)) as handle:
            names = pq.read_table(handle, columns=["name"])["name"].to_pylist()
    except (KeyError, OSError, ValueError):
        raise _no_table(directory) from None
    if not names or not all(isinstance(name, str) and _is_shard(name) for name in names):
        raise _no_table(directory)
    for name in names:
        path = posixpath.join(directory, name)
        try:
            with open_binary(path) as handle:
                for batch in pq.ParquetFile(handle).iter_batches(batch_size=_ROWS, columns=columns):
                    yield from batch.to_pylist()
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise InputError(f"--captions: {path}: expected a caption table, found: {error}; caption again") from None


def _is_shard(name: str) -> bool:
    parsed = shards.parse_shard_name(name)
    return parsed is not None and parsed[3] == ".parquet"
