"""Images -> a table of their captions (`python -m pipelines.caption`)."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from pipelines import cli
from pipelines.vision.images import MAX_PIXELS
from pipelines.vision.networks import PRECISIONS
from tfrecords_schema.errors import ArgumentParser, InputError

FORMATS = ("jsonl", "csv", "coco")
_IMAGES = "quoted patterns ('photos/**.jpg'), directories, zip files; tables (CSV, TSV, JSONL, Parquet); a COCO JSON"


def parser() -> ArgumentParser:
    """The command line."""
    p = ArgumentParser(
        prog="python -m pipelines.caption",
        description="Caption images and write a table of Parquet files.",
        epilog="Any other flag goes to Beam, for example --runner=DataflowRunner.",
    )
    p.add_argument("--model", required=True, metavar="DIR", help="export directory of the trainer")
    p.add_argument("--output", required=True, metavar="DIR", help="directory to write captions-*.parquet to")
    what = p.add_argument_group("what to caption: --images, or --features")
    what.add_argument("--images", nargs="+", metavar="PLACE", help=_IMAGES)
    what.add_argument("--root", nargs="+", metavar="PLACE", help="where names in tables lie (default: beside it)")
    what.add_argument("--uri_column", metavar="NAME", help="of a table, with names or URIs (default: guessed)")
    what.add_argument("--image_column", metavar="NAME", help="of a Parquet table, with the images' bytes")
    what.add_argument("--id_column", metavar="NAME", help="of a table (default: image_id or id, if there is one)")
    what.add_argument(
        "--metadata_columns", nargs="+", metavar="NAME[=NEW]", help="of a table, to be carried along into the output"
    )
    what.add_argument("--features", metavar="DIR", help="output of pipelines.features: captions it without the images")
    what.add_argument("--split", help="of --features (default: all)")
    what.add_argument("--limit", type=cli.positive, metavar="N", help="only the first N images")
    network = p.add_argument_group("the network")
    network.add_argument(
        "--weights",
        metavar="imagenet|random|FILE",
        help="of the feature extractor; by default what the model was trained on, where that can be found again",
    )
    network.add_argument(
        "--precision", choices=PRECISIONS, help="of the forward pass (default: as the model's features were made)"
    )
    _add_search_flags(p.add_argument_group("captions, by beam search or --sample"))
    out = p.add_argument_group("output")
    out.add_argument("--format", nargs="+", choices=FORMATS, help="beside Parquet; coco is COCO's results JSON")
    out.add_argument("--attention", action="store_true", help="a column of where an attention model looked, by word")
    out.add_argument("--capitalise", action="store_true", help="captions begin with a capital letter")
    running = p.add_argument_group("running")
    running.add_argument(
        "--dry_run", action="store_true", help="write nothing; tell what would be done, and how long it would take"
    )
    cli.add_common_flags(running, per_shard="rows_per_file")
    cli.take_defaults(p, run)
    return p


def _add_search_flags(group: Any) -> None:
    group.add_argument("--beam_width", type=cli.positive, help="hypotheses searched (default: as validated)")
    group.add_argument("--captions_per_image", type=cli.positive, help="at most (default: as wide as the beam)")
    group.add_argument(
        "--max_length", type=cli.positive, help="ids in a caption, START and END counted (default: trained)"
    )
    group.add_argument("--min_length", type=cli.positive, help="the same (default: 3, that is a word)")
    group.add_argument("--length_penalty", type=float, help="larger favours longer captions (default: as validated)")
    group.add_argument(
        "--no_repeat_ngram", type=cli.positive, metavar="N", help="never the same N words twice in a caption"
    )
    group.add_argument(
        "--forbid_unk", action=argparse.BooleanOptionalAction, help="never say <unk> for a word (default: never)"
    )
    group.add_argument("--sample", action="store_true", help="draw captions, the same ones whenever it is done again")
    group.add_argument("--temperature", type=float, help="of drawing (default 1); lower is more probable")
    group.add_argument("--top_p", type=float, help="draw from the most probable words of this probability (default 1)")
    group.add_argument("--seed", type=int, help="of drawing (default 0); another one draws other captions")


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-images`."""
    args, beam_args = parser().parse_known_args(argv)
    cli.run_command(run, **vars(args), beam_args=beam_args)


def run(
    *,
    model: str,
    output: str,
    images: Sequence[str] | None = None,
    root: Sequence[str] | None = None,
    uri_column: str | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    metadata_columns: Sequence[str] | None = None,
    features: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    weights: str | None = None,
    precision: str | None = None,
    beam_width: int | None = None,
    captions_per_image: int | None = None,
    max_length: int | None = None,
    min_length: int | None = None,
    length_penalty: float | None = None,
    no_repeat_ngram: int | None = None,
    forbid_unk: bool | None = None,
    sample: bool = False,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    format: Sequence[str] | None = None,
    attention: bool = False,
    capitalise: bool = False,
    dry_run: bool = False,
    batch_size: int = 16,
    rows_per_file: int = 1000,
    read_threads: int = 16,
    max_pixels: int = MAX_PIXELS,
    max_reject_fraction: float = 0.05,
    accelerator: str | None = None,
    gpu: str | None = None,
    overwrite: bool = False,
    beam_args: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes a caption table; returns the content of its report.json. Arguments are the command's flags.

    Raises:
      InputError: a flag, a file or the model does not fit; nothing was written.
      report.RejectsError: too many images were rejected; the output is complete.
    """
    flags = dict(locals())
    started = time.time()
    from pipelines.captions import estimate, formats, plan
    from pipelines.engines.engine import choose
    from pipelines.engines.running import run_pipeline
    from pipelines.output import keys, lifecycle, progress, sharding
    from pipelines.output.report import summarise
    from tfrecords_schema.shards import shard_count

    engine = choose(beam_args, gpu, accelerator)
    engine.require_reachable(output=output, model=model, features=features, images=images, root=root)
    task = plan.plan(flags)
    with progress.waiting(progress.LISTING):
        counts = task.source.count()
    if not counts["captions"]:
        raise InputError(f"--{'features' if features else 'images'}: expected images, found a table without any")
    maker = task.row_maker()
    shards = {prefix: shard_count(count, rows_per_file) for prefix, count in counts.items()}
    names = lifecycle.Names(["captions"], [maker.suffix, *formats.SUFFIXES.values()], [formats.COCO])
    if dry_run:
        lifecycle.check(output, task.options, names, overwrite)
        return estimate.estimate(task, maker, counts["captions"], shards["captions"], output)
    process = sharding.ProcessShard(maker, output, task.options.every, task.options.image)
    publish = Publish(output, task.options.every, counts, started, names, tuple(format or ()))
    with lifecycle.begin(output, task.options, names, overwrite):
        _ = (
            engine.pipeline
            | keys.ReadSource(task.source)
            | keys.KeyByShard(shards, maker.suffix)
            | sharding.MakeShards(process, engine.accelerator)
            | formats.WriteFormats(output, publish.formats)
            | sharding.Finish(publish)
        )
        ran = run_pipeline(engine, output, sum(counts.values()))
    return summarise(output, max_reject_fraction) if ran else {}


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
