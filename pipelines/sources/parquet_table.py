"""A Parquet file as a table of images: its footer, and rows of those columns that are asked for."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.listing.catalogue import CHUNK
from pipelines.sources.tables import Rows
from tfrecords_schema.errors import reading
from tfrecords_schema.storage import files

_IMAGES_PER_BATCH = 32
_BUFFER_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Group:
    """One row group of a Parquet column: its rows, those that are null (0 where it does not tell), bytes as stored."""

    rows: int
    nulls: int
    bytes: int


class ParquetTable:
    """Parquet, of which only the columns that are asked for are read."""

    unit = "row {}"

    def __init__(self, path: str):
        self._path = path
        with self._open() as parquet:
            self.metadata, self.schema = parquet.metadata, parquet.schema_arrow
        counts = collections.Counter(self.schema.names)
        self.columns = [name for name, count in counts.items() if count == 1]  # of two, nobody can say which

    @contextlib.contextmanager
    def _open(self, metadata: Any = None) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with reading(self._path, "Parquet", NotImplementedError), files.open_binary(self._path) as handle:
            yield pq.ParquetFile(handle, metadata=metadata, buffer_size=_BUFFER_BYTES, pre_buffer=False)

    def types(self, names: Sequence[str]) -> list[Any]:
        """The Arrow types of columns, as the file's schema has them; for a dictionary, that of its values."""
        import pyarrow as pa

        kinds = [self.schema.field(name).type for name in names]
        return [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds]

    def groups(self, leaf: str) -> list[Group]:
        """What the footer tells of a column, or of all below it."""
        found = []
        for number in range(self.metadata.num_row_groups):
            group = self.metadata.row_group(number)
            chunks = [group.column(index) for index in range(group.num_columns)]
            chunks = [c for c in chunks if c.path_in_schema == leaf or c.path_in_schema.startswith(leaf + ".")]
            told = [c.statistics.null_count or 0 for c in chunks if c.statistics and c.statistics.has_null_count]
            found.append(Group(group.num_rows, max(told, default=0), sum(c.total_compressed_size for c in chunks)))
        return found

    def has_bytes(self, column: str) -> Iterator[bool]:
        """Whether each row's struct of bytes and path has bytes; reads them only where a row group has some of both."""
        leaf = f"{column}.bytes"
        for number, group in enumerate(self.groups(leaf)):
            if group.nulls in (0, group.rows):
                yield from itertools.repeat(not group.nulls, group.rows)
                continue
            with self._open(self.metadata) as parquet:
                for batch in parquet.iter_batches(_IMAGES_PER_BATCH, [number], [leaf], use_threads=False):
                    yield from batch.column(column).flatten()[0].is_valid().to_pylist()

    def rows(self, names: Sequence[str], carried: Sequence[str] = ()) -> Iterator[Rows]:
        """Rows count from 0. A name may be that of a leaf: `image.path`."""
        wanted, start = [*names, *carried], 0
        if not wanted:
            for start in range(0, self.metadata.num_rows, CHUNK):
                yield Rows(range(start, min(start + CHUNK, self.metadata.num_rows)), [])
            return
        with self._open(self.metadata) as parquet:
            for batch in parquet.iter_batches(CHUNK, columns=list(dict.fromkeys(wanted)), use_threads=False):
                columns = [self._column(batch, name) for name in wanted]
                yield Rows(range(start, start + len(batch)), columns)
                start += len(batch)

    def _column(self, batch: Any, name: str) -> Any:
        import pyarrow as pa

        if name in self.columns:
            column = batch.column(name)
            return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        parent, _, leaf = name.rpartition(".")
        struct = batch.column(parent)
        return struct.flatten()[struct.type.get_field_index(leaf)]
