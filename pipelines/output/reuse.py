"""What of a shard need not be computed again: image by image, by what an earlier run left."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
from collections.abc import Callable, Sequence

from pipelines.items import ImageError, Item, Reject, printable
from pipelines.output.sidecars import Sidecar
from pipelines.vision.reading import is_inside_a_file
from tfrecords_schema.storage import finding, paths

_RETRIED = "read"  # the stage whose rejects a later run tries again


def with_version(item: Item) -> Item:
    """The image with what its file is now: local ones that only a table names were not looked at when it was listed."""
    if item.version or item.problem or not paths.is_local(item.uri):
        return item
    version = finding.version(item.uri)
    if version or os.path.lexists(item.uri) or is_inside_a_file(item.uri):
        return dataclasses.replace(item, version=version)
    return dataclasses.replace(item, problem=ImageError("read", "Absent", "no such file"))


def overlap(prints: list[bytes]) -> Callable[[Sidecar], int]:
    """How many of these images a shard has."""
    return lambda sidecar: len(sidecar.kept_rows().keys() & set(prints))


_Kept = tuple[list[Item], dict[int, int], list[Reject]]


def kept(items: list[Item], prints: list[bytes], earlier: Sidecar | None) -> _Kept:
    """(images to be made, of these the rows that are kept, rejects that are kept)."""
    usable = [(key, item) for key, item in zip(prints, items, strict=True) if not item.problem]
    if earlier is None:
        return [item for _, item in usable], {}, []
    rows, rejects = earlier.kept_rows(), _kept_rejects(earlier)
    # Without a version nobody knows whether the file is another by now.
    failed = {
        item.position: dataclasses.replace(rejects[key].popleft(), image_id=item.id, image_uri=item.uri)
        for key, item in usable
        if item.version and rejects.get(key)
    }
    found = {item.position: rows[key] for key, item in usable if key in rows}
    return [item for _, item in usable if item.position not in failed], found, list(failed.values())


def in_order(items: list[Item], rejects: list[Reject]) -> list[Reject]:
    """The rejects in the order of their images; one whose image goes by another name by now takes a free place."""
    waiting: dict[tuple[str, str], list[Reject]] = collections.defaultdict(list)
    for reject in reversed(rejects):
        waiting[reject.image_id, reject.image_uri].append(reject)
    mine = [waiting[key].pop() if (key := (item.id, item.uri)) in waiting and waiting[key] else None for item in items]
    others = itertools.chain.from_iterable(waiting.values())
    return [reject or next(others) for reject in mine]


def _kept_rejects(sidecar: Sidecar) -> dict[bytes, collections.deque[Reject]]:
    """Rejects of the images themselves, which are the same again; those that could not be read are not."""
    return {
        key: kept
        for key, found in sidecar.rejected().items()
        if (kept := collections.deque(r for r in found if r.stage in ("decode", "extract")))
    }


def retried(sidecar: Sidecar, items: Sequence[Item]) -> list[Item]:
    """The images among `items` that an earlier run could not read."""
    failed = {(reject.image_id, reject.image_uri) for reject in sidecar.rejects if reject.stage == _RETRIED}
    to_read = (item for item in items if item.problem is None or item.problem.stage == _RETRIED)
    return [item for item in to_read if (printable(item.id), printable(item.uri)) in failed]
