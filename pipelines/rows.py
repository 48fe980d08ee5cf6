"""One shard of the caption table: images -> features -> captions -> Parquet rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipelines.captioner import Captioner
from pipelines.extraction import FeatureBatch, extract
from pipelines.extractors import Extractor
from pipelines.reading import Reading
from pipelines.rejects import Reject, printable
from pipelines.sharding import ShardJob, Written

_ROWS_PER_GROUP = 10_000


def caption_schema(metadata: dict[str, str]):
    """The Arrow schema of the caption table; `metadata` goes into the file's key-value metadata."""
    import pyarrow as pa

    scored = pa.struct([("caption", pa.string()), ("log_prob", pa.float32())])
    columns = [
        ("image_id", pa.string()),
        ("image_uri", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("caption", pa.string()),
        ("log_prob", pa.float32()),
        ("captions", pa.list_(scored)),
    ]
    return pa.schema(columns, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class RowMaker:
    """A `sharding.ShardMaker` of caption rows.

    Attributes:
      extractor, captioner: not yet loaded; the captioner was trained on this extractor's features.
      dtype: that features were stored in for training. They are rounded to it here too, so that the decoder is given
        the very numbers that a feature directory of the same images would hold.
      metadata: for the Parquet files.
    """

    extractor: Extractor
    captioner: Captioner
    reading: Reading
    dtype: str
    metadata: dict[str, str]
    suffix: str = ".parquet"
    keeps_features: bool = False

    def load(self) -> RowMaker:
        """Both models, loaded."""
        return dataclasses.replace(self, extractor=self.extractor.load(), captioner=self.captioner.load())

    def make(self, job: ShardJob) -> Iterator[Written | Reject]:
        """Writes one row for each image."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = caption_schema(self.metadata)
        group: list[dict[str, Any]] = []
        with pq.ParquetWriter(job.handle, schema, compression="zstd") as writer:
            load = lambda: job.load().extractor  # noqa: E731
            for outcome in extract(job.items, self.extractor, load, self.reading, job.clock, self.dtype):
                if isinstance(outcome, Reject):
                    yield outcome
                    continue
                with job.clock.stage("caption"):
                    rows = job.load().caption(outcome)
                group += rows
                if len(group) >= _ROWS_PER_GROUP:
                    writer.write_table(pa.Table.from_pylist(group, schema=schema))
                    group.clear()
                yield Written(len(rows), sum(len(row["captions"]) for row in rows))
            writer.write_table(pa.Table.from_pylist(group, schema=schema))

    def caption(self, batch: FeatureBatch) -> list[dict[str, Any]]:
        """The rows of one batch."""
        padded = np.zeros((self.extractor.batch_size, *batch.features.shape[1:]), np.float32)
        padded[: len(batch.items)] = batch.features
        rows = []
        for item, (height, width), captions in zip(batch.items, batch.sizes, self.captioner(padded), strict=False):
            rows.append(
                {
                    "image_id": printable(item.id),
                    "image_uri": printable(item.uri),
                    "height": height,
                    "width": width,
                    "caption": captions[0].text,
                    "log_prob": captions[0].log_prob,
                    "captions": [{"caption": c.text, "log_prob": c.log_prob} for c in captions],
                }
            )
        return rows
