"""The unit of work is one output shard: group images by shard, make each shard whole, skip what is there, sum up.

    inputs -> key by shard -> GroupByKey -> ProcessShard -> Finish

A shard's file is written under a temporary name and renamed, then a small sidecar under `.work/` records what it was
made from. A rerun passes over each shard whose file and sidecar fit; one whose images are the same, but not their
captions, keeps its features. Nothing heavier than ids, URIs and captions crosses the shuffle, so memory stays flat, and
any runner with a GroupByKey will do.
"""

from __future__ import annotations

import dataclasses
import io
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

import apache_beam as beam
from apache_beam.utils import shared

from pipelines.clock import StageClock
from pipelines.items import ImageError, Item, Reject, join_parts, printable
from pipelines.output.keys import order
from pipelines.output.progress import LOADING, ShardProgress
from pipelines.output.sidecars import ShardResult, read_finished, shard_digest, sidecar_name, write_sidecar
from pipelines.vision.reading import some_can_be_read
from tfrecords_schema.storage import files, paths


@dataclasses.dataclass(frozen=True)
class Written:
    """Some images went into the shard: how many records, how many captions they hold, how many of these were cut."""

    records: int
    captions: int
    captions_cut: int = 0


@dataclasses.dataclass
class ShardJob:
    """One shard to be made.

    Attributes:
      items: one for each id, in the shard's order.
      handle: to write the shard to.
      load: gives the maker's models, which are built once per process, when they are first asked for.
      clock: to tell the time of stages to.
      context: what side inputs bring, by name.
      earlier: the path of a shard of the very same images that an earlier run made, or None.
      earlier_rejects: and what that one rejected.
    """

    items: list[Item]
    handle: BinaryIO | io.RawIOBase
    load: Callable[[], Any]
    clock: StageClock
    context: dict[str, Any]
    earlier: str | None = None
    earlier_rejects: list[Reject] = dataclasses.field(default_factory=list)


class ShardMaker(Protocol):
    """What a pipeline makes of a shard's images. Small and picklable; `load` returns the heavy part.

    Attributes:
      suffix: of the shard's file, ".tfrecord".
      keeps_features: whether `make` can take features from an earlier shard.
      joins_parts: whether Items of one id and URI are one image, whose captions stand apart.
    """

    @property
    def suffix(self) -> str: ...

    @property
    def keeps_features(self) -> bool: ...

    @property
    def joins_parts(self) -> bool: ...

    def load(self) -> Any:
        """The models; a weakly referenceable object."""

    def follows_from(self, context: dict[str, Any]) -> Any:
        """What of the jobs' context the shards follow from, as JSON values."""

    def make(self, job: ShardJob) -> Iterator[Written | Reject]:
        """Writes the shard; accounts for every item once."""


