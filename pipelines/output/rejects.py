"""What became of every image that could not be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import BinaryIO

STAGES = ("list", "read", "decode", "extract", "caption")


@dataclasses.dataclass(frozen=True)
class Reject:
    """One image that is not in the output, and why.

    Attributes:
      image_id, image_uri: as listed.
      stage: one of STAGES, the step that gave up.
      error: a short name to count by, "Truncated".
      message: what was found, for a person.
    """

    image_id: str
    image_uri: str
    stage: str
    error: str
    message: str

    def printable(self) -> dict[str, str]:
        """As a row that any table can hold."""
        return {key: printable(value) for key, value in vars(self).items()}


class ImageError(Exception):
    """An image cannot be used; becomes a Reject. Raised by the step that owns `stage`."""

    def __init__(self, stage: str, error: str, message: str):
        super().__init__(stage, error, message)
        self.stage, self.error, self.message = stage, error, message

    def of(self, image_id: str, image_uri: str) -> Reject:
        """This error as a row of the rejects table."""
        return Reject(image_id, image_uri, self.stage, self.error, self.message)


def _schema():
    import pyarrow as pa

    return pa.schema([(field.name, pa.string()) for field in dataclasses.fields(Reject)])


def printable(text: str) -> str:
    """Text that UTF-8 can hold: bytes of a file name that are no UTF-8 are shown as backslash escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_parquet(rejects: Iterable[Reject], handle: BinaryIO, rows_per_group: int = 10_000) -> int:
    """Writes a table of all rejects (an empty one for none); returns the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    total, group = 0, []
    with pq.ParquetWriter(handle, _schema(), compression="zstd") as writer:

        def flush():
            writer.write_table(pa.Table.from_pylist(group, schema=_schema()))
            group.clear()

        for reject in rejects:
            group.append(reject.printable())
            total += 1
            if len(group) == rows_per_group:
                flush()
        if group or not total:
            flush()
    return total


def read_parquet(handle: BinaryIO) -> list[Reject]:
    """The rejects that `write_parquet` wrote."""
    import pyarrow.parquet as pq

    return [Reject(**row) for row in pq.read_table(handle).to_pylist()]
