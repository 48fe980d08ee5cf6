"""An output directory from its first to its last moment: whose it is, what is in it, what it cost.

`begin` decides what an earlier run left may be built upon; `complete` checks that nothing was lost, and writes what
readers trust. Between the two, `.work/` holds the options and the sidecars of finished shards.
"""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import itertools
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
_OPTIONS = "options.json"
_SHOWN = 80  # characters of a value in a message


def begin(directory: str, options: dict[str, Any], patterns: Sequence[str], overwrite: bool = False) -> None:
    """Makes `directory` ready for a run with `options`, those that shape the result.

    Args:
      patterns: of the names that this pipeline's shards have, "captions-*.parquet".

    Raises:
      InputError: it cannot be written to, or holds what this run must not replace.
    """
    try:
        report = _read_report(directory)
        begun = _begun_options(directory)
        ours = [name for name in files.names(directory) if any(fnmatch.fnmatch(name, p) for p in patterns)]
        if ours and report is None and begun is None:
            raise InputError(
                f"--output: {directory} holds {ours[0]}, but no {REPORT} of a run that made it; give another --output"
            )
        if overwrite and (report or begun):
            prefixes = {pattern.split("-")[0] for pattern in patterns}
            tables = [files.join("rejects", f"{prefix}.parquet") for prefix in prefixes]
            made = [*ours, *tables, REPORT, DATASET_INFO, VOCABULARY, files.WORK]
            files.delete(*(files.join(directory, name) for name in made))
            report = begun = None
        earlier = begun or (report or {}).get("options")
        if earlier is not None and earlier != options:
            raise InputError(_difference(directory, earlier, options))
        if files.is_local(directory):
            os.makedirs(files.join(directory, files.WORK), exist_ok=True)
        work = files.join(directory, files.WORK)
        left = [name for name in files.names(work) if name.endswith((".progress", ".tmp"))]  # by a run that was killed
        files.delete(*(files.join(work, name) for name in left))
        files.write_text(directory, files.join(files.WORK, _OPTIONS), json.dumps(options))
        if report:
            _reopen(directory, report)
    except OSError as error:
        raise InputError(f"--output: expected a directory that can be written to, found {directory}: {error}") from None


def _read_report(directory: str) -> dict[str, Any] | None:
    path = files.join(directory, REPORT)
    text = files.read_text(path)
    if text is None:
        return None
    try:
        report = json.loads(text)
        return {"options": report["options"], "shard_list": [ShardResult(**entry) for entry in report["shard_list"]]}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"--output: {path} was not written by this program; give another --output") from None


def _begun_options(directory: str) -> dict[str, Any] | None:
    """The options of a run that was not completed, if it finished a shard; before that it has nothing to lose."""
    work = files.join(directory, files.WORK)
    if not any(shards.parse_shard_name(name.removesuffix(".json")) for name in files.names(work)):
        return None
    return json.loads(files.read_text(files.join(work, _OPTIONS)) or "{}")


def _difference(directory: str, earlier: dict[str, Any], now: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        text = str(value)
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

    names = sorted(name for name in {*earlier, *now} if earlier.get(name) != now.get(name))
    changes = "; ".join(f"{name} was {shown(earlier.get(name))}, now {shown(now.get(name))}" for name in names)
    return f"--output: {directory} was made with other options ({changes}); give --overwrite, or another --output"


def _reopen(directory: str, report: dict[str, Any]) -> None:
    """Turns a complete output back into finished shards with sidecars: what did not change is not made again.

    The rejects table has the shards' rejects in the order of the shards. Where it is gone, shards with rejects are made
    again.
    """
    for prefix, results in itertools.groupby(report["shard_list"], key=lambda result: _prefix(result.name)):
        table = files.join(directory, "rejects", f"{prefix}.parquet")
        rows = None
        if files.exists(table):
            with files.open_binary(table) as handle:
                rows = iter(rejects.read_parquet(handle))
        for result in results:
            if rows is not None or not result.rejects:
                write_sidecar(directory, result, list(itertools.islice(rows or (), result.rejects)))
    files.delete(*(files.join(directory, name) for name in (DATASET_INFO, REPORT)))


def _prefix(shard_name: str) -> str:
    return shards.parse_shard_name(shard_name)[0]


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
      results: of all shards, by name.
      options: as given to `begin`.
      expected: how many inputs each prefix ("train", "captions") has.
      started: when the run began, `time.time()`.
      texts: further files to write by name, such as dataset_info.json.

    Returns:
      The content of report.json.
    """
    by_prefix = {prefix: [result for result in results if _prefix(result.name) == prefix] for prefix in expected}
    reasons: collections.Counter = collections.Counter()
    for prefix, made in by_prefix.items():
        inputs, rejected = (sum(getattr(r, key) for r in made) for key in ("inputs", "rejects"))
        if inputs != expected[prefix]:
            raise AssertionError(
                f"{prefix}: {expected[prefix]} images were listed, {inputs} found again: did they change?"
            )
        with files.replacing(directory, files.join("rejects", f"{prefix}.parquet")) as handle:
            written = rejects.write_parquet(_counted(_gather(directory, made), reasons), handle)
            if written != rejected:
                raise AssertionError(f"{prefix}: {rejected} images were rejected, {written} are in the sidecars")
    for name, text in texts.items():
        files.write_text(directory, name, text)
    _delete_stale(directory, results)
    report = _report(by_prefix, options, time.time() - started, reasons)
    files.write_text(directory, REPORT, json.dumps(report, indent=2) + "\n")
    files.delete(files.join(directory, files.WORK))
    return report


def _delete_stale(directory: str, results: Sequence[ShardResult]) -> None:
    """Deletes shards of an earlier run with another number of them: names like ours, which `begin` found to be ours."""
    names = {result.name for result in results}
    kinds = {(prefix, suffix) for prefix, _, _, suffix in map(shards.parse_shard_name, names)}
    for name in files.names(directory):
        parsed = shards.parse_shard_name(name)
        if parsed and (parsed[0], parsed[3]) in kinds and name not in names:
            files.delete(files.join(directory, name))


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
