"""Which shard an image belongs to, and its order there: the first half of the way from a source to its shards."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam

from pipelines.sources.items import Item, Source
from tfrecords_schema import shards


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
        # Only their numbers stand in the graph: a hundred thousand names are too many for it.
        counts = items.pipeline | "Counts" >> beam.Create([self.counts])
        every = counts | "EveryShard" >> beam.FlatMap(every_shard, self.suffix)
        return (keyed, every) | "Flatten" >> beam.Flatten()


def every_shard(counts: dict[str, int], suffix: str) -> Iterator[tuple[str, None]]:
    """The name of each shard, with nothing in it."""
    for split, count in counts.items():
        for index in range(count):
            yield shards.shard_name(split, index, count, suffix), None


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
