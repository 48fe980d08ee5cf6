"""The listing as Parquet files below an output: one row group for each shard, so that a worker reads its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.items import Item
from pipelines.listing import entries
from pipelines.listing.catalogue import Catalogue
from tfrecords_schema.manifests import typed_json
from tfrecords_schema.storage import files, paths

_SHARDS_PER_FILE = 64  # of more, every worker would read a long footer for each of its shards
_PLAIN = {"write_statistics": False, "use_dictionary": False}  # of a thousand rows: half the time, and smaller
_SHARDS = b"shards"  # key of the files' metadata


@dataclasses.dataclass(frozen=True)
class ListedShard:
    """The images of a shard, the name that its file is to have if it is made, and that of the present output's."""

    items: list[Item]
    name: str
    earlier: str | None


@dataclasses.dataclass(frozen=True)
class Listing:
    """What the launcher has written, for workers to read. Small and picklable: it travels in the pipeline graph.

    Attributes:
      directory: of the output.
      shards: how many each split has.
      metadata: (name, Arrow type) of the columns that are carried along.
    """

    directory: str
    shards: dict[str, int]
    metadata: tuple[tuple[str, Any], ...] = ()

    def files(self) -> list[tuple[str, int]]:
        """(split, number) of each file."""
        return [(split, n) for split, count in self.shards.items() for n in range(-(-count // _SHARDS_PER_FILE))]

    def write(self, catalogue: Catalogue, names: Callable[[str, int], tuple[str, str | None]]) -> None:
        """Writes all of it, a shard's rows in the order that its records are to have.

        Args:
          names: split and number of a shard -> the names of a ListedShard.
        """
        rows = _by_shard(catalogue.sorted(self.shards))
        following = next(rows, None)
        for split, number in self.files():
            first = number * _SHARDS_PER_FILE
            wanted = range(first, min(first + _SHARDS_PER_FILE, self.shards[split]))
            with files.replacing(self.directory, _name(split, number)) as handle:
                with pq.ParquetWriter(handle, catalogue.schema, compression="zstd", **_PLAIN) as writer:
                    told: list[tuple[int, str, str | None]] = []
                    for shard in wanted:
                        is_there = following is not None and following[:2] == (split, shard)
                        size = following[2].num_rows if following and is_there else 0
                        told.append((size, *names(split, shard)))
                        if following and is_there:
                            writer.write_table(following[2].cast(catalogue.schema), row_group_size=size)
                            following = next(rows, None)
                    writer.add_key_value_metadata({_SHARDS: json.dumps(told).encode()})

    def shard(self, split: str, number: int) -> ListedShard:
        """A shard's rows."""
        file, place = divmod(number, _SHARDS_PER_FILE)
        with files.open_binary(paths.join(self.directory, _name(split, file))) as handle:
            parquet = pq.ParquetFile(handle, pre_buffer=True)
            text = parquet.metadata.metadata[_SHARDS].decode("utf-8")
            told = typed_json.decode(text, list[tuple[int, str, str | None]], _name(split, file))
            size, *names = told[place]
            rows = parquet.read_row_group(sum(bool(other) for other, *_ in told[:place])) if size else None
        return ListedShard([] if rows is None else list(entries.to_items(rows, self.metadata)), *names)

    def captions(self, split: str, number: int) -> Iterator[list[str]]:
        """The captions of each image in a file."""
        with files.open_binary(paths.join(self.directory, _name(split, number))) as handle:
            for batch in pq.ParquetFile(handle).iter_batches(columns=["captions"]):
                for captions in batch.column(0).to_pylist():
                    yield [entries.unescape(caption) for caption in captions]


def _name(split: str, number: int) -> str:
    return paths.join(files.WORK, "listing", f"{split}-{number:05d}.parquet")


def _by_shard(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[str, int, pa.Table]]:
    """Sorted rows, a batch of one split each, cut where a shard begins: (split, shard, its rows without `shard`)."""
    held: list[pa.RecordBatch] = []
    key = "", -1
    for batch in batches:
        shard = batch.column("shard").to_numpy()
        split = batch.column("split")[0].as_py()
        cuts = np.flatnonzero(np.diff(shard)) + 1
        rows = batch.drop_columns(["shard"])
        for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(shard)], strict=True):
            here = split, int(shard[start])
            if key != here and held:
                yield *key, pa.Table.from_batches(held)
                held = []
            key = here
            held.append(rows.slice(start, stop - start))
    if held:
        yield *key, pa.Table.from_batches(held)


def every_shard(shards: dict[str, int], ranges: int) -> Sequence[tuple[str, int, int]]:
    """(split, first, end) of the numbers of all shards, in at most `ranges` pieces for a split."""
    steps = ((split, count, -(-count // ranges)) for split, count in shards.items())
    return [(split, at, min(at + step, count)) for split, count, step in steps for at in range(0, count, step)]
