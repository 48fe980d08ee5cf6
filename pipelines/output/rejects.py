"""The rejects table: what became of every image that could not be used, as Parquet."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable
from typing import BinaryIO

from pipelines.items import Reject


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
