"""The unit of work is one output shard, the unit of reuse is one image.

    numbers of shards -> Reshuffle -> ProcessShard -> Finish

ProcessShard reads its rows of the listing, keeps what an earlier run computed of them, computes the others, and writes
a file that appears whole, with a sidecar that tells what it was made of. Nothing but numbers of shards crosses a
shuffle, so memory stays flat, and any runner with a Reshuffle will do.
"""

from __future__ import annotations

import dataclasses
import gc
import io
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, Protocol

import apache_beam as beam
from apache_beam.utils import shared

from pipelines.clock import StageClock
from pipelines.items import Item, Reject
from pipelines.listing.table import Listing
from pipelines.output import places, reuse, sidecars
from pipelines.output.merging import EarlierShardError
from pipelines.output.progress import LOADING, WorkerProgress
from pipelines.output.sidecars import ShardResult, Sidecar
from tfrecords_schema.storage import files, paths


@dataclasses.dataclass(frozen=True)
class Written:
    """Some images went into the shard: their positions, in order; how many captions they have, how many were cut."""

    positions: Sequence[int]
    captions: int
    captions_cut: int = 0


@dataclasses.dataclass
class ShardJob:
    """One shard to be made.

    Attributes:
      items: one for each id, in the shard's order, none with a problem.
      handle: to write the shard to.
      load: gives the maker's models, which are built once per process, when they are first asked for.
      clock: to tell the time of stages to.
      context: what side inputs bring, by name.
      kept: by position, the row that an image has in `earlier`, which need not be computed again.
      earlier: the path of a shard that an earlier run made; None where nothing is kept.
    """

    items: list[Item]
    handle: BinaryIO | io.RawIOBase
    load: Callable[[], Any]
    clock: StageClock
    context: dict[str, Any]
    kept: dict[int, int] = dataclasses.field(default_factory=dict)
    earlier: str | None = None


class ShardMaker(Protocol):
    """What a pipeline makes of a shard's images. Small and picklable; `load` returns the heavy part.

    Attributes:
      suffix: of the shard's file, ".tfrecord".
      keeps_rows: whether what is kept of an image is its whole row, captions included, and not only its feature.
    """

    @property
    def suffix(self) -> str: ...

    @property
    def keeps_rows(self) -> bool: ...

    def load(self) -> Any:
        """The models; a weakly referenceable object."""

    def follows_from(self, context: dict[str, Any]) -> Any:
        """What of the jobs' context the shards follow from, as JSON values."""

    def make(self, job: ShardJob) -> Iterator[Written | Reject]:
        """Writes the shard, in the order of the items; accounts for every item once."""

    def some_can_be_read(self, items: list[Item]) -> bool:
        """Whether any of these items, whose reading failed before, can be read by now."""


