"""Which shard an image belongs to, and its order there: the first half of the way from a source to its shards."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam

from pipelines.items import Item, Source
from tfrecords_schema import shards

_RANGES = 100


class ReadSource(beam.PTransform):
    """A source -> its Items. Only the source's few paths stand in the pipeline graph."""

    def __init__(self, source: Source):
        self.source = source

    def expand(self, pipeline):
        return pipeline | "Source" >> beam.Create([self.source]) | "Read" >> beam.FlatMap(_read)


def _read(source: Source) -> Iterator[Item]:
    return source.read()


class KeyByShard(beam.PTransform):
    """Items -> (shard name, Item), with (shard name, None) for each shard, so that one without images is made too.

    Args:
      counts: the number of shards of each split.
    """

    def __init__(self, counts: dict[str, int], suffix: str):
        self.counts, self.suffix = counts, suffix

    def expand(self, items):
        keyed = items | "Key" >> beam.Map(key_by_shard, self.counts, self.suffix)
        # Only ranges of their numbers stand in the graph: a hundred thousand names are too many for it. But several of
        # them: Dask groups into as many partitions, and so works on as many at a time, as its Creates have.
        ranges = items.pipeline | "Ranges" >> beam.Create(shard_ranges(self.counts))
        every = ranges | "EveryShard" >> beam.FlatMap(every_shard, self.counts, self.suffix)
        return (keyed, every) | "Flatten" >> beam.Flatten()


def shard_ranges(counts: dict[str, int]) -> list[tuple[str, int, int]]:
    """(split, first, end) of the numbers of all shards, at most _RANGES for a split."""
    steps = ((split, count, -(-count // _RANGES)) for split, count in counts.items())
    return [(split, at, min(at + step, count)) for split, count, step in steps for at in range(0, count, step)]


def every_shard(numbers: tuple[str, int, int], counts: dict[str, int], suffix: str) -> Iterator[tuple[str, None]]:
    """The name of each shard of a range, with nothing in it."""
    split, first, end = numbers
    for index in range(first, end):
        yield shards.shard_name(split, index, counts[split], suffix), None


def key_by_shard(item: Item, counts: dict[str, int], suffix: str) -> tuple[str, Item]:
    """The item behind the name of its shard."""
    count = counts[item.split]
    index = shards.shard_of(item.id, count) if item.place is None else int(item.place * count)
    return shards.shard_name(item.split, index, count, suffix), item


def order(item: Item) -> tuple:
    """Sort key of the items of a shard: by a hash of their ids, then those that are to be read as they are stored."""
    if item.place is None:
        return 0, *shards.order_in_shard(item.id), item.uri, item.position
    return 1, item.place, item.position
