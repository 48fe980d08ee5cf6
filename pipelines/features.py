"""COCO images and captions -> TFRecord shards of features and tokenised captions (`python -m pipelines.features`)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from pipelines import cli
from pipelines.images import MAX_PIXELS
from tfrecords_schema.errors import ArgumentParser, InputError


def parser() -> ArgumentParser:
    """The command line."""
    p = ArgumentParser(
        prog="python -m pipelines.features",
        description="Extract Inception-v3 features and tokenise captions into TFRecord shards.",
        epilog="Any other flag goes to Beam, for example --runner=DataflowRunner or --direct_num_workers=2 "
        "--direct_running_mode=multi_processing.",
    )
    p.add_argument("--coco_dir", help="directory with train<year>/, val<year>/ and annotations/captions_*.json")
    p.add_argument("--year", help="of --coco_dir (default %(default)s)")
    for split in ("train", "val"):
        p.add_argument(f"--{split}_images", metavar="DIR", help=f"directory of {split} images, without --coco_dir")
        p.add_argument(f"--{split}_captions", metavar="JSON", help=f"COCO captions of the {split} images")
    p.add_argument("--output", required=True, metavar="DIR", help="feature directory to write")
    p.add_argument("--extractor", metavar="NAME", help="network (default %(default)s)")
    p.add_argument(
        "--weights",
        metavar="imagenet|random|FILE",
        help="imagenet (default; downloaded by Keras), a Keras .h5 file, or random (seeded; for trying out)",
    )
    p.add_argument("--feature_dtype", choices=("float16", "float32"), help="as stored (default %(default)s)")
    p.add_argument("--vocab_size", type=cli.positive, help="ids at most, with the 4 special ones (default %(default)s)")
    p.add_argument("--min_word_count", type=cli.positive, help="rarer words become <unk> (default %(default)s)")
    p.add_argument(
        "--max_caption_length", type=cli.positive, help="ids in a caption, with START and END (default %(default)s)"
    )
    cli.add_common_flags(p, per_shard="records_per_shard")
    cli.take_defaults(p, run)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-features`."""
    args, beam_args = parser().parse_known_args(argv)
    cli.run_command(run, **vars(args), beam_args=beam_args)