class ProcessShard(beam.DoFn):
    """(split, number of a shard) -> ShardResult, with the shard's file and sidecar in place.

    Args:
      options: those that the shards' content follows from.
      image_options: those of them that what is kept of an image follows from.
    """

    def __init__(self, maker: ShardMaker, listing: Listing, options: Any, image_options: Any):
        self._maker, self._listing, self._directory = maker, listing, listing.directory
        self._options, self._image_options = options, image_options
        self._run = uuid.uuid4().hex  # of all copies of this DoFn that workers get
        self._shared = shared.Shared()
        self._model: Any = None

    def setup(self):
        # A shard makes thousands of small objects: for each of them, the garbage collector would look through the
        # hundreds of thousands that TensorFlow and Beam have, which was a third of the time of images that are absent.
        gc.set_threshold(20_000, 20, 50)
        self._progress = WorkerProgress(self._directory)

    def process(self, element, **context):
        split, number = element
        listed = self._listing.shard(split, number)
        items = list(map(reuse.with_version, listed.items))
        options = json.dumps(self._image_options, sort_keys=True)
        prints = [sidecars.fingerprint(options, item, self._maker.keeps_rows) for item in items]
        given = json.dumps([self._options, self._maker.follows_from(context)], sort_keys=True)
        keeps_rows = self._maker.keeps_rows
        whole = prints if keeps_rows else [sidecars.fingerprint("", item, captions=True) for item in items]
        made_from = sidecars.digest(given, whole)
        found = self._found(listed.earlier, listed.name)
        for one in found:
            if one.result.made_from == made_from:
                if one.result.run == self._run:
                    result = one.result
                else:
                    again = reuse.retried(one, items)
                    if self._maker.some_can_be_read([item for item in again if not item.problem]):
                        continue
                    result = one.result.reused(len(again))
                self._progress.finished(result)
                yield result
                return
        earlier = max(found, key=reuse.overlap(prints), default=None)
        try:
            yield self._make(listed.name, items, prints, made_from, context, earlier)
        except EarlierShardError:
            yield self._make(listed.name, items, prints, made_from, context, None)

    def _found(self, *names: str | None) -> list[Sidecar]:
        """What is there of the shard: that of the present output first, then what a run left that did not end."""
        there = (sidecars.read_finished(self._directory, name) for name in names if name)
        return [one for one in there if one]

    def _load(self) -> Any:
        """The models; here and not in setup(): a rerun with nothing to compute loads nothing."""
        if self._model is None:
            with self._progress.doing(LOADING):
                self._model = self._shared.acquire(self._maker.load)  # kept here: Shared itself holds it weakly
        return self._model

    def _make(
        self,
        name: str,
        items: list[Item],
        prints: list[bytes],
        made_from: str,
        context: dict[str, Any],
        earlier: Sidecar | None,
    ) -> ShardResult:
        load_seconds = 0.0

        def load() -> Any:
            nonlocal load_seconds
            begun = time.monotonic()
            loaded = self._load()
            load_seconds += time.monotonic() - begun
            return loaded

        started = time.monotonic()
        rejects = [item.problem.of(item.id, item.uri) for item in items if item.problem]
        usable, kept, kept_rejects = reuse.kept(items, prints, earlier)
        rejects += kept_rejects
        written: list[int] = []
        captions = captions_cut = 0
        target = places.waiting_name(self._directory, name)
        with self._progress.shard() as progress, files.replacing(self._directory, target) as handle:
            job = ShardJob(usable, handle, load, StageClock(), context, kept)
            if earlier and kept:
                job.earlier = places.path_of(self._directory, earlier.result.name)
            progress.show(0, len(rejects))
            for outcome in self._maker.make(job):
                if isinstance(outcome, Reject):
                    rejects.append(outcome)
                else:
                    written += outcome.positions
                    captions += outcome.captions
                    captions_cut += outcome.captions_cut
                progress.show(len(written), len(rejects))
            if len(written) + len(rejects) != len(items):  # before the file gets its name
                raise AssertionError(f"{name}: {len(items)} images in, {len(written)} records + {len(rejects)} out")
            # What an old sidecar tells is of the file that is now replaced.
            files.delete(paths.join(self._directory, sidecars.name_of(name)))
        result = ShardResult(
            name=name,
            made_from=made_from,
            sha256=handle.sha256(),
            inputs=len(items),
            records=len(written),
            captions=captions,
            bytes=handle.tell(),
            rejects=len(rejects),
            captions_cut=captions_cut,
            kept=len(kept) + len(kept_rejects),
            retried=len(reuse.retried(earlier, items)) if earlier else 0,
            run=self._run,
            seconds=time.monotonic() - started - load_seconds,
            load_seconds=load_seconds,
            stage_seconds=dict(job.clock.seconds),
        )
        rows = {position: row for row, position in enumerate(written)}
        places_of = [rows.get(item.position) for item in items]
        in_order = reuse.in_order([item for item, row in zip(items, places_of, strict=True) if row is None], rejects)
        sidecars.write(self._directory, Sidecar(result, prints, places_of, in_order))
        self._progress.finished(result)
        return result
