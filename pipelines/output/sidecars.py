"""What became of one shard, kept beside it under `.work/` until the output is complete, so that a rerun can tell."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from pipelines.items import Item, Reject
from tfrecords_schema.storage import files, paths


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What became of one shard.

    Attributes:
      made_from: digest of everything that its content follows from.
      images: digest of its images and of how features are made of them.
      sha256: of the file.
      kept: "" if it was made in this run, "shard" if an earlier one made it, "features" if it was written anew with an
        earlier one's features.
      captions_cut: how many of its captions were too long; none where an earlier version made it, which did not count.
      run: the run that made it; an engine may ask for a shard twice in one, when a worker has died.
      seconds: that it took, loading not counted; zero where an earlier run made it.
      stage_seconds: of its stages, summed over threads.
    """

    name: str
    made_from: str
    images: str
    sha256: str
    inputs: int
    records: int
    captions: int
    bytes: int
    rejects: int
    captions_cut: int = 0
    kept: str = ""
    run: str = ""
    seconds: float = 0.0
    load_seconds: float = 0.0
    stage_seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def reused(self) -> ShardResult:
        """The same shard, made at no cost in this run."""
        return dataclasses.replace(self, kept="shard", seconds=0.0, load_seconds=0.0, stage_seconds={})


def shard_digest(options: Any, items: Iterable[Item]) -> str:
    """SHA-256 of options and of what the items say."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for item in items:
        problem = item.problem.args if item.problem else None
        told = [item.id, item.uri, item.version, item.captions, problem]
        digest.update(json.dumps([*told, *map(repr, item.metadata)]).encode())
    return digest.hexdigest()


def sidecar_name(name: str) -> str:
    """The sidecar of a shard, below the output directory."""
    return paths.join(files.WORK, f"{name}.json")


def write_sidecar(directory: str, result: ShardResult, rejects: list[Reject]) -> None:
    """Records a shard that is in place."""
    content = {"result": dataclasses.asdict(result), "rejects": [reject.printable() for reject in rejects]}
    files.write_text(directory, sidecar_name(result.name), json.dumps(content))


def read_sidecar(directory: str, name: str) -> tuple[ShardResult, list[Reject]] | None:
    """What `write_sidecar` wrote; None where there is none."""
    text = files.read_text(paths.join(directory, sidecar_name(name)))
    if text is None:
        return None
    content = json.loads(text)
    return ShardResult(**content["result"]), [Reject(**reject) for reject in content["rejects"]]


def read_finished(directory: str, name: str) -> tuple[ShardResult, list[Reject]] | None:
    """The shard's sidecar, if the shard's file is there, and whole."""
    found = read_sidecar(directory, name)
    return found if found and files.size(paths.join(directory, name)) == found[0].bytes else None
