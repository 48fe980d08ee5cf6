"""One shard of the caption table: captions -> Parquet rows."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipelines.captions.captioner import BATCH
from pipelines.captions.captioning import Captioned, Captioning, as_row
from pipelines.items import Item, Reject
from pipelines.output.merging import EarlierShardError, in_order
from pipelines.output.sharding import ShardJob, Written
from tfrecords_schema.storage import files

# A row group is what a reader takes at once: many rows for whoever reads one column, and not too many bytes.
_ROWS_PER_GROUP = 8192


@dataclasses.dataclass(frozen=True)
class RowMaker:
    """A `sharding.ShardMaker` of caption rows.

    Attributes:
      captioning: not yet loaded.
      schema: Arrow's, of the table.
      further: the names of the columns that Items' metadata are the values of.
      word_scores: whether captions are told word by word.
    """

    captioning: Captioning
    schema: Any
    further: tuple[str, ...] = ()
    word_scores: bool = False
    suffix: str = ".parquet"
    keeps_rows: bool = True

    def load(self) -> RowMaker:
        """Both models, loaded."""
        return dataclasses.replace(self, captioning=self.captioning.load())

    def follows_from(self, context: dict[str, Any]) -> dict[str, Any]:
        """What of the jobs' context the shards follow from: all of it, and there is none."""
        return context

    def some_can_be_read(self, items: list[Item]) -> bool:
        """Whether any of these items, whose reading failed before, can be read by now."""
        return self.captioning.features.some_can_be_read(items)

    def make(self, job: ShardJob) -> Iterator[Written | Reject]:
        """Writes one row for each image."""
        earlier = _Earlier(job.earlier, self.schema) if job.earlier else None
        with _RowWriter(job.handle, self.schema) as writer:
            for outcome in in_order(job.items, job.kept, self._captioned(job), BATCH):
                if isinstance(outcome, Reject):
                    yield outcome
                    continue
                positions, captions = [], 0
                for is_kept, group in itertools.groupby(outcome, lambda pair: pair[1] is None):
                    pairs = list(group)
                    if is_kept and earlier:
                        rows = earlier.rows([job.kept[item.position] for item, _ in pairs])
                    else:
                        yield from (made for _, made in pairs if isinstance(made, Reject))
                        pairs = [(item, made) for item, made in pairs if isinstance(made, dict)]
                        rows = _table([made for _, made in pairs if isinstance(made, dict)], self.schema)
                    with job.clock.stage("write"):
                        writer.write(rows)
                    positions += [item.position for item, _ in pairs]
                    captions += sum(map(len, rows["captions"]))
                yield Written(positions, captions)

    def _captioned(self, job: ShardJob) -> Iterator[Reject | list[tuple[Item, dict[str, Any] | Reject]]]:
        """Captions all images but those kept: each with its row, or with why it has none."""
        items = [item for item in job.items if item.position not in job.kept]
        for outcome in self.captioning.batches(items, job.clock, lambda: job.load().captioning):
            if isinstance(outcome, Reject):
                yield outcome
            else:
                yield [(item, self._row(made)) for item, made in outcome]

    def _row(self, made: Captioned | Reject) -> dict[str, Any] | Reject:
        return made if isinstance(made, Reject) else as_row(made, self.word_scores, self.further)


def _table(rows: list[dict[str, Any]], schema: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema)


class _Earlier:
    """The rows of an earlier shard."""

    def __init__(self, path: str, schema: Any):
        import pyarrow.parquet as pq

        with _earlier(path):
            with files.open_binary(path) as handle:
                self._rows = pq.read_table(handle)
            self._rows = self._rows.select(schema.names).cast(schema)
        self._path = path

    def rows(self, numbers: list[int]) -> Any:
        """Some of them, as a table."""
        with _earlier(self._path):
            return self._rows.take(numbers)


@contextlib.contextmanager
def _earlier(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, LookupError, ValueError) as error:  # Arrow's are all three
        raise EarlierShardError(f"{path}: {error}") from None


class _RowWriter(contextlib.AbstractContextManager):
    """Rows -> a Parquet file; its bytes follow from the rows alone, and not from how many came together."""

    def __init__(self, handle: BinaryIO | io.RawIOBase, schema: Any):
        import pyarrow.parquet as pq

        self._waiting: Any = schema.empty_table()
        self._writer = pq.ParquetWriter(handle, schema, compression="zstd")

    def write(self, rows: Any) -> None:
        """Appends a table."""
        import pyarrow as pa

        self._waiting = pa.concat_tables([self._waiting, rows])
        while self._waiting.num_rows >= _ROWS_PER_GROUP:
            self._flush(_ROWS_PER_GROUP)

    def _flush(self, size: int) -> None:
        if self._waiting.num_rows:  # no row group of no rows, which Hugging Face's datasets cannot read
            self._writer.write_table(self._waiting.slice(0, size).combine_chunks(), row_group_size=_ROWS_PER_GROUP)
        self._waiting = self._waiting.slice(size)

    def __exit__(self, error_type, *_) -> None:
        if error_type is None:
            self._flush(_ROWS_PER_GROUP)
        self._writer.close()
