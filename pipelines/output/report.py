"""report.json: what a run did and what it cost; made at its end, printed, and read by the next run."""

from __future__ import annotations

import collections
import dataclasses
import json
import shlex
import time
from collections.abc import Sequence
from typing import Any

from pipelines.output.sidecars import ShardResult
from tfrecords_schema.caption_table import REPORT
from tfrecords_schema.errors import InputError, RunError
from tfrecords_schema.storage import files, paths

_TOTALS = ("inputs", "records", "captions", "captions_cut", "rejects", "bytes")


class RejectsError(RunError):
    """The run is complete, but too many images were rejected."""


def make_report(
    by_prefix: dict[str, list[ShardResult]],
    options: dict[str, Any],
    started: float,
    reasons: dict[str, collections.Counter],
    following: Sequence[str],
) -> dict[str, Any]:
    """The content of report.json: plain JSON values. See `lifecycle.complete` for the arguments."""
    results = [result for made in by_prefix.values() for result in made]
    extracted = [result for result in results if not result.kept]
    kept = collections.Counter(result.kept for result in results)
    making = sum(result.seconds for result in extracted)
    stages: collections.Counter[str] = collections.Counter()
    for result in results:
        stages.update(result.stage_seconds)
    return {
        **_totals(results),
        "splits": {
            prefix: {**_totals(made), "reject_reasons": dict(reasons[prefix].most_common())}
            for prefix, made in by_prefix.items()
        },
        "reject_reasons": dict(sum(reasons.values(), collections.Counter()).most_common()),
        "shards": len(results),
        "shards_reused": kept["shard"],
        "shards_with_features_kept": kept["features"],
        "seconds": time.time() - started,
        "load_seconds": max((result.load_seconds for result in results), default=0.0),
        # Of one worker, while it makes shards: without start-up, and not the sum over workers.
        "images_per_second_per_worker": sum(result.inputs for result in extracted) / making if making else None,
        "stage_seconds": {stage: round(seconds, 3) for stage, seconds in stages.items()},  # summed over threads
        "options": options,
        "next_command": shlex.join(following),
        "shard_list": [dataclasses.asdict(result) for result in results],
    }


def _totals(results: list[ShardResult]) -> dict[str, int]:
    return {key: sum(getattr(result, key) for result in results) for key in _TOTALS}


def read_report(directory: str) -> dict[str, Any] | None:
    """The report of a complete output, its shard list as ShardResults; None where there is none.

    Raises:
      InputError: it is somebody else's file.
    """
    path = paths.join(directory, REPORT)
    text = files.read_text(path)
    if text is None:
        return None
    try:
        report = json.loads(text)
        results = [ShardResult(**entry) for entry in report["shard_list"]]
        return {**report, "options": dict(report["options"]), "shard_list": results}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"--output: {path} was not written by this program; give another --output") from None


def summarise(directory: str, max_reject_fraction: float) -> dict[str, Any]:
    """Prints what report.json says; returns it.

    Raises:
      RejectsError: more than `max_reject_fraction` of the images were rejected.
    """
    report = json.loads(files.read_bytes(paths.join(directory, REPORT)))
    rate = report["images_per_second_per_worker"]
    lines = [("images", f"{report['inputs']:,} = {report['records']:,} used + {report['rejects']:,} rejected")]
    if len(report["splits"]) > 1:
        lines += [(f"  {name}", f"{s['records']:,} + {s['rejects']:,}") for name, s in report["splits"].items()]
    lines += [(f"  {reason}", f"{count:,}") for reason, count in report["reject_reasons"].items()]
    stages = ", ".join(f"{stage} {seconds:,.1f}" for stage, seconds in report["stage_seconds"].items())
    lines += [
        ("captions", _captions(report)),
        ("shards", _shards(report)),
        ("time", f"{report['seconds']:.1f} s" + (f", {rate:.1f} images/s a worker" if rate else "")),
        *([("  by stage", f"{stages} (seconds, summed over threads)")] if stages else []),
        ("output", f"{directory} ({report['bytes'] / 1e6:,.1f} MB)"),
        ("next", report["next_command"]),
    ]
    for name, value in lines:
        print(f"{name:<24}{value}" if name.startswith("  ") else f"{name:<12}{value}")
    share = report["rejects"] / report["inputs"]
    if share > max_reject_fraction:
        raise RejectsError(
            f"{share:.1%} of the images were rejected, more than --max_reject_fraction {max_reject_fraction:.1%}; "
            f"the output is complete, see {paths.join(directory, 'rejects')}"
        )
    return report


def _captions(report: dict[str, Any]) -> str:
    text = f"{report['captions']:,}"
    if cut := report["captions_cut"]:
        text += f", {cut:,} cut to --max_caption_length {report['options']['max_caption_length']}"
    return text


def _shards(report: dict[str, Any]) -> str:
    text = f"{report['shards']:,}"
    if report["shards_reused"]:
        text += f", {report['shards_reused']:,} left as an earlier run made them"
    if report["shards_with_features_kept"]:
        text += f", {report['shards_with_features_kept']:,} written anew with the features of an earlier run"
    return text
