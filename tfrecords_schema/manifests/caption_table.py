"""The caption table: its columns, and how readers find it. report.json names the list of its files."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from tfrecords_schema import shards
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import typed_json
from tfrecords_schema.manifests.typed_json import Count
from tfrecords_schema.text import one_line

REPORT = "report.json"
SHARD_LIST = ".shards/list.parquet"  # what report.json calls the list of the table's files, whatever its name is
COLUMNS = ("image_id", "image_uri", "height", "width", "caption", "log_prob", "captions")
ATTENTION = "attention"
WORDS = "words"  # in the entries of `captions`
SCORES = ("given_log_prob", "given_length")  # of a caption that came with the image
_ROWS = 256  # in memory at a time


@dataclasses.dataclass(frozen=True)
class TableReport:
    """What of a table's report.json its readers need.

    Attributes:
      files: the names of its files, by role.
      rejects: how many images could not be captioned.
      options: what it was made with.
    """

    files: dict[str, str]
    rejects: Count = 0
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


def schema(
    metadata: dict[str, str],
    further: Sequence[tuple[str, Any]] = (),
    attention: bool = False,
    word_scores: bool = False,
    scores: bool = False,
):
    """The Arrow schema of the table.

    Args:
      metadata: for the file's key-value metadata.
      further: (name, Arrow type) of the columns that are carried along from an input table.
      attention: whether there is a column of what the model looked at: for each word of `caption` in order its weights
        over the positions of the feature grid, row by row.
      word_scores: whether each entry of `captions` has a list of its words, and of END, with their log probabilities.
      scores: whether there are columns of the log probability of a caption that came with the image, and of how many
        words it has, END counted; null where none came.
    """
    import pyarrow as pa

    words = pa.list_(pa.struct([("word", pa.string()), ("log_prob", pa.float32())]))
    scored = pa.struct([("caption", pa.string()), ("log_prob", pa.float32())] + [(WORDS, words)] * word_scores)
    looked_at = pa.struct([("word", pa.string()), ("weights", pa.list_(pa.float32()))])
    types = (pa.string(), pa.string(), pa.int32(), pa.int32(), pa.string(), pa.float32(), pa.list_(scored))
    columns = [*zip(COLUMNS, types, strict=True), *further]
    columns += zip(SCORES, (pa.float32(), pa.int32()), strict=True) if scores else ()
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
    import pyarrow as pa
    import pyarrow.parquet as pq

    report = read_report(directory, read_text)
    try:
        with open_binary(posixpath.join(directory, report.shard_list)) as handle:
            names = pq.read_table(handle, columns=["name"])["name"].to_pylist()
    except (KeyError, OSError, ValueError, pa.ArrowException):
        raise _no_table(directory) from None
    if not names or not all(isinstance(name, str) and _is_shard(name) for name in names):
        raise _no_table(directory)
    for name in names:
        path = posixpath.join(directory, name)
        try:
            with open_binary(path) as handle:
                parquet = pq.ParquetFile(handle)
                _require(columns or COLUMNS, parquet.schema_arrow)
                for batch in parquet.iter_batches(batch_size=_ROWS, columns=columns):
                    yield from batch.to_pylist()
        except (OSError, OverflowError, ValueError, pa.ArrowException) as error:
            told = one_line(error)
            raise InputError(f"--captions: {path}: expected a caption table, found: {told}; caption again") from None


def _is_shard(name: str) -> bool:
    parsed = shards.parse_shard_name(name)
    return parsed is not None and parsed[3] == ".parquet"


def _require(columns: Sequence[str], found: Any) -> None:
    """Raises ValueError where a schema has not these columns of the caption table, or with other types."""
    wanted = schema({}, attention=ATTENTION in found.names)
    for name in dict.fromkeys([*columns, *[ATTENTION] * (ATTENTION in found.names)]):
        if found.names.count(name) != 1:
            raise ValueError(f"{found.names.count(name)} columns {name!r}")
        if not _fits(found.field(name).type, wanted.field(name).type):
            raise ValueError(f"column {name!r} of type {found.field(name).type}, not {wanted.field(name).type}")


def _fits(found: Any, wanted: Any) -> bool:
    """Whether values of an Arrow type can be taken for those of another one, whatever their width is."""
    import pyarrow.types as types

    if types.is_null(found):
        return True
    if types.is_list(wanted):
        is_list = types.is_list(found) or types.is_large_list(found)
        return is_list and _fits(found.value_type, wanted.value_type)
    if types.is_struct(wanted):
        has = {field.name: field.type for field in found} if types.is_struct(found) else {}
        return all(field.name in has and _fits(has[field.name], field.type) for field in wanted)
    if types.is_string(wanted):
        return types.is_string(found) or types.is_large_string(found)
    return types.is_integer(found) or (types.is_floating(found) and types.is_floating(wanted))
