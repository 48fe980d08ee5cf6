"""Images -> Parquet rows with n-best captions (`python -m pipelines.caption`)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from pipelines import cli
from pipelines.images import MAX_PIXELS
from pipelines.networks import PRECISIONS
from tfrecords_schema.errors import ArgumentParser, InputError


def parser() -> ArgumentParser:
    """The command line."""
    p = ArgumentParser(
        prog="python -m pipelines.caption",
        description="Caption images with beam search and write Parquet.",
        epilog="Any other flag goes to Beam, for example --runner=DataflowRunner.",
    )
    p.add_argument("--images", required=True, nargs="+", metavar="GLOB", help="patterns; quote them: 'photos/**.jpg'")
    p.add_argument("--model", required=True, metavar="DIR", help="export directory of the trainer")
    p.add_argument("--output", required=True, metavar="DIR", help="directory to write captions-*.parquet to")
    p.add_argument(
        "--weights",
        metavar="imagenet|random|FILE",
        help="of the feature extractor; by default what the model was trained on, where that can be found again",
    )
    p.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of the forward pass (default: as the model's features were made)",
    )
    p.add_argument(
        "--beam_width", type=cli.positive, help="captions searched for, and given, per image (default: as validated)"
    )
    p.add_argument("--max_length", type=cli.positive, help="ids in a caption, with START and END (default: as trained)")
    p.add_argument("--length_penalty", type=float, help="larger favours longer captions (default: as validated)")
    cli.add_common_flags(p, per_shard="rows_per_file")
    cli.take_defaults(p, run)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-images`."""
    args, beam_args = parser().parse_known_args(argv)
    cli.run_command(run, **vars(args), beam_args=beam_args)


def run(
    *,
    images: Sequence[str],
    model: str,
    output: str,
    weights: str | None = None,
    beam_width: int | None = None,
    max_length: int | None = None,
    length_penalty: float | None = None,
    batch_size: int = 16,
    rows_per_file: int = 1000,
    read_threads: int = 16,
    max_pixels: int = MAX_PIXELS,
    max_reject_fraction: float = 0.05,
    precision: str | None = None,
    accelerator: str | None = None,
    overwrite: bool = False,
    beam_args: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes a caption table; returns the content of its report.json. Arguments are the command's flags.

    Raises:
      InputError: a flag, a file or the model does not fit; nothing was written.
      report.RejectsError: too many images were rejected; the output is complete.
    """
    started = time.time()
    import apache_beam as beam

    from pipelines import captioner, extractors, manifest, sharding, sources
    from pipelines.reading import Reading
    from pipelines.report import summarise
    from pipelines.rows import RowMaker
    from tfrecords_schema.shards import shard_count

    beam_options = cli.pipeline_options(beam_args)
    beam_runner = cli.runner(beam_options)
    cli.require_filesystems(output=output, model=model)
    for pattern in images:
        cli.require_filesystems(images=pattern)
    info, _ = captioner.open_model(model)
    search = captioner.Search(
        int(info.search["beam_width"]) if beam_width is None else beam_width,
        info.max_caption_length if max_length is None else max_length,
        float(info.search["length_penalty"]) if length_penalty is None else length_penalty,
    )
    weights = _weights(weights, info.features)
    extractor = extractors.of_spec(info.features, weights, batch_size, precision)
    spec = extractor.spec(info.features.dtype)
    spec.require_same(info.features, mine=f"--weights {weights}", theirs=f"--model {model}")
    source = sources.ImageGlob(tuple(images), excluding=output)
    counts = source.count()
    options = manifest.Options(
        image={"weights": spec.weights_digest, "precision": spec.precision, "max_pixels": max_pixels},
        other={
            "model": info.digest,
            **dataclasses.asdict(search),
            "rows_per_file": rows_per_file,
            "images": list(images),
        },
    )
    maker = RowMaker(
        extractor=extractor,
        captioner=captioner.Captioner(model, search),
        reading=Reading(read_threads, max_pixels),
        dtype=info.features.dtype,
        metadata={"model_digest": info.digest},
    )
    process = sharding.ProcessShard(maker, output, options.every, options.image)
    shards = {split: shard_count(count, rows_per_file) for split, count in counts.items()}
    with manifest.begin(output, options, ["captions"], maker.suffix, overwrite=overwrite):
        pipeline = beam.Pipeline(runner=beam_runner, options=beam_options)
        _ = (
            pipeline
            | sharding.ReadSource(source)
            | sharding.KeyByShard(shards, maker.suffix)
            | sharding.MakeShards(process, accelerator)
            | sharding.Finish(Publish(output, options.every, counts, started))
        )
        cli.run_pipeline(pipeline, output, sum(counts.values()))
    return summarise(output, max_reject_fraction)


def _weights(given: str | None, expected: Any) -> str:
    """The weights to load: those asked for, else those the model's features were made with.

    Raises:
      InputError: the model's were a file, which only the user can find again.
    """
    if given is None and expected.weights not in ("imagenet", "random"):
        kind = "SavedModel directory" if expected.extractor == "saved_model" else "file"
        raise InputError(
            f"--weights: expected the {kind} {expected.weights!r} (digest {expected.weights_digest[:12]}…) that the "
            "model's features were made with, found no flag; give --weights FILE"
        )
    return given or expected.weights


@dataclasses.dataclass(frozen=True)
class Publish:
    """The pipeline's last step: rejects and report beside the shards."""

    output: str
    options: dict[str, Any]
    counts: dict[str, int]
    started: float

    def __call__(self, results: list) -> None:
        from pipelines import manifest

        command = ("python", "-m", "pipelines.gallery")
        following = (*command, "--captions", self.output, "--contact_sheet", "gallery.png")
        manifest.complete(self.output, results, self.options, self.counts, self.started, {}, following)


if __name__ == "__main__":
    # Under its own name and not __main__'s, so that worker processes find the classes where they are.
    from pipelines.caption import main as main_by_name

    main_by_name()
