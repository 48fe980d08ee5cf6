"""The pipelines' steps: every shard is made by some worker, and what came of all is published once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam

from pipelines.listing.table import Listing, every_shard
from pipelines.output.sharding import ProcessShard
from pipelines.output.sidecars import ShardResult
from tfrecords_schema.storage import files, objects, paths

_RANGES = 100


class EveryShard(beam.PTransform):
    """A listing -> (split, number) of each of its shards, spread over the workers."""

    def __init__(self, listing: Listing):
        self.listing = listing

    def expand(self, pipeline):
        # Only ranges of their numbers stand in the graph: a hundred thousand names are too many for it. But several of
        # them: Dask groups into as many partitions, and so works on as many at a time, as its Creates have.
        return (
            pipeline
            | "Ranges" >> beam.Create(every_shard(self.listing.shards, _RANGES))
            | "Numbers" >> beam.FlatMapTuple(lambda split, first, end: [(split, n) for n in range(first, end)])
            | "Spread" >> beam.Reshuffle()
        )


class MakeShards(beam.PTransform):
    """(split, number) -> one ShardResult a shard.

    Args:
      accelerator: Beam's resource hint for the workers that extract features, and for no other step's:
        "type:nvidia-l4;count:1;install-nvidia-driver".
    """

    def __init__(self, process: ProcessShard, accelerator: str | None = None, **context):
        self.process, self.accelerator, self.context = process, accelerator, context

    def expand(self, numbers):
        make: Any = beam.ParDo(self.process, **self.context)
        if self.accelerator:
            make = make.with_resource_hints(accelerator=self.accelerator)
        return numbers | "ProcessShard" >> make


class Finish(beam.PTransform):
    """ShardResults -> one call of `finish(results by name, **context)`, when all are there; then cleans up.

    `finish` returns the paths of files that are not needed any more, which workers delete side by side.
    """

    def __init__(self, finish: Callable, **context):
        self.finish, self.context = finish, context

    def expand(self, results):
        return (
            results
            | "Gather" >> beam.combiners.ToList()
            | "InOrder" >> beam.Map(lambda found: sorted(found, key=lambda result: result.name))
            | "Publish" >> beam.FlatMap(_call, self.finish, **self.context)
            | "SpreadStale" >> beam.Reshuffle()
            | "DeleteStale" >> beam.Map(_delete)
        )


def _call(results: list[ShardResult], finish: Callable, **context) -> Iterator[list[str]]:
    return finish(results, **context)


def _delete(stale: list[str]) -> None:
    objects.delete(path for path in stale if paths.is_remote(path))
    files.delete(*(path for path in stale if paths.is_local(path)))
    for folder in {os.path.dirname(path) for path in stale if paths.is_local(path)}:
        with contextlib.suppress(OSError):  # it is not empty
            os.removedirs(folder)
