"""How a pipeline runs: what both pipelines' command lines have in common."""

from __future__ import annotations

import dataclasses

from pipelines.vision.images import MAX_PIXELS
from tfrecords_schema.command import Settings, setting
from tfrecords_schema.storage.faults import READ_RETRIES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running(Settings):
    """Sizes, limits and devices; none of them changes what is computed, but for which images are rejected."""

    batch_size: int = setting("images in a forward pass", 16, least=1, most=10_000)
    read_threads: int = setting("threads that read and decode", 16, least=1, most=1000)
    read_retries: int = setting(
        "of images after passing faults; by default for a minute", READ_RETRIES, least=0, most=1000
    )
    max_pixels: int = setting(
        "larger images are rejected unread; decoding takes up to 30 bytes a pixel, mostly 4 to 8", MAX_PIXELS, least=1
    )
    max_reject_fraction: float = setting("the run fails, at its end, above this", 0.05, least=0, most=1)
    accelerator: str | None = setting(
        "Beam's resource hint for workers with GPUs, of the extraction step alone", None, metavar="HINT"
    )
    gpu: str | None = setting("nvidia-l4 and others: one in each Dataflow worker that extracts", None, metavar="NAME")
    overwrite: bool = setting("delete what an earlier run left in --output", False)