def run(
    *,
    output: str,
    coco_dir: str | None = None,
    year: str = "2017",
    train_images: str | None = None,
    train_captions: str | None = None,
    val_images: str | None = None,
    val_captions: str | None = None,
    extractor: str = "inception_v3",
    weights: str = "imagenet",
    feature_dtype: str = "float16",
    vocab_size: int = 10_000,
    min_word_count: int = 4,
    max_caption_length: int = 25,
    batch_size: int = 16,
    records_per_shard: int = 1000,
    read_threads: int = 16,
    max_pixels: int = MAX_PIXELS,
    max_reject_fraction: float = 0.05,
    overwrite: bool = False,
    beam_args: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes a feature directory; returns the content of its report.json. Arguments are the command's flags.

    Raises:
      InputError: a flag or a file does not fit; nothing was written.
      cli.RejectsError: too many images were rejected; the output is complete.
    """
    started = time.time()
    if vocab_size < 5:
        raise InputError(f"--vocab_size: expected at least 5 (the 4 special ids, and a word), found {vocab_size}")
    if max_caption_length < 3:
        raise InputError(f"--max_caption_length: expected at least 3 (START, a word, END), found {max_caption_length}")
    import apache_beam as beam

    from pipelines import extractors, manifest, sharding
    from pipelines.extraction import Reading
    from pipelines.records import RecordMaker
    from pipelines.words import MakeVocabulary
    from tfrecords_schema.shards import shard_count

    beam_options = cli.pipeline_options(beam_args)
    beam_runner = cli.runner(beam_options)
    cli.require_filesystems(
        output=output,
        coco_dir=coco_dir,
        train_images=train_images,
        train_captions=train_captions,
        val_images=val_images,
        val_captions=val_captions,
    )
    sources = _sources(coco_dir, year, train_images, train_captions, val_images, val_captions)
    counts = {split: source.count() for split, source in sources.items()}
    network = extractors.Extractor(extractor, weights, batch_size)
    spec = extractors.feature_spec(extractor, weights, feature_dtype)
    if weights == "random":
        print("WARNING: --weights random is seeded noise, for trying things out: it knows no objects.", flush=True)
    options = {  # weights count by their digest, wherever the file lies
        **{f"feature_{key}": value for key, value in vars(spec).items() if key not in ("weights", "shape")},
        "vocab_size": vocab_size,
        "min_word_count": min_word_count,
        "max_caption_length": max_caption_length,
        "max_pixels": max_pixels,
        "records_per_shard": records_per_shard,
        "sources": {split: dataclasses.asdict(source) for split, source in sources.items()},
    }
    manifest.begin(output, options, [f"{split}-*.tfrecord" for split in sources], overwrite)

    maker = RecordMaker(
        extractor=network,
        reading=Reading(read_threads, max_pixels),
        dtype=feature_dtype,
        max_caption_length=max_caption_length,
    )
    publish = Publish(output, options, counts, started, spec, max_caption_length)
    pipeline = beam.Pipeline(runner=beam_runner, options=beam_options)
    items = {split: pipeline | f"Read_{split}" >> sharding.ReadSource(source) for split, source in sources.items()}
    vocabulary = beam.pvalue.AsSingleton(items["train"] | MakeVocabulary(vocab_size, min_word_count))
    keyed = []
    for split, count in counts.items():
        key_by_shard = sharding.KeyByShard(split, shard_count(count, records_per_shard), maker.suffix)
        keyed.append(items[split] | f"KeyByShard_{split}" >> key_by_shard)
    _ = (
        keyed
        | "AllSplits" >> beam.Flatten()
        | sharding.MakeShards(maker, output, options, vocabulary=vocabulary)
        | sharding.Finish(publish, vocabulary=vocabulary)
    )
    cli.run_pipeline(pipeline, output, sum(counts.values()))
    following = ("python", "-m", "trainer.task", "--data", output, "--job_dir", "JOB_DIR")
    return cli.summarise(output, max_reject_fraction, *following)


def _sources(coco_dir, year, train_images, train_captions, val_images, val_captions) -> dict[str, Any]:
    """The sources of each split. Raises InputError where the flags do not say what to read."""
    from pipelines import files
    from pipelines.sources import CocoCaptions

    given = {
        "--train_images": train_images,
        "--train_captions": train_captions,
        "--val_images": val_images,
        "--val_captions": val_captions,
    }
    if coco_dir:
        if any(given.values()):
            first = next(flag for flag, value in given.items() if value)
            raise InputError(f"{first}: expected either --coco_dir or the four separate flags, found both")
        if not files.exists(coco_dir):
            raise InputError(f"--coco_dir: expected a directory, found none at {coco_dir}")
        return {
            split: CocoCaptions(
                files.join(coco_dir, f"{split}{year}"),
                files.join(coco_dir, "annotations", f"captions_{split}{year}.json"),
            )
            for split in ("train", "val")
        }
    sources = {}
    for split, images, captions in (("train", train_images, train_captions), ("val", val_images, val_captions)):
        if bool(images) != bool(captions):
            raise InputError(f"--{split}_images and --{split}_captions: expected both or neither, found one")
        if images:
            sources[split] = CocoCaptions(images, captions)
    if "train" not in sources:
        raise InputError("--coco_dir (or --train_images and --train_captions): expected one of them, found neither")
    return sources


@dataclasses.dataclass(frozen=True)
class Publish:
    """The pipeline's last step: vocabulary.txt and dataset_info.json beside the shards."""

    output: str
    options: dict[str, Any]
    counts: dict[str, int]
    started: float
    spec: Any
    max_caption_length: int

    def __call__(self, results: list, vocabulary: str) -> None:
        from pipelines import manifest
        from tfrecords_schema import dataset_info
        from tfrecords_schema.shards import parse_shard_name
        from tfrecords_schema.vocabulary import Vocabulary

        words = Vocabulary.loads(vocabulary)
        info = dataset_info.DatasetInfo(
            features=self.spec,
            max_caption_length=self.max_caption_length,
            vocabulary_size=len(words),
            vocabulary_digest=words.digest,
            splits={
                split: _split_info([r for r in results if parse_shard_name(r.name)[0] == split])
                for split in self.counts
            },
        )
        texts = {dataset_info.VOCABULARY: vocabulary, dataset_info.DATASET_INFO: info.dumps()}
        manifest.complete(self.output, results, self.options, self.counts, self.started, texts)


def _split_info(results: list) -> Any:
    from tfrecords_schema.dataset_info import ShardInfo, SplitInfo

    return SplitInfo(
        images=sum(r.records for r in results),
        captions=sum(r.captions for r in results),
        rejects=sum(r.rejects for r in results),
        shards=tuple(ShardInfo(r.name, r.records, r.captions, r.bytes, r.digest) for r in results),
    )


if __name__ == "__main__":
    # Under its own name and not __main__'s, so that worker processes find the classes where they are.
    from pipelines.features import main as main_by_name

    main_by_name()
