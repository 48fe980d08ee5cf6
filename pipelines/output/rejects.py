"""The rejects table: what became of every image that could not be used, as Parquet."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from pipelines.items import Reject
from tfrecords_schema.storage import files
from tfrecords_schema.text import fitted, shortened, shown_names

_NAME = 40  # letters of a file's name, at most
_LOG_COLUMNS = 200  # where there is no terminal


def _schema():
    import pyarrow as pa

    return pa.schema([(field.name, pa.string()) for field in dataclasses.fields(Reject)])


def write_parquet(rejects: Iterable[Reject], handle: BinaryIO | io.RawIOBase, rows_per_group: int = 10_000) -> int:
    """Writes a table of all rejects (an empty one for none); returns the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = 0
    group: list[dict[str, str]] = []
    with pq.ParquetWriter(handle, _schema(), compression="zstd") as writer:

        def flush():
            writer.write_table(pa.Table.from_pylist(group, schema=_schema()))
            group.clear()

        for reject in rejects:
            group.append(reject.printable())
            total += 1
            if len(group) == rows_per_group:
                flush()
        if group:  # no row group of no rows, which Hugging Face's datasets cannot read
            flush()
    return total


def read_parquet(handle: BinaryIO) -> list[Reject]:
    """The rejects that `write_parquet` wrote."""
    import pyarrow.parquet as pq

    return [Reject(**row) for row in pq.read_table(handle).to_pylist()]


def read_first(tables: Sequence[str], most: int) -> list[Reject]:
    """The first rejects of some tables, of which no more is read than that takes; none of what cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: list[Reject] = []
    with contextlib.suppress(OSError, ValueError, pa.ArrowException):
        for path in tables:
            if len(found) < most:
                with files.open_binary(path) as handle:
                    for batch in itertools.islice(pq.ParquetFile(handle).iter_batches(batch_size=most), 1):
                        found += [Reject(**row) for row in batch.to_pylist()[: most - len(found)]]
    return found


def lines(found: Sequence[Reject], total: int, where: str) -> Iterator[str]:
    """What a summary says of rejects: a line for each that was found, as wide as the screen, and how many more are."""
    width = (shutil.get_terminal_size().columns if sys.stdout.isatty() else _LOG_COLUMNS) - 1
    names = shown_names([reject.image_uri for reject in found])
    names = {uri: fitted(name, _NAME) for uri, name in names.items()}
    column = max(map(len, names.values()), default=0)
    for head, reject in zip(["rejected", *[""] * len(found)], found, strict=False):
        told = f"{reject.stage}/{reject.error}: {' '.join(reject.message.split())}"
        yield shortened(f"{head:<12}{names[reject.image_uri]:<{column}}  {told}", width)
    if total > len(found):
        yield f"{'' if found else 'rejected':<12}… and {total - len(found):,} more in {where}"
