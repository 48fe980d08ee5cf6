"""An output directory from its first to its last moment: whose it is, what is in it, what it cost.

`begin` decides what an earlier run left may be built upon; `complete` checks that nothing was lost, and writes what
readers trust. Between the two, `.work/` holds the options and the sidecars of finished shards.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines import files, rejects
from pipelines.sharding import ShardResult, read_sidecar, write_sidecar
from tfrecords_schema import shards
from tfrecords_schema.dataset_info import DATASET_INFO, VOCABULARY
from tfrecords_schema.errors import InputError

REPORT = "report.json"
_OPTIONS = files.join(files.WORK, "options.json")
_SUFFIXES = (".tfrecord", ".parquet")


def begin(directory: str, options: dict[str, Any], overwrite: bool = False) -> None:
    """Makes `directory` ready for a run with `options`, those that shape the result.

    Raises:
      InputError: it cannot be written to, or holds the output of a run with other options.
    """
    try:
        if files.is_local(directory):
            os.makedirs(files.join(directory, files.WORK), exist_ok=True)
        if overwrite:
            _clear(directory)
        report = _read_json(directory, REPORT)
        earlier = _read_json(directory, _OPTIONS) or (report or {}).get("options")
        if earlier is not None and earlier != options:
            raise InputError(_difference(directory, earlier, options))
        files.write_text(directory, _OPTIONS, json.dumps(options))
        if report:
            _reopen(directory, report)
    except OSError as error:
        raise InputError(f"--output: expected a directory that can be written to, found {directory}: {error}") from None


def _read_json(directory: str, name: str) -> Any:
    path = files.join(directory, name)
    text = files.read_text(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        raise InputError(f"{path}: expected JSON, found something else; --overwrite begins anew") from None


def _difference(directory: str, earlier: dict[str, Any], now: dict[str, Any]) -> str:
    names = sorted(name for name in {*earlier, *now} if earlier.get(name) != now.get(name))
    changes = "; ".join(f"{name} was {earlier.get(name)}, now {now.get(name)}" for name in names)
    return f"--output: {directory} was made with other options ({changes}); give --overwrite, or another --output"


def _clear(directory: str) -> None:
    ours = [n for n in files.names(directory) if _is_shard(n) or n in (REPORT, DATASET_INFO, VOCABULARY)]
    files.delete(*(files.join(directory, name) for name in [*ours, files.WORK, "rejects"]))


def _is_shard(name: str) -> bool:
    parsed = shards.parse_shard_name(name)
    return parsed is not None and parsed[3] in _SUFFIXES


def _reopen(directory: str, report: dict[str, Any]) -> None:
    """Turns a complete output back into finished shards with sidecars: a changed input redoes only its own shards."""
    by_shard = collections.defaultdict(list)
    results = [ShardResult(**result) for result in report["shard_list"]]
    counts = {prefix: count for prefix, _, count, _ in (shards.parse_shard_name(result.name) for result in results)}
    for prefix, count in counts.items():
        path = files.join(directory, "rejects", f"{prefix}.parquet")
        with files.open_binary(path) as handle:
            for reject in rejects.read_parquet(handle):
                by_shard[prefix, shards.shard_of(reject.image_id, count)].append(reject)
    for result in results:
        prefix, index, _, _ = shards.parse_shard_name(result.name)
        write_sidecar(directory, result, by_shard[prefix, index])
    files.delete(*(files.join(directory, name) for name in (DATASET_INFO, REPORT)))


def complete(
    directory: str,
    results: Sequence[ShardResult],
    options: dict[str, Any],
    expected: dict[str, int],
    started: float,
    texts: dict[str, str],
) -> dict[str, Any]:
    """Checks and publishes a finished run.

    Args:
      results: of all shards.
      options: as given to `begin`.
      expected: how many inputs each prefix ("train", "captions") has.
      started: when the run began, `time.time()`.
      texts: further files to write by name, such as dataset_info.json.

    Returns:
      The content of report.json.
    """
    by_prefix = collections.defaultdict(list)
    for result in results:
        by_prefix[shards.parse_shard_name(result.name)[0]].append(result)
    reasons: collections.Counter = collections.Counter()
    for prefix, inputs in expected.items():
        made = by_prefix[prefix]
        accounted = sum(r.records + r.rejects for r in made)
        if accounted != inputs:
            raise AssertionError(f"{prefix}: {inputs} images listed, {accounted} records and rejects; run it again")
        with files.replacing(directory, files.join("rejects", f"{prefix}.parquet")) as handle:
            rejects.write_parquet(_counted(_gather(directory, made), reasons), handle)
    for name, text in texts.items():
        files.write_text(directory, name, text)
    names = {result.name for result in results}
    stale = [name for name in files.names(directory) if _is_shard(name) and name not in names]
    files.delete(*(files.join(directory, name) for name in stale))
    report = _report(by_prefix, options, time.time() - started, reasons)
    files.write_text(directory, REPORT, json.dumps(report, indent=2) + "\n")
    files.delete(files.join(directory, files.WORK))
    return report


def _gather(directory: str, results: Iterable[ShardResult]) -> Iterable[rejects.Reject]:
    for result in results:
        if result.rejects:
            yield from read_sidecar(directory, result.name)[1]


def _counted(found: Iterable[rejects.Reject], reasons: collections.Counter) -> Iterable[rejects.Reject]:
    for reject in found:
        reasons[f"{reject.stage}/{reject.error}"] += 1
        yield reject


def _report(by_prefix, options: dict[str, Any], seconds: float, reasons: collections.Counter) -> dict[str, Any]:
    results = [result for made in by_prefix.values() for result in made]
    fresh = [result for result in results if result.seconds]
    totals = ("inputs", "records", "captions", "rejects", "bytes")
    making = sum(result.seconds for result in fresh)
    return {
        **{key: sum(getattr(result, key) for result in results) for key in totals},
        "splits": {
            prefix: {key: sum(getattr(result, key) for result in made) for key in totals}
            for prefix, made in by_prefix.items()
        },
        "reject_reasons": dict(reasons.most_common()),
        "shards": len(results),
        "shards_reused": len(results) - len(fresh),
        "seconds": seconds,
        "load_seconds": max((result.load_seconds for result in fresh), default=0.0),
        # Of one worker, while it makes shards: without start-up, and not the sum over workers.
        "images_per_second_per_worker": sum(result.inputs for result in fresh) / making if making else None,
        "options": options,
        "shard_list": [dataclasses.asdict(result) for result in results],
    }
