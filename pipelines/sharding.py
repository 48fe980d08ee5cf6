"""The unit of work is one output shard: group images by shard, make each shard whole, skip what is there, sum up.

    inputs -> key by shard -> GroupByKey -> ProcessShard -> Finish

A shard's file is written under a temporary name and renamed, then a small sidecar under `.work/` records what it was
made from. A rerun passes over each shard whose file and sidecar fit. Nothing heavier than ids, URIs and captions
crosses the shuffle, so memory stays flat, and any runner with a GroupByKey will do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Protocol

import apache_beam as beam
from apache_beam.utils import shared

from pipelines import files
from pipelines.progress import ShardProgress
from pipelines.rejects import ImageError, Reject, printable
from pipelines.sources import Item, Source
from tfrecords_schema import shards


@dataclasses.dataclass(frozen=True)
class Written:
    """Some images went into the shard: how many records, how many captions they hold."""

    records: int
    captions: int


class ShardMaker(Protocol):
    """What a pipeline makes of a shard's images. Small and picklable; `load` returns the heavy part.

    Attributes:
      suffix: of the shard's file, ".tfrecord".
    """

    suffix: str

    def load(self) -> Any:
        """The models, built once per process; a weakly referenceable object."""

    def some_can_be_used(self, items: list[Item]) -> bool:
        """Whether any of these images, rejected by an earlier run, could be used by now."""

    def make(self, model: Any, items: list[Item], handle: BinaryIO, **context) -> Iterator[Written | Reject]:
        """Writes the shard; accounts for every item once. `context` is what side inputs bring, small and hashable."""


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What became of one shard. `seconds` and `load_seconds` are zero where an earlier run made it."""

    name: str
    digest: str
    inputs: int
    records: int
    captions: int
    bytes: int
    rejects: int
    seconds: float = 0.0
    load_seconds: float = 0.0

    def reused(self) -> ShardResult:
        """The same shard, made at no cost in this run."""
        return dataclasses.replace(self, seconds=0.0, load_seconds=0.0)


class ReadSource(beam.PTransform):
    """A source -> its Items. Only the source's few paths stand in the pipeline graph."""

    def __init__(self, source: Source):
        self.source = source

    def expand(self, pipeline):
        return pipeline | "Source" >> beam.Create([self.source]) | "Read" >> beam.FlatMap(_read)


def _read(source: Source) -> Iterator[Item]:
    return source.read()


class KeyByShard(beam.PTransform):
    """Items -> (shard name, Item), with (shard name, None) for each shard, so that one without images is made too."""

    def __init__(self, prefix: str, count: int, suffix: str):
        self.prefix, self.count, self.suffix = prefix, count, suffix

    def expand(self, items):
        keyed = items | "Key" >> beam.Map(key_by_shard, self.prefix, self.count, self.suffix)
        # Only their number stands in the graph: a hundred thousand names are too many for it.
        number = items.pipeline | "Count" >> beam.Create([self.count])
        every = number | "EveryShard" >> beam.FlatMap(every_shard, self.prefix, self.suffix)
        return (keyed, every) | "Flatten" >> beam.Flatten()


def every_shard(count: int, prefix: str, suffix: str) -> Iterator[tuple[str, None]]:
    """The name of each shard, with nothing in it."""
    for index in range(count):
        yield shards.shard_name(prefix, index, count, suffix), None


def key_by_shard(item: Item, prefix: str, count: int, suffix: str) -> tuple[str, Item]:
    """The item behind the name of its shard."""
    return shards.shard_name(prefix, shards.shard_of(item.id, count), count, suffix), item


