"""Images -> a table of their captions (`python -m pipelines.caption`)."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines import cli
from pipelines.settings.caption import CaptionConfig
from tfrecords_schema import command, command_line, ending
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import paths
from tfrecords_schema.text import beside, did_you_mean, shortened

ABOUT = {
    "prog": "python -m pipelines.caption",
    "usage": "%(prog)s IMAGE ... --model DIR [flags]\n"
    "       %(prog)s --images PLACE ... --model DIR --output DIR\n"
    "                                   [flags]\n"
    "       %(prog)s --features DIR --model DIR --output DIR\n"
    "                                   [flags]",
    "description": "Caption images. With --output, write a table of Parquet files, for any number of images; run the "
    "same command again to continue a run that was stopped. Without --output, print the captions of a few images.",
    "epilog": cli.BEAM_FLAGS,
    "examples": """
        python -m pipelines.caption demo/unseen/000000500001.jpg \\
          --model demo/train/export
        python -m pipelines.caption --images 'demo/unseen/*.jpg' \\
          --model demo/train/export --output demo/captions-2
        python -m pipelines.caption --features demo/features --split val \\
          --model demo/train/export --output demo/captions-3 --format csv
    """,
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-images`."""
    with cli.command():
        config, left = parse(argv)
        if config.output is not None:
            run(config, left)
        elif run_on_screen(config)["rejects"]:
            sys.exit(1)


def parse(argv: Sequence[str] | None) -> tuple[CaptionConfig, list[str]]:
    """The config, and what is left for Beam. Where captions are printed, without Beam, images need no flag."""
    found, left = command_line.given(CaptionConfig, argv, **ABOUT)
    flagged = next((place for place, word in enumerate(left) if word.startswith("-")), len(left))
    images, beam_args = left[:flagged], left[flagged:]
    if "output" in found and images:
        raise InputError(f"--images: expected it before {shortened(images[0])!r}, since --output is given")
    if "output" not in found and beam_args:
        near = did_you_mean(beam_args[0], command.names(CaptionConfig), "--")
        way = near or "; Beam gets other flags, but only with --output; see --help"
        raise InputError(f"{shortened(beam_args[0])}: not a flag of this command{way}")
    for image in images:
        is_pattern = paths.is_pattern(image) or "{" in image
        if paths.is_local(image) and not is_pattern and not os.path.lexists(paths.absolute(image)):
            raise InputError(f"no file or directory {shortened(image, 200)}")
    if images:
        found["images"] = [*images, *found.get("images", ())]
    return command.make(CaptionConfig, found), beam_args


def run_on_screen(config: CaptionConfig) -> dict[str, int]:
    """Prints captions, and what is wrong with images; returns how many `images` and `rejects` there were.

    Raises:
      InputError: a flag, a file or the model does not fit.
    """
    from pipelines.captions import on_screen
    from pipelines.captions.plan import plan
    from pipelines.output.progress import OPENING, waiting
    from tfrecords_schema.storage.filesystems import require_filesystems

    require_filesystems(**command.places(config))
    with waiting(OPENING):
        planned = plan(config)
    return on_screen.print_captions(planned)


def run(config: CaptionConfig, beam_args: Sequence[str] = ()) -> dict[str, Any]:
    """Writes a caption table; returns the content of its report.json. `beam_args` are flags of Beam's.

    Raises:
      InputError: a flag, a file or the model does not fit; nothing was written.
      report.RejectsError: too many images were rejected; the output is complete.
    """
    started = time.time()
    if config.output is None:
        raise InputError("--output: expected a directory, found none")
    from pipelines.captions import estimate, formats, on_screen
    from pipelines.captions.plan import plan
    from pipelines.captions.rows import RowMaker
    from pipelines.engines.engine import choose
    from pipelines.engines.precision import settle
    from pipelines.engines.running import run_pipeline
    from pipelines.output import lifecycle, sharding, start, steps
    from pipelines.output.names import Names
    from pipelines.output.report import summarise
    from tfrecords_schema.networks.registry import AUTO
    from tfrecords_schema.shards import shard_count

    output, running, table = config.output, config.running, config.table
    engine = choose(beam_args, running.gpu, running.accelerator, command.names(CaptionConfig))
    engine.require_reachable(**command.places(config))
    planned = plan(config)
    with contextlib.ExitStack() as held:
        with start.listed(planned.source) as catalogue:
            counts = catalogue.counts()
            if not counts:
                flag = "features" if config.what.features else "images"
                raise InputError(f"--{flag}: expected images, found a table without any")
            names = Names(["captions"], [RowMaker.suffix, *formats.SUFFIXES.values()], [formats.COCO])
            if config.network.precision == AUTO:
                recorded = lifecycle.recorded(output, names, running.overwrite).get("precision")
                planned = planned.with_precision(
                    lambda extractor, reading: settle(extractor, engine, recorded, catalogue, reading)
                )
            maker = planned.row_maker(catalogue.metadata)
            if config.dry_run:
                lifecycle.check(output, planned.options, names, running.overwrite)
                files = shard_count(counts["captions"], table.rows_per_file)
                return estimate.estimate(planned, maker, catalogue, files, output)
            how = (planned.options, names, table.rows_per_file, started, running.overwrite)
            listing, publication = held.enter_context(start.begin(catalogue, output, *how))
        process = sharding.ProcessShard(maker, listing, planned.options.every, planned.options.every)
        publish = Publish(publication, table.format, maker.schema)
        _ = (
            engine.pipeline
            | steps.EveryShard(listing)
            | steps.MakeShards(process, engine.accelerator)
            | formats.WriteFormats(output, publish.formats)
            | steps.Finish(publish)
        )
        ran = run_pipeline(engine, output, sum(counts.values()))
    return summarise(output, running.max_reject_fraction, on_screen.print_examples) if ran else {}


@dataclasses.dataclass(frozen=True)
class Publish:
    """The pipeline's last step: rejects, a card and report beside the shards."""

    publication: Any
    formats: tuple[str, ...]
    schema: Any

    def __call__(self, results: list) -> Iterator[list[str]]:
        from pipelines.captions import card, formats
        from pipelines.output.publishing import publish

        output, publication = self.publication.directory, self.publication
        named = [formats.file_name(r.name, name) for r in results for name in self.formats if name in formats.SUFFIXES]
        if "coco" in self.formats:
            write = functools.partial(formats.write_coco, results, output)
            named.append(publication.settle(formats.COCO, write))
        command = ("python", "-m", "pipelines.gallery")
        following = (*command, "--captions", output, "--output", beside(output, "gallery.html"))

        def manifests(results: Sequence) -> tuple[dict[str, str], dict[str, str]]:
            return {card.README: card.card(self.schema, results)} if card.may_be_written(output) else {}, {}

        yield from publish(publication, results, following, manifests, beside=named)


program = ending.program(main)

if __name__ == "__main__":
    # Under its own name and not __main__'s, so that worker processes find the classes where they are.
    from pipelines.caption import program

    program()
