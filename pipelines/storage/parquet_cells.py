"""Images inside Parquet files, read in place: the cell of a row has the URI `images.parquet!/column/17`.

Parquet is made to be read forward: to decode row 900 of a row group is to decode the 900 before it. So each row group
that is being read has a cursor that only goes forward, a few rows at a time, and holds what it has decoded until it is
asked for, which the reading threads do a little out of order.
"""

from __future__ import annotations

import contextvars
import functools
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pipelines.items import ImageError
from tfrecords_schema.storage import faults, files
from tfrecords_schema.storage.faults import UnreachableError

ENDING = ".parquet"
_WINDOW = 16  # rows that are decoded at once,
_WINDOW_BYTES = 8 << 20  # or fewer, that have so many bytes
_KEPT = 256  # rows behind the last decoded one, of which those are held that no thread has asked for yet
_KEPT_BYTES = 256 << 20  # of these rows, or the last decoded one
_BEFORE = 32  # rows held before one that is not the next: other threads are about to ask for them
_CURSORS = 4  # of a file: as many shards of it can be read at the same time in one process
_BUFFER_BYTES = 1 << 20
_opening = threading.Lock()
_URI = re.compile(rf"(?P<table>.+{re.escape(ENDING)})!/(?P<column>.+)/(?P<row>\d+)", re.IGNORECASE | re.DOTALL)


def cell_uri(table: str, column: str, row: int) -> str:
    """The URI of a cell, which `parse_uri` takes apart. Rows count from 0."""
    return f"{table}!/{column}/{row}"


def parse_uri(uri: str) -> tuple[str, str, int] | None:
    """(table, column, row) of a cell's URI; None for any other."""
    match = _URI.fullmatch(uri)
    return match and (match["table"], match["column"], int(match["row"]))


def read(table: str, column: str, row: int, admit: Callable[[int], None]) -> bytes:
    """A cell's bytes. Raises ImageError, of stage "list" where there are none, and what a damaged file and `admit` do.

    Args:
      admit: is given how many bytes there are, and may have this and other cells of the file wait.
    """
    with _opening:  # else each of the threads that come to a new file would open it, and decode its first rows
        cells = open_cells(table, column)
    return cells.read(row, admit)


@functools.cache
def _decoder() -> ThreadPoolExecutor:
    """The one thread that decodes Parquet for all: Arrow's allocator keeps memory for each thread that ever decoded."""
    return ThreadPoolExecutor(1, thread_name_prefix="parquet")


def _decode(take: Callable[[int], bytes | None], row: int) -> bytes | None:
    return _decoder().submit(contextvars.copy_context().run, take, row).result()


@functools.lru_cache(maxsize=8)
def open_cells(table: str, column: str) -> Cells:
    """The column, its file opened once per process."""
    return Cells(table, column)


def bytes_leaf(schema, column: str) -> str | None:
    """Which leaf of a column holds bytes, "image" or "image.bytes" (a struct of Hugging Face's); None for neither."""
    import pyarrow.types as types

    def is_bytes(kind) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    kind = schema.field(column).type
    if is_bytes(kind):
        return column
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and is_bytes(kind.field("bytes").type):
        return f"{column}.bytes"
    return None


class Cells:
    """A column of images. Safe to be read from many threads; a lock makes them take turns in decoding Parquet."""

    def __init__(self, path: str, column: str):
        import pyarrow.parquet as pq

        self._path, self._column = path, column
        self._parquet = pq.ParquetFile(
            files.open_binary(path), buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )
        self._leaf = bytes_leaf(self._parquet.schema_arrow, column)
        metadata = self._parquet.metadata
        self._starts = [0]  # the first row of each row group, and the number of rows
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
        self._cursors: list[_Cursor] = []  # the one used last stands last
        self._lock = threading.Lock()

    def read(self, row: int, admit: Callable[[int], None]) -> bytes:
        """The bytes of one row."""
        if self._leaf is None or row >= self._starts[-1]:
            raise ImageError("read", "Absent", f"no bytes in column {self._column!r}, row {row} of {self._path}")
        with self._lock:
            cursor = self._cursor(row)
            try:
                data = cursor.held.pop(row) if row in cursor.held else _decode(cursor.take, row)
            except Exception as error:
                if isinstance(error, UnreachableError) or faults.is_of_the_machine(error):
                    self._cursors.remove(cursor)  # the next one begins anew, where damage would stay
                raise
            admit(len(data or b""))
        if not data:
            message = f"row {row} of {self._path}: expected an image's bytes in {self._column!r}, found none"
            raise ImageError("list", "BadEntry", message)
        return data

    def _cursor(self, row: int) -> _Cursor:
        """A cursor that holds the row, else the one closest before it, else a new one at the row group's beginning."""
        holding = next((cursor for cursor in self._cursors if row in cursor.held), None)
        before = [cursor for cursor in self._cursors if cursor.next_row <= row < cursor.end]
        cursor = holding or max(before, key=lambda one: one.next_row, default=None)
        if cursor is None:
            group = next(g for g, start in enumerate(self._starts[1:]) if row < start)
            batches = self._parquet.iter_batches(1, row_groups=[group], columns=[self._leaf], use_threads=False)
            cursor = _Cursor(batches, self._column, self._starts[group], self._starts[group + 1])
        else:
            self._cursors.remove(cursor)
        self._cursors = [*self._cursors[1 - _CURSORS :], cursor]
        return cursor


class _Cursor:
    """Goes forward through one row group."""

    def __init__(self, batches, column: str, start: int, end: int):
        self._batches, self._column, self.next_row, self.end = batches, column, start, end
        self.held: dict[int, bytes | None] = {}  # decoded rows that were not asked for yet
        self._error: Exception | None = None

    def take(self, row: int) -> bytes | None:
        """A row that is held or yet to come."""
        while row >= self.next_row:
            self._decode(row)
        return self.held.pop(row)

    def _decode(self, wanted: int) -> None:
        if self._error:  # not tried anew for each row behind the damage
            raise self._error
        start, taken = self.next_row, 0
        while self.next_row < min(start + _WINDOW, self.end) and taken < _WINDOW_BYTES:
            try:
                # One by one: Arrow repeats a dictionary's value in each row of a batch, however large it is. By name:
                # Arrow reads a column "image.bytes" along with the leaf that is called so.
                values = next(self._batches).column(self._column)
            except Exception as error:
                self._error = error
                if self.next_row > wanted:
                    if isinstance(error, UnreachableError):  # who wants the next row asks again, as often as it may
                        self.end = self.next_row
                    break
                raise
            values = values.flatten()[0] if hasattr(values, "field") else values  # the only leaf of a struct
            taken += values.nbytes
            if self.next_row >= wanted - _BEFORE:  # else it is only passed on the way to the row
                self.held[self.next_row] = values[0].as_py()
            self.next_row += 1
        size = 0
        for row in sorted(self.held, reverse=True):
            size += len(self.held[row] or b"")
            if row < self.next_row - _KEPT or (size > _KEPT_BYTES and row != wanted):
                del self.held[row]
        if self.next_row >= self.end:
            self._batches = iter(())  # lets go of its buffers
