"""The shards of a split under names that all end alike, so that one pattern says them.

A rerun puts what it changes beside what is there, as `train-00001-of-00008-b.tfrecord`, and leaves the other shards
under the names they had. Readers that go by a pattern, as TensorFlow Datasets does, could not find them all.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import shutil
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipelines.output import sidecars
from pipelines.output.sidecars import ShardResult
from tfrecords_schema import shards
from tfrecords_schema.storage import files, finding, paths

_THREADS = 16


def alike(directory: str, split: Sequence[ShardResult]) -> list[ShardResult]:
    """The shards of a split that are in a local directory, those with other endings under further names too.

    Files get a second name and stay one; their old names are left to whoever reads by them. In an object store, where
    that would be a copy of each, all stay as they are.
    """
    ends = collections.Counter(shards.ending_of(result.name) for result in split)
    if len(ends) < 2 or paths.is_remote(directory):
        return list(split)
    there = set(finding.names(directory))
    for ending in sorted(shards.ENDINGS, key=lambda ending: -ends[ending]):  # of those that none has, the first
        names = [shards.with_ending(result.name, ending) for result in split]
        if all(map(functools.partial(_may_have, directory, there), split, names)):
            with ThreadPoolExecutor(_THREADS) as pool:
                return list(pool.map(functools.partial(_under, directory), split, names))
    return list(split)


def _may_have(directory: str, there: Container[str], result: ShardResult, name: str) -> bool:
    """Whether a shard has this name, or can get it without taking it from a file that is there."""
    if name == result.name:
        return name in there  # it is not when this is done again and its old name has been deleted
    return name not in there or _has(directory, result, name)


def _has(directory: str, result: ShardResult, name: str) -> bool:
    """Whether a shard has this name too, since publishing was begun before."""
    found = sidecars.read_finished(directory, name)
    return found is not None and found.result.sha256 == result.sha256


def _under(directory: str, result: ShardResult, name: str) -> ShardResult:
    """The shard under this name, with its sidecar."""
    renamed = dataclasses.replace(result, name=name)
    if name != result.name and not _has(directory, result, name):
        sidecar = sidecars.read(directory, result.name)
        if sidecar is None:
            raise FileNotFoundError(f"{directory}: expected what {result.name} was made of, found nothing")
        _link(directory, result.name, name)
        sidecars.write(directory, dataclasses.replace(sidecar, result=renamed))
    return renamed


def _link(directory: str, old: str, new: str) -> None:
    source, target = paths.join(directory, old), paths.join(directory, new)
    try:
        os.link(source, target)
    except OSError:  # this file system has no second names
        with files.replacing(directory, new) as handle, files.open_binary(source) as given:
            shutil.copyfileobj(given, handle)