class ProcessShard(beam.DoFn):
    """(shard name, Items and None) -> ShardResult, with the shard's file and sidecar in place.

    Args:
      options: those that the shards' content follows from.
      image_options: those of them that features follow from.
    """

    def __init__(self, maker: ShardMaker, directory: str, options: dict[str, Any], image_options: dict[str, Any]):
        self._maker, self._directory, self._options, self._image_options = maker, directory, options, image_options
        self._run = uuid.uuid4().hex  # of all copies of this DoFn that workers get
        self._shared = shared.Shared()
        self._model = None

    def process(self, element, **context):
        name, grouped = element
        items = [item for item in grouped if item is not None]
        items = sorted(join_parts(items) if self._maker.joins_parts else items, key=order)
        made_from = shard_digest([self._options, self._maker.follows_from(context)], items)
        images = shard_digest(self._image_options, map(_image_alone, items))
        found = read_finished(self._directory, name)
        if found and _can_be_read_again(items, found[1]):
            found = None
        if found and found[0].made_from == made_from:
            yield found[0] if found[0].run == self._run else found[0].reused()
        else:
            if found and found[0].images != images:
                found = None
            yield self._make(name, items, made_from, images, context, found)

    def _make(self, name: str, items: list[Item], made_from: str, images: str, context: dict, earlier) -> ShardResult:
        load_seconds = 0.0

        def load() -> Any:  # here and not in setup(): a rerun with nothing to extract loads nothing
            nonlocal load_seconds
            started = time.monotonic()
            if self._model is None:
                with progress.doing(LOADING):
                    self._model = self._shared.acquire(self._maker.load)  # kept here: Shared itself holds it weakly
            load_seconds += time.monotonic() - started
            return self._model

        started = time.monotonic()
        unique, rejects = _set_duplicates_aside(items)
        records = captions = captions_cut = 0
        with ShardProgress(self._directory, name) as progress, files.replacing(self._directory, name) as handle:
            job = ShardJob(unique, handle, load, StageClock(), context)
            if earlier and self._maker.keeps_features:
                job.earlier, job.earlier_rejects = paths.join(self._directory, name), earlier[1]
            progress.show(0, len(rejects))
            for outcome in self._maker.make(job):
                if isinstance(outcome, Reject):
                    rejects.append(outcome)
                else:
                    records += outcome.records
                    captions += outcome.captions
                    captions_cut += outcome.captions_cut
                progress.show(records, len(rejects))
            if records + len(rejects) != len(items):  # before the file gets its name
                raise AssertionError(f"{name}: {len(items)} images in, {records} records + {len(rejects)} rejects out")
            # What an old sidecar tells is of the file that is now replaced.
            files.delete(paths.join(self._directory, sidecar_name(name)))
        result = ShardResult(
            name=name,
            made_from=made_from,
            images=images,
            sha256=handle.sha256(),
            inputs=len(items),
            records=records,
            captions=captions,
            captions_cut=captions_cut,
            bytes=handle.tell(),
            rejects=len(rejects),
            kept="features" if job.earlier else "",
            run=self._run,
            seconds=time.monotonic() - started - load_seconds,
            load_seconds=load_seconds,
            stage_seconds=dict(job.clock.seconds),
        )
        write_sidecar(self._directory, result, rejects)
        return result


def _image_alone(item: Item) -> Item:
    """What its feature follows from: where it lies only if its listing tells no version of the file."""
    return dataclasses.replace(item, captions=(), uri="" if item.version else item.uri)


def _can_be_read_again(items: list[Item], rejects: list[Reject]) -> bool:
    """Whether an image that an earlier run could not read can be read by now; its listing may not tell."""
    failed = {(r.image_id, r.image_uri) for r in rejects if r.stage == "read"}
    return some_can_be_read(i for i in items if not i.problem and (printable(i.id), printable(i.uri)) in failed)


def _set_duplicates_aside(items: list[Item]) -> tuple[list[Item], list[Reject]]:
    """Keeps the first usable item of each id; two rows with one id cannot both be looked up by it."""
    first: dict[str, str] = {}
    unique, rejects = [], []
    for item in items:
        if item.problem or item.id not in first:
            unique.append(item)
        else:
            message = f"the id {item.id} was taken by {first[item.id]}"
            rejects.append(ImageError("list", "DuplicateId", message).of(item.id, item.uri))
        if not item.problem:
            first.setdefault(item.id, item.uri)
    return unique, rejects


class MakeShards(beam.PTransform):
    """(shard name, Item or None) -> one ShardResult a shard.

    Args:
      accelerator: Beam's resource hint for the workers that extract features, and for no other step's:
        "type:nvidia-l4;count:1;install-nvidia-driver".
    """

    def __init__(self, process: ProcessShard, accelerator: str | None = None, **context):
        self.process, self.accelerator, self.context = process, accelerator, context

    def expand(self, keyed):
        make: Any = beam.ParDo(self.process, **self.context)
        if self.accelerator:
            make = make.with_resource_hints(accelerator=self.accelerator)
        return keyed | "GroupByShard" >> beam.GroupByKey() | "ProcessShard" >> make


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
