"""One shard of the caption table: features -> captions -> Parquet rows."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

import numpy as np

from pipelines.captions.captioner import BATCH, Caption, Captioner
from pipelines.items import ImageError, Item, Reject, printable
from pipelines.output.sharding import ShardJob, Written
from pipelines.vision.extraction import FeatureBatch, extract
from pipelines.vision.extractors import Extractor
from pipelines.vision.reading import Reading
from tfrecords_schema import caption_table

# A row group is what a reader takes at once: many rows for whoever reads one column, and not too many bytes.
_ROWS_PER_GROUP, _BYTES_PER_GROUP = 100_000, 64 << 20


class FeatureMaker(Protocol):
    """Where features come from. Small and picklable; `load` returns one that holds what is heavy."""

    def load(self) -> Any:
        """The same, loaded."""

    def batches(self, job: ShardJob, load: Callable[[], Any]) -> Iterator[FeatureBatch | Reject]:
        """Every item of the job once, in a batch of features or as a Reject; `load` gives the loaded one."""


@dataclasses.dataclass(frozen=True)
class ExtractedFeatures:
    """Features of images, by a network.

    Attributes:
      dtype: that features were stored in for training. They are rounded to it here too, so that the decoder is given
        the very numbers that a feature directory of the same images would hold.
    """

    extractor: Extractor
    reading: Reading
    dtype: str

    def load(self) -> ExtractedFeatures:
        """With the network's weights."""
        return dataclasses.replace(self, extractor=self.extractor.load())

    def batches(self, job: ShardJob, load: Callable[[], ExtractedFeatures]) -> Iterator[FeatureBatch | Reject]:
        """Reads, decodes and extracts."""
        loaded = lambda: load().extractor  # noqa: E731
        return extract(job.items, self.extractor, loaded, self.reading, job.clock, self.dtype)


@dataclasses.dataclass(frozen=True)
class RowMaker:
    """A `sharding.ShardMaker` of caption rows.

    Attributes:
      features, captioner: not yet loaded; the captioner was trained on these features.
      schema: Arrow's, of the table.
      further: the names of the columns that Items' metadata are the values of.
    """

    features: FeatureMaker
    captioner: Captioner
    schema: Any
    further: tuple[str, ...] = ()
    suffix: str = ".parquet"
    keeps_features: bool = False
    joins_parts: bool = False

    def load(self) -> RowMaker:
        """Both models, loaded."""
        return dataclasses.replace(self, features=self.features.load(), captioner=self.captioner.load())

    def follows_from(self, context: dict[str, Any]) -> dict[str, Any]:
        """All of it; there is none."""
        return context

    def make(self, job: ShardJob) -> Iterator[Written | Reject]:
        """Writes one row for each image."""
        with _RowWriter(job.handle, self.schema) as writer:
            load = lambda: job.load().features  # noqa: E731
            for outcome in regrouped(self.features.batches(job, load), BATCH):
                if isinstance(outcome, Reject):
                    yield outcome
                    continue
                with job.clock.stage("caption"):
                    found = job.load().captioner(outcome.features, [item.id for item in outcome.items])
                rows = []
                for item, size, captions in zip(outcome.items, outcome.sizes, found, strict=True):
                    if captions:
                        rows.append(self._row(item, size, captions))
                    else:
                        message = "the model has no caption of finite probability that the rules for its words allow"
                        yield ImageError("caption", "NoCaption", message).of(item.id, item.uri)
                with job.clock.stage("write"):
                    writer.write(rows)
                yield Written(len(rows), sum(len(row["captions"]) for row in rows))

    def _row(self, item: Item, size: tuple[int, int], captions: list[Caption]) -> dict[str, Any]:
        best = captions[0]
        row = {
            "image_id": printable(item.id),
            "image_uri": printable(item.uri),
            "height": size[0],
            "width": size[1],
            "caption": best.text,
            "log_prob": best.log_prob,
            "captions": [{"caption": c.text, "log_prob": c.log_prob} for c in captions],
            **dict(zip(self.further, item.metadata, strict=True)),
        }
        if best.attention is not None:
            pairs = zip(best.words, best.attention, strict=True)
            row[caption_table.ATTENTION] = [{"word": word, "weights": weights} for word, weights in pairs]
        return row


def regrouped(outcomes: Iterator[FeatureBatch | Reject], size: int) -> Iterator[FeatureBatch | Reject]:
    """Small batches joined to batches of exactly `size` images, the last one of what is left; Rejects at once."""
    waiting: FeatureBatch | None = None
    for outcome in outcomes:
        if isinstance(outcome, Reject):
            yield outcome
            continue
        waiting = outcome if waiting is None else _joined(waiting, outcome)
        while len(waiting.items) >= size:
            yield _part(waiting, slice(size))
            waiting = _part(waiting, slice(size, None))
    if waiting is not None and waiting.items:
        yield waiting


def _joined(one: FeatureBatch, other: FeatureBatch) -> FeatureBatch:
    return FeatureBatch(
        one.items + other.items, one.sizes + other.sizes, np.concatenate([one.features, other.features])
    )


def _part(batch: FeatureBatch, which: slice) -> FeatureBatch:
    return FeatureBatch(batch.items[which], batch.sizes[which], batch.features[which])


class _RowWriter(contextlib.AbstractContextManager):
    """Rows -> a Parquet file, in row groups of a size to read."""

    def __init__(self, handle: BinaryIO | io.RawIOBase, schema: Any):
        import pyarrow.parquet as pq

        self._schema = schema
        self._waiting: list[Any] = []
        self._writer = pq.ParquetWriter(handle, schema, compression="zstd")

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Appends rows."""
        import pyarrow as pa

        self._waiting.append(pa.RecordBatch.from_pylist(rows, schema=self._schema))
        enough = sum(batch.num_rows for batch in self._waiting) >= _ROWS_PER_GROUP
        if enough or sum(batch.nbytes for batch in self._waiting) >= _BYTES_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_batches(self._waiting, schema=self._schema))
        self._waiting = []

    def __exit__(self, error_type, *_) -> None:
        if error_type is None:
            self._flush()
        self._writer.close()
