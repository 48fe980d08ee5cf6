"""report.json: what a run did and what it cost; made at its end, printed, and read by the next run."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.output import places, rejects
from pipelines.output.names import Names, all_there, rejects_table
from pipelines.output.sidecars import ShardResult
from tfrecords_schema import shards
from tfrecords_schema.errors import InputError, RunError
from tfrecords_schema.manifests import typed_json
from tfrecords_schema.manifests.caption_table import REPORT, SHARD_LIST
from tfrecords_schema.manifests.typed_json import Count
from tfrecords_schema.storage import files, finding, paths
from tfrecords_schema.text import on_screen, shortened

_REJECTS_SHOWN = 10
_MESSAGE = 200  # letters of a reject's message, in an error's
_TOTALS = ("inputs", "records", "captions", "captions_cut", "rejects", "bytes", "kept", "retried")


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """What became of the images of a split, or of all: sums over the shards, see ShardResult."""

    inputs: Count
    records: Count
    captions: Count
    captions_cut: Count
    rejects: Count
    bytes: Count
    kept: Count
    retried: Count
    reject_reasons: dict[str, Count]


@dataclasses.dataclass(frozen=True)
class Report(SplitReport):
    """The whole of report.json.

    Attributes:
      new: images that no earlier run knew.
      shards_left: how many of the shards are an earlier run's as they were.
      images_per_second_per_worker: while it makes shards, without start-up; None where nothing was computed.
      stage_seconds: summed over threads.
      options: what the output follows from, see `lifecycle.Options`.
      files: of `Names.roles`, the name of each.
    """

    new: int
    splits: dict[str, SplitReport]
    shards: Count
    shards_left: Count
    seconds: float
    load_seconds: float
    images_per_second_per_worker: float | None
    stage_seconds: dict[str, float]
    options: dict[str, Any]
    next_command: str
    files: dict[str, str]

    def dumps(self) -> str:
        """The report as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


class RejectsError(RunError):
    """The run is complete, but too many images were rejected."""


def make_report(
    by_prefix: dict[str, list[ShardResult]],
    options: dict[str, Any],
    started: float,
    reasons: dict[str, collections.Counter],
    following: Sequence[str],
    names: dict[str, str],
) -> Report:
    """The content of report.json. See `publishing.publish` for the arguments."""
    results = [result for made in by_prefix.values() for result in made]
    making = sum(result.seconds for result in results)
    totals = totals_of(results)
    stages: collections.Counter[str] = collections.Counter()
    for result in results:
        stages.update(result.stage_seconds)
    has_computed = bool(totals["records"] and sum(stages.values()))  # images that are not there take no time
    return Report(
        **totals,
        new=totals["inputs"] - totals["kept"] - totals["retried"],
        splits={
            prefix: SplitReport(**totals_of(made), reject_reasons=dict(reasons[prefix].most_common()))
            for prefix, made in by_prefix.items()
        },
        reject_reasons=dict(sum(reasons.values(), collections.Counter()).most_common()),
        shards=len(results),
        shards_left=sum(result.left for result in results),
        seconds=time.time() - started,
        load_seconds=max((result.load_seconds for result in results), default=0.0),
        images_per_second_per_worker=(totals["inputs"] - totals["kept"]) / making if has_computed else None,
        stage_seconds={stage: round(seconds, 3) for stage, seconds in stages.items()},
        options=options,
        next_command=shlex.join(following),
        files=names,
    )


def totals_of(results: Sequence[ShardResult]) -> dict[str, int]:
    """What is counted of shards, summed over them, by name."""
    return {key: sum(getattr(result, key) for result in results) for key in _TOTALS}


def read_report(directory: str, names: Names, overwrite: bool = False) -> tuple[Report, list[str] | None] | None:
    """The report of a complete output, and the names of its shards; None where there is none.

    The names are None where the list of them is lost or damaged.

    Raises:
      InputError: it is somebody else's file or another pipeline's, or, unless it is to be overwritten, another
        version's or damaged.
    """
    path, text, report = paths.join(directory, REPORT), None, None
    try:
        text = files.read_text(path)
        if text is None:
            return None
        report = typed_json.decode(text, Report, path)
        if wrong := [role for role in names.roles() if not shards.is_named(report.files.get(role, role), role)]:
            raise ValueError(wrong[0])
    except ValueError:
        # What is not even JSON may have been ours before it was damaged; other JSON is somebody else's.
        is_damaged = not _is_json(text or "") and bool(finding.names(paths.join(directory, places.SIDECARS)))
        if not is_damaged and '"next_command"' not in (text or ""):
            raise InputError(f"--output: {path} was not written by this program; give another --output") from None
        if overwrite:
            return None
        raise InputError(
            f"--output: {path} is damaged, or was written by another version of this program; give --overwrite or "
            "another --output"
        ) from None
    if others := report.splits.keys() - set(names.prefixes):
        raise InputError(
            f"--output: {path} belongs to another command's output: it has {min(others)[:100]!r}; give another --output"
        )
    return report, _shard_names(paths.join(directory, report.files.get(SHARD_LIST, SHARD_LIST)), names)


