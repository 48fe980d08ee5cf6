"""What a run would do and how long it would take, from captioning a few of its images (`--dry_run`)."""

from __future__ import annotations

import collections
import io
import time
from typing import Any

from pipelines.captions.plan import Plan
from pipelines.captions.rows import RowMaker
from pipelines.clock import StageClock
from pipelines.items import Reject
from pipelines.listing.catalogue import Catalogue
from pipelines.output.progress import LOADING, waiting
from pipelines.output.sharding import ShardJob
from pipelines.vision import devices
from tfrecords_schema.text import on_screen

_SAMPLE = 96  # images; of more, Ctrl-C would be the way to an answer


def estimate(plan: Plan, maker: RowMaker, catalogue: Catalogue, shards: int, output: str) -> dict[str, Any]:
    """Prints what a run would do; returns the figures. Writes nothing.

    Args:
      catalogue: of the images.
      shards: how many there are to be.

    Returns:
      images, bytes (None where no listing tells), files, sample (images tried), sample_rejects by reason,
      load_seconds, images_per_second and seconds (both None where no image of the sample could be used).
    """
    started = time.monotonic()
    with waiting(LOADING):
        loaded = maker.load()
    load_seconds = time.monotonic() - started
    images = catalogue.counts()["captions"]
    items = catalogue.sample(_SAMPLE)
    good = [item for item in items if not item.problem]
    job = ShardJob(good, io.BytesIO(), lambda: loaded, StageClock(), {})
    started = time.monotonic()
    outcomes = list(loaded.make(job))
    seconds = time.monotonic() - started
    rejects = [o for o in outcomes if isinstance(o, Reject)]
    rejects += [item.problem.of(item.id, item.uri) for item in items if item.problem]
    reasons = collections.Counter(f"{reject.stage}/{reject.error}" for reject in rejects)
    rate = len(items) / seconds if reasons.total() < len(items) else None
    found = {
        "images": images,
        "bytes": plan.source.bytes(catalogue),
        "files": shards,
        "sample": len(items),
        "sample_rejects": dict(reasons),
        "load_seconds": load_seconds,
        "images_per_second": rate,
        "seconds": load_seconds + images / rate if rate else None,
    }
    _show(plan, found, output)
    return found


def _show(plan: Plan, found: dict[str, Any], output: str) -> None:
    info, asked = plan.info, plan.model.search.describe()
    size = "" if found["bytes"] is None else f", {found['bytes'] / 1e6:,.1f} MB"
    reasons = ", ".join(f"{name} {count}" for name, count in found["sample_rejects"].items())
    cider = info.metrics.get("cider")
    figures = "" if cider is None else f", CIDEr {cider:.1f} on its validation images"
    if found["seconds"] is None:
        duration = "unknown: none of the sample could be used"
    else:
        duration = f"about {_duration(found['seconds'])} on one worker like this machine ({devices.cores()} cores)"
    lines = [
        ("images", f"{found['images']:,}{size}"),
        ("model", f"{plan.model.directory} (digest {info.digest[:12]}…{figures})"),
        ("features", f"{plan.spec.extractor}, {plan.spec.layer}, weights {plan.spec.weights}"),
        ("search", ", ".join(f"{name} {value}" for name, value in asked.items())),
        ("sample", f"{found['sample']} images, {sum(found['sample_rejects'].values())} rejected {reasons}".rstrip()),
        *([("rate", f"{found['images_per_second']:.1f} images/s")] if found["images_per_second"] else []),
        ("time", duration),
        ("output", f"{found['files']:,} files in {output}; nothing is written by --dry_run"),
    ]
    for name, value in lines:
        print(on_screen(f"{name:<12}{value}"))


def _duration(seconds: float) -> str:
    """A duration as people say it, in its two largest units."""
    parts = [(int(seconds // 86400), "d"), (int(seconds // 3600) % 24, "h"), (int(seconds // 60) % 60, "min")]
    parts.append((round(seconds) % 60, "s"))
    first = next((place for place, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number or unit == "s")
