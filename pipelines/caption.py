"""Images -> a table of their captions (`python -m pipelines.caption`)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from pipelines import cli
from pipelines.settings.caption import CaptionConfig
from tfrecords_schema import command
from tfrecords_schema.errors import InputError

ABOUT = {
    "prog": "python -m pipelines.caption",
    "description": "Caption images and write a table of Parquet files.",
    "epilog": cli.BEAM_FLAGS,
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-images`."""
    with cli.command():
        run(*command.parse_known(CaptionConfig, argv, **ABOUT))


def run(config: CaptionConfig, beam_args: Sequence[str] = ()) -> dict[str, Any]:
    """Writes a caption table; returns the content of its report.json. `beam_args` are flags of Beam's.

    Raises:
      InputError: a flag, a file or the model does not fit; nothing was written.
      report.RejectsError: too many images were rejected; the output is complete.
    """
    started = time.time()
    from pipelines.captions import estimate, formats
    from pipelines.captions.plan import plan
    from pipelines.engines.engine import choose
    from pipelines.engines.running import run_pipeline
    from pipelines.output import keys, lifecycle, sharding
    from pipelines.output.progress import LISTING, waiting
    from pipelines.output.report import summarise
    from tfrecords_schema.shards import shard_count

    output, running, table = config.output, config.running, config.table
    engine = choose(beam_args, running.gpu, running.accelerator)
    engine.require_reachable(**command.places(config))
    planned = plan(config)
    with waiting(LISTING):
        counts = planned.source.count()
    if not counts["captions"]:
        flag = "features" if config.what.features else "images"
        raise InputError(f"--{flag}: expected images, found a table without any")
    maker = planned.row_maker()
    shards = {prefix: shard_count(count, table.rows_per_file) for prefix, count in counts.items()}
    names = lifecycle.Names(["captions"], [maker.suffix, *formats.SUFFIXES.values()], [formats.COCO])
    if config.dry_run:
        lifecycle.check(output, planned.options, names, running.overwrite)
        return estimate.estimate(planned, maker, counts["captions"], shards["captions"], output)
    process = sharding.ProcessShard(maker, output, planned.options.every, planned.options.image)
    publish = Publish(output, planned.options.every, counts, started, names, table.format)
    with lifecycle.begin(output, planned.options, names, running.overwrite):
        _ = (
            engine.pipeline
            | keys.ReadSource(planned.source)
            | keys.KeyByShard(shards, maker.suffix)
            | sharding.MakeShards(process, engine.accelerator)
            | formats.WriteFormats(output, publish.formats)
            | sharding.Finish(publish)
        )
        ran = run_pipeline(engine, output, sum(counts.values()))
    return summarise(output, running.max_reject_fraction) if ran else {}


@dataclasses.dataclass(frozen=True)
class Publish:
    """The pipeline's last step: rejects and report beside the shards."""

    output: str
    options: dict[str, Any]
    counts: dict[str, int]
    started: float
    names: Any
    formats: tuple[str, ...]

    def __call__(self, results: list) -> None:
        from pipelines.captions import formats
        from pipelines.output import lifecycle

        if "coco" in self.formats:
            formats.write_coco(results, self.output)
        beside = [formats.file_name(r.name, name) for r in results for name in self.formats if name in formats.SUFFIXES]
        command = ("python", "-m", "pipelines.gallery")
        following = (*command, "--captions", self.output, "--output", "gallery.html")
        lifecycle.complete(
            self.output, results, self.options, self.counts, self.started, {}, following, self.names, beside
        )


if __name__ == "__main__":
    # Under its own name and not __main__'s, so that worker processes find the classes where they are.
    from pipelines.caption import main as main_by_name

    main_by_name()