class ProcessShard(beam.DoFn):
    """(shard name, Items and None) -> ShardResult, with the shard's file and sidecar in place."""

    def __init__(self, maker: ShardMaker, directory: str, options: dict[str, Any]):
        self._maker, self._directory, self._options = maker, directory, options
        self._shared = shared.Shared()
        self._model = None

    def process(self, element, **context):
        name, grouped = element
        items = sorted(
            (item for item in grouped if item is not None), key=lambda i: (*shards.order_in_shard(i.id), i.uri)
        )
        digest = shard_digest(self._options, context, items)
        result = self._finished(name, items, digest)
        yield result.reused() if result else self._make(name, items, digest, context)

    def _finished(self, name: str, items: list[Item], digest: str) -> ShardResult | None:
        """The shard's result, if it is in place, and what it rejected still cannot be used."""
        found = finished(self._directory, name, digest)
        if not found:
            return None
        result, rejects = found
        mendable = {(r.image_id, r.image_uri) for r in rejects if r.stage in ("read", "decode")}
        again = [item for item in items if (printable(item.id), printable(item.uri)) in mendable]
        return None if again and self._maker.some_can_be_used(again) else result

    def _make(self, name: str, items: list[Item], digest: str, context: dict) -> ShardResult:
        started = time.monotonic()
        files.delete(files.join(self._directory, _sidecar(name)))  # it tells of a shard that is being replaced
        if self._model is None:  # here and not in setup(): a rerun with nothing to do loads nothing
            self._model = self._shared.acquire(self._maker.load)
        loaded = time.monotonic()
        unique, rejects = _set_duplicates_aside(items)
        records = captions = 0
        with (
            ShardProgress(self._directory, name) as progress,
            files.replacing(self._directory, name) as handle,
        ):
            progress.show(0, len(rejects))
            for outcome in self._maker.make(self._model, unique, handle, **context):
                if isinstance(outcome, Reject):
                    rejects.append(outcome)
                else:
                    records += outcome.records
                    captions += outcome.captions
                progress.show(records, len(rejects))
            if records + len(rejects) != len(items):  # before the file gets its name
                raise AssertionError(f"{name}: {len(items)} images in, {records} records + {len(rejects)} rejects out")
            size = handle.tell()
        ended = time.monotonic()
        result = ShardResult(
            name, digest, len(items), records, captions, size, len(rejects), ended - loaded, loaded - started
        )
        write_sidecar(self._directory, result, rejects)
        return result


def _set_duplicates_aside(items: list[Item]) -> tuple[list[Item], list[Reject]]:
    """Keeps the first item of each id; two files with one id cannot both be looked up by it."""
    unique: list[Item] = []
    rejects = []
    for item in items:
        if unique and unique[-1].id == item.id:
            message = f"the id {item.id} was taken by {unique[-1].uri}"
            rejects.append(ImageError("list", "DuplicateId", message).of(item.id, item.uri))
        else:
            unique.append(item)
    return unique, rejects


def shard_digest(options: dict[str, Any], context: dict[str, Any], items: Iterable[Item]) -> str:
    """SHA-256 of everything that a shard's content follows from."""
    digest = hashlib.sha256(json.dumps([options, context], sort_keys=True).encode())
    for item in items:
        problem = item.problem.args if item.problem else None
        digest.update(json.dumps([item.id, item.uri, item.captions, problem]).encode())
    return digest.hexdigest()


def _sidecar(name: str) -> str:
    return files.join(files.WORK, f"{name}.json")


def write_sidecar(directory: str, result: ShardResult, rejects: list[Reject]) -> None:
    """Records a shard that is in place."""
    content = {"result": dataclasses.asdict(result), "rejects": [reject.printable() for reject in rejects]}
    files.write_text(directory, _sidecar(name=result.name), json.dumps(content))


def read_sidecar(directory: str, name: str) -> tuple[ShardResult, list[Reject]] | None:
    """What `write_sidecar` wrote; None where there is none."""
    text = files.read_text(files.join(directory, _sidecar(name)))
    if text is None:
        return None
    content = json.loads(text)
    return ShardResult(**content["result"]), [Reject(**reject) for reject in content["rejects"]]


def finished(directory: str, name: str, digest: str) -> tuple[ShardResult, list[Reject]] | None:
    """The shard's sidecar, if the shard's file is there, whole, and made from the same."""
    found = read_sidecar(directory, name)
    if not found or found[0].digest != digest:
        return None
    return found if files.size(files.join(directory, name)) == found[0].bytes else None


class MakeShards(beam.PTransform):
    """(shard name, Item or None) -> one ShardResult a shard."""

    def __init__(self, maker: ShardMaker, directory: str, options: dict[str, Any], **context):
        self.maker, self.directory, self.options, self.context = maker, directory, options, context

    def expand(self, keyed):
        process = ProcessShard(self.maker, self.directory, self.options)
        return keyed | "GroupByShard" >> beam.GroupByKey() | "ProcessShard" >> beam.ParDo(process, **self.context)


class Finish(beam.PTransform):
    """ShardResults -> one call of `finish(results by name, **context)`, when all are there."""

    def __init__(self, finish: Callable, **context):
        self.finish, self.context = finish, context

    def expand(self, results):
        return (
            results
            | "Gather" >> beam.combiners.ToList()
            | "InOrder" >> beam.Map(lambda found: sorted(found, key=lambda result: result.name))
            | "Publish" >> beam.Map(self.finish, **self.context)
        )
