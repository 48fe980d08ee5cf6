"""How a pipeline runs: what both pipelines' command lines have in common."""

from __future__ import annotations

import dataclasses

from pipelines.vision.images import MAX_PIXELS
from tfrecords_schema.command import Settings, flags, setting, values
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import paths
from tfrecords_schema.storage.faults import READ_RETRIES

OUTPUT = "output files"  # the section of the help page on them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running(Settings):
    """Sizes, limits and devices; none of them changes what is computed, but for which images are rejected."""

    batch_size: int = setting("images in one forward pass", 16, least=1, most=10_000)
    read_threads: int = setting("threads that read and decode the images of a shard", 16, least=1, most=1000)
    read_retries: int = setting(
        "how often to read an image again after a passing fault; the default takes about a minute",
        READ_RETRIES,
        least=0,
        most=1000,
    )
    max_pixels: int = setting(
        "reject images with more pixels, without decoding them; decoding takes 4 to 8 bytes a pixel, 30 at worst",
        MAX_PIXELS,
        least=1,
    )
    max_reject_fraction: float = setting(
        "let the run fail at its end if more than this share of the images was rejected; the output stays",
        0.05,
        least=0,
        most=1,
    )
    accelerator: str | None = setting(
        "Beam's resource hint for the workers that compute features, such as 'type:nvidia-l4;count:1'",
        None,
        heading="GPUs on clusters",
        metavar="HINT",
    )
    gpu: str | None = setting(
        "GPU, such as nvidia-l4, for each Dataflow worker that computes features", None, metavar="NAME"
    )
    overwrite: bool = setting("delete what an earlier run left in --output, and start again", False, heading=OUTPUT)


def check_output(config: Settings, output: str, *further: str) -> None:
    """Raises InputError where the directory to write is one of the places that images or captions are in.

    Args:
      config: of a command.
      output: the directory to write.
      further: flags of such places besides those that name any number of them.
    """
    given = values(config)
    for name in [flag.name for flag in flags(type(config)) if flag.about.reads == "place"] + [*further]:
        several = isinstance(given[name], tuple)
        for place in given[name] if several else filter(None, [given[name]]):
            if paths.absolute(place) == paths.absolute(output):
                which = f"one of --{name}" if several else f"--{name} too"
                raise InputError(f"--output: {output} is {which}; give a directory of its own")
