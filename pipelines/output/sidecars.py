"""What a shard was made of, image by image, kept beside it, so that a later run computes only what is new."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import msgspec

from pipelines.items import Item, Reject
from pipelines.output import places
from tfrecords_schema.manifests import typed_json
from tfrecords_schema.manifests.typed_json import Count
from tfrecords_schema.storage import files, paths

_RESULT = b"result"  # key of the file's metadata
_REJECT = [field.name for field in dataclasses.fields(Reject)]


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What became of one shard.

    Attributes:
      made_from: digest of everything that its content follows from.
      sha256: of the file.
      left: whether the file is an earlier run's as it was.
      kept: how many of its images an earlier run computed; `retried`, how many it could not read were tried again.
      captions_cut: how many of its captions were too long.
      run: the run that made it; an engine may ask for a shard twice in one, when a worker has died.
      seconds: that it took, loading not counted; zero where an earlier run made all of it.
      stage_seconds: of its stages, summed over threads.
    """

    name: str
    made_from: str
    sha256: str
    inputs: Count
    records: Count
    captions: Count
    bytes: Count
    rejects: Count
    captions_cut: Count = 0
    left: bool = False
    kept: Count = 0
    retried: Count = 0
    run: str = ""
    seconds: float = 0.0
    load_seconds: float = 0.0
    stage_seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def reused(self, retried: int) -> ShardResult:
        """The result of a shard that this run kept: made at no cost, but for images that were tried again."""
        costs: dict[str, Any] = {"seconds": 0.0, "load_seconds": 0.0, "stage_seconds": {}}
        return dataclasses.replace(self, left=True, kept=self.inputs - retried, retried=retried, **costs)


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """A shard's result and, for each of its images in order, what it was made of and what became of it.

    Attributes:
      prints: fingerprints of all that an image's record follows from.
      rows: the place of its record in the shard's file; None for a reject.
      rejects: of those, in order.
    """

    result: ShardResult
    prints: list[bytes]
    rows: list[int | None]
    rejects: list[Reject]

    def check(self, shard: str) -> None:
        """Raises ValueError where this is not of a whole shard of this name."""
        result, rows = self.result, [row for row in self.rows if row is not None]
        counts = len(self.rows), len(rows), len(self.rejects)
        if result.name != shard or counts != (result.inputs, result.records, result.rejects):
            raise ValueError(f"{shard}: its sidecar is of another shard")
        if sorted(rows) != list(range(len(rows))) or None in self.prints:
            raise ValueError(f"{shard}: its sidecar is damaged")

    def kept_rows(self) -> dict[bytes, int]:
        """Where the record of a fingerprint is."""
        return {key: row for key, row in zip(self.prints, self.rows, strict=True) if row is not None}

    def rejected(self) -> dict[bytes, collections.deque[Reject]]:
        """The rejects of a fingerprint."""
        found: dict[bytes, collections.deque[Reject]] = collections.defaultdict(collections.deque)
        remaining = iter(self.rejects)
        for key, row in zip(self.prints, self.rows, strict=True):
            if row is None:
                found[key].append(next(remaining))
        return found


def fingerprint(options: str, item: Item, captions: bool) -> bytes:
    """16 bytes that change with whatever an image's record follows from; `options` are those, as text."""
    problem = item.problem.args if item.problem else None
    told: tuple[Any, ...] = options, item.id, item.version or f"at {item.uri}", problem, item.metadata
    if captions:
        told += (item.uri, item.captions)
    return hashlib.blake2b(repr(told).encode(), digest_size=16).digest()


def digest(options: str, prints: Iterable[bytes]) -> str:
    """The digest of everything that a shard's content follows from."""
    found = hashlib.sha256(options.encode())
    for one in prints:
        found.update(one)
    return found.hexdigest()


def name_of(shard: str) -> str:
    """The sidecar of a shard, below the output directory."""
    return paths.join(places.SIDECARS, f"{shard}.parquet")


def _schema():
    import pyarrow as pa

    return pa.schema([("print", pa.binary(16)), ("row", pa.int32()), *((name, pa.string()) for name in _REJECT)])


def write(directory: str, sidecar: Sidecar) -> None:
    """Records a shard that is finished."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    remaining = iter(sidecar.rejects)
    rejects: list[dict[str, str] | None] = [
        None if row is not None else next(remaining).printable() for row in sidecar.rows
    ]
    columns = [sidecar.prints, sidecar.rows, *([r and r[name] for r in rejects] for name in _REJECT)]
    table = pa.table(
        [pa.array(values, field.type) for values, field in zip(columns, _schema(), strict=True)], _schema()
    )
    table = table.replace_schema_metadata({_RESULT: json.dumps(dataclasses.asdict(sidecar.result))})
    with files.replacing(directory, name_of(sidecar.result.name)) as handle:
        pq.write_table(table, handle, compression="zstd", write_statistics=False)


def read(directory: str, shard: str) -> Sidecar | None:
    """What `write` wrote; None where there is none, or a damaged one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = files.read_if_there(paths.join(directory, name_of(shard)))
    if content is None:
        return None
    try:
        table = pq.read_table(io.BytesIO(content))
        result = typed_json.decode((table.schema.metadata or {})[_RESULT].decode("utf-8"), ShardResult, shard)
        table = table.cast(_schema())
        rejects = table.select(_REJECT).filter(table["row"].is_null())
        found = Sidecar(result, table["print"].to_pylist(), table["row"].to_pylist(), _rejects(rejects.to_pylist()))
        found.check(shard)
    except (KeyError, OSError, ValueError, pa.ArrowException):  # OSError is of Arrow, which has it all in memory
        return None
    return found


def _rejects(rows: list[dict[str, Any]]) -> list[Reject]:
    return msgspec.convert(rows, list[Reject])


def read_finished(directory: str, shard: str) -> Sidecar | None:
    """A shard's sidecar, if the shard's file is there, and whole."""
    found = read(directory, shard)
    return found if found and files.size(places.path_of(directory, shard)) == found.result.bytes else None


def write_shard_list(results: Sequence[ShardResult], handle: BinaryIO | io.RawIOBase) -> None:
    """Writes the list of all shards as Parquet, a row each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [dataclasses.asdict(result) for result in results]
    seconds = {"stage_seconds": pa.array([list(r["stage_seconds"].items()) for r in rows], _seconds_type())}
    plain = {f.name: [r[f.name] for r in rows] for f in dataclasses.fields(ShardResult) if f.name not in seconds}
    pq.write_table(pa.table({**plain, **seconds}), handle, compression="zstd")


def _seconds_type():
    import pyarrow as pa

    return pa.map_(pa.string(), pa.float64())