def _is_json(text: str) -> bool:
    with contextlib.suppress(ValueError):
        typed_json.decode(text, Any, REPORT)
        return True
    return False


def _shard_names(path: str, names: Names) -> list[str] | None:
    """What a list of shards says, if it can be what a run has written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = files.read_if_there(path)
    try:
        found = pq.read_table(io.BytesIO(content or b""), columns=["name"])["name"].to_pylist()
    except (KeyError, OSError, ValueError, pa.ArrowException):
        return None
    is_ours = all(isinstance(name, str) and names.is_shard(name) for name in found)
    return found if is_ours and len(all_there(found)) == len(found) else None


def summarise(
    directory: str, max_reject_fraction: float, print_examples: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Prints what report.json says; returns it.

    Args:
      print_examples: prints some of what is in the directory.

    Raises:
      RejectsError: more than `max_reject_fraction` of the images were rejected.
    """
    path = paths.join(directory, REPORT)
    report = dataclasses.asdict(typed_json.decode(files.read_text(path) or "", Report, path))
    rate = report["images_per_second_per_worker"]
    lines = [("images", f"{report['inputs']:,} = {report['records']:,} used + {report['rejects']:,} rejected")]
    if len(report["splits"]) > 1:
        lines += [(f"  {name}", f"{s['records']:,} + {s['rejects']:,}") for name, s in report["splits"].items()]
    if report["kept"] or report["retried"]:
        lines.append(("  of these", "{kept:,} kept, {new:,} new, {retried:,} tried again".format(**report)))
    lines += [(f"  {reason}", f"{count:,}") for reason, count in report["reject_reasons"].items()]
    stages = ", ".join(f"{stage} {seconds:,.1f}" for stage, seconds in report["stage_seconds"].items())
    lines += [
        ("captions", _captions(report)),
        (
            "shards",
            "{shards:,}, {shards_left:,} left as they were".format(**report).removesuffix(", 0 left as they were"),
        ),
        ("time", f"{report['seconds']:.1f} s" + (f", {rate:.1f} images/s a worker" if rate else "")),
        *([("  by stage", f"{stages} (seconds, summed over threads)")] if stages else []),
        ("output", f"{directory} ({report['bytes'] / 1e6:,.1f} MB)"),
        *_splits(report),
        *([("next", report["next_command"])] if report["records"] else []),
    ]
    for name, value in lines:
        print(on_screen(f"{name:<24}{value}" if name.startswith("  ") else f"{name:<12}{value}"))
    if print_examples:
        print_examples(directory)
    if report["rejects"]:
        _tell_rejects(directory, report, max_reject_fraction)
    return report


def _captions(report: dict[str, Any]) -> str:
    text = f"{report['captions']:,}"
    if cut := report["captions_cut"]:
        text += f", {cut:,} cut to --max_caption_length {report['options']['max_caption_length']}"
    return text


def _splits(report: dict[str, Any]) -> list[tuple[str, str]]:
    """What is said of records to train on, where there are none to validate with."""
    splits = report["splits"]
    if "train" not in splits or "val" in splits or not (count := splits["train"]["records"]):
        return []
    told = "no image is for validation" if len(splits) > 1 else f"all {count:,} images are for training"
    way = "a larger --val_fraction" if report["options"].get("val_fraction") else "--val_fraction 0.1"
    return [("splits", f"{told}; {way} --update holds some out")]


def _tell_rejects(directory: str, report: dict[str, Any], max_reject_fraction: float) -> None:
    """Prints the first rejects, reading no more than these; raises RejectsError where there are too many."""
    tables = [
        paths.join(directory, report["files"][rejects_table(prefix)])
        for prefix, split in report["splits"].items()
        if split["rejects"]
    ]
    where = tables[0] if len(tables) == 1 else paths.join(directory, "rejects")
    found = rejects.read_first(tables, _REJECTS_SHOWN)
    for line in rejects.lines(found, report["rejects"], where):
        print(on_screen(line))
    sys.stdout.flush()
    count, share = report["rejects"], report["rejects"] / report["inputs"]
    if share <= max_reject_fraction:
        return
    told = ""
    if found and not report["records"]:
        first = found[0]
        told = f"; the first: {first.stage}/{first.error}: {first.image_uri}: {shortened(first.message, _MESSAGE)}"
    raise RejectsError(
        f"{count:,} of {report['inputs']:,} images ({share:.1%}) were rejected, more than --max_reject_fraction "
        f"{max_reject_fraction:g} allows, so the exit status is 1{told}; the output is complete, the rejects are in "
        f"{where}"
    )
