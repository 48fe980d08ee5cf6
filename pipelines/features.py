"""Captioned images -> TFRecord shards of features and tokenised captions (`python -m pipelines.features`)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from pipelines import cli
from pipelines.vision.images import MAX_PIXELS
from pipelines.vision.networks import NETWORKS, PRECISIONS
from tfrecords_schema.dataset_info import DATASET_INFO, VOCABULARY
from tfrecords_schema.errors import ArgumentParser, InputError
from tfrecords_schema.shards import SPLITS, shard_count

_TEXTS = (VOCABULARY, DATASET_INFO)
_CAPTIONS = "COCO or Karpathy JSON, Flickr8k.token.txt, CSV or JSONL of image,caption[,split]; splits are its own"


def parser() -> ArgumentParser:
    """The command line."""
    p = ArgumentParser(
        prog="python -m pipelines.features",
        description="Extract image features and tokenise captions into TFRecord shards.",
        epilog="Any other flag goes to Beam, for example --runner=DataflowRunner or --direct_num_workers=2 "
        "--direct_running_mode=multi_processing.",
    )
    p.add_argument("--output", required=True, metavar="DIR", help="feature directory to write")
    data = p.add_argument_group("images and captions: --coco_dir, or captions files and places of images")
    data.add_argument("--coco_dir", metavar="DIR", help="with train<year>/ (or .zip), val<year>/ and annotations/")
    data.add_argument("--year", help="of --coco_dir (default %(default)s)")
    data.add_argument("--captions", nargs="+", metavar="FILE", help=_CAPTIONS)
    data.add_argument("--images", nargs="+", metavar="PLACE", help="directories, zip files or quoted patterns")
    for split in SPLITS:
        data.add_argument(f"--{split}_captions", nargs="+", metavar="FILE", help=f"captions of the {split} split")
        data.add_argument(f"--{split}_images", nargs="+", metavar="PLACE", help=f"images of the {split} split only")
    data.add_argument("--val_fraction", type=cli.fraction, help="held out for validation, where there are no splits")
    data.add_argument(
        "--restval", choices=(*SPLITS, "leave_out"), help="what Karpathy's restval counts as (default %(default)s)"
    )
    network = p.add_argument_group("features")
    names = ", ".join(NETWORKS)
    network.add_argument(
        "--extractor", metavar="NAME", help=f"{names}, or saved_model:DIR, one's own (default %(default)s)"
    )
    network.add_argument(
        "--weights",
        metavar="imagenet|random|FILE",
        help="imagenet (default; downloaded by Keras), a Keras .h5 file, or random (seeded; for trying out)",
    )
    network.add_argument("--feature_grid", action="store_true", help="the last convolutional map, for attention")
    network.add_argument("--feature_dtype", choices=("float16", "float32"), help="as stored (default %(default)s)")
    network.add_argument("--precision", choices=PRECISIONS, help="of the forward pass (default %(default)s)")
    words = p.add_argument_group("words")
    words.add_argument(
        "--vocab_size", type=cli.positive, help="ids at most, with the 4 special ones (default %(default)s)"
    )
    words.add_argument("--min_word_count", type=cli.positive, help="rarer words become <unk> (default %(default)s)")
    words.add_argument(
        "--max_caption_length", type=cli.positive, help="ids in a caption, with START and END (default %(default)s)"
    )
    running = p.add_argument_group("running")
    cli.add_common_flags(running, per_shard="records_per_shard")
    running.add_argument(
        "--update", action="store_true", help="write an earlier run's records anew, with other captions or words"
    )
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
    captions: Sequence[str] = (),
    images: Sequence[str] = (),
    train_captions: Sequence[str] = (),
    train_images: Sequence[str] = (),
    val_captions: Sequence[str] = (),
    val_images: Sequence[str] = (),
    test_captions: Sequence[str] = (),
    test_images: Sequence[str] = (),
    val_fraction: float | None = None,
    restval: str = "train",
    extractor: str = "inception_v3",
    weights: str = "imagenet",
    feature_grid: bool = False,
    feature_dtype: str = "float16",
    precision: str = "float32",
    vocab_size: int = 10_000,
    min_word_count: int = 4,
    max_caption_length: int = 25,
    batch_size: int = 16,
    records_per_shard: int = 1000,
    read_threads: int = 16,
    max_pixels: int = MAX_PIXELS,
    max_reject_fraction: float = 0.05,
    accelerator: str | None = None,
    gpu: str | None = None,
    overwrite: bool = False,
    update: bool = False,
    beam_args: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes a feature directory; returns the content of its report.json. Arguments are the command's flags.

    Raises:
      InputError: a flag or a file does not fit; nothing was written.
      report.RejectsError: too many images were rejected; the output is complete.
    """
    started = time.time()
    if vocab_size < 5:
        raise InputError(f"--vocab_size: expected at least 5 (the 4 special ids, and a word), found {vocab_size}")
    if max_caption_length < 3:
        raise InputError(f"--max_caption_length: expected at least 3 (START, a word, END), found {max_caption_length}")
    import apache_beam as beam

    from pipelines.engines.engine import choose
    from pipelines.engines.running import run_pipeline
    from pipelines.output import keys, lifecycle, progress, sharding
    from pipelines.output.report import summarise
    from pipelines.sources.captioned_images import captioned_images
    from pipelines.training_records.records import RecordMaker
    from pipelines.training_records.words import MakeVocabulary
    from pipelines.vision import extractors
    from pipelines.vision.reading import Reading

    engine = choose(beam_args, gpu, accelerator)
    captions_by_split = {None: captions, "train": train_captions, "val": val_captions, "test": test_captions}
    images_by_split = {None: images, "train": train_images, "val": val_images, "test": test_images}
    engine.require_reachable(
        output=output,
        coco_dir=coco_dir,
        **{f"{split}_captions" if split else "captions": paths for split, paths in captions_by_split.items()},
        **{f"{split}_images" if split else "images": paths for split, paths in images_by_split.items()},
    )
    source = captioned_images(coco_dir, year, captions_by_split, images_by_split, val_fraction, restval)
    network = extractors.parse(extractor, weights, batch_size, feature_grid, precision)
    with progress.waiting(progress.LISTING):
        counts = source.count()
    spec = network.spec(feature_dtype)
    if "train" not in counts:
        raise InputError(f"--captions: expected images of the train split, found {counts}")
    if network.weights == "random":
        print("WARNING: --weights random is seeded noise, for trying things out: it knows no objects.", flush=True)
    options = lifecycle.Options(
        image={  # weights count by their digest, wherever the file lies
            **{f"feature_{key}": value for key, value in vars(spec).items() if key not in ("weights", "shape")},
            "max_pixels": max_pixels,
        },
        other={
            "vocab_size": vocab_size,
            "min_word_count": min_word_count,
            "max_caption_length": max_caption_length,
            "records_per_shard": records_per_shard,
            **source.describe(),
        },
    )
    maker = RecordMaker(
        extractor=network,
        reading=Reading(read_threads, max_pixels),
        dtype=feature_dtype,
        max_caption_length=max_caption_length,
    )
    shaping = {**options.image, "max_caption_length": max_caption_length}
    process = sharding.ProcessShard(maker, output, shaping, options.image)
    names = lifecycle.Names(SPLITS, [maker.suffix], _TEXTS)
    publish = Publish(output, options.every, counts, started, spec, max_caption_length, names)
    with lifecycle.begin(output, options, publish.names, overwrite, update):
        items = engine.pipeline | keys.ReadSource(source)
        vocabulary = beam.pvalue.AsSingleton(items | MakeVocabulary(vocab_size, min_word_count))
        shards = {split: shard_count(count, records_per_shard) for split, count in counts.items()}
        _ = (
            items
            | keys.KeyByShard(shards, maker.suffix)
            | sharding.MakeShards(process, engine.accelerator, vocabulary=vocabulary)
            | sharding.Finish(publish, vocabulary=vocabulary)
        )
        ran = run_pipeline(engine, output, sum(counts.values()))
    return summarise(output, max_reject_fraction) if ran else {}


@dataclasses.dataclass(frozen=True)
class Publish:
    """The pipeline's last step: vocabulary.txt and dataset_info.json beside the shards."""

    output: str
    options: dict[str, Any]
    counts: dict[str, int]
    started: float
    spec: Any
    max_caption_length: int
    names: Any

    def __call__(self, results: list, vocabulary: str) -> None:
        from pipelines.output import lifecycle
        from pipelines.storage import paths
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
        texts = {VOCABULARY: vocabulary, DATASET_INFO: info.dumps()}
        job = paths.beside(self.output, "job")
        following = ("python", "-m", "trainer.task", "--data", self.output, "--job_dir", job)
        lifecycle.complete(self.output, results, self.options, self.counts, self.started, texts, following, self.names)


def _split_info(results: list) -> Any:
    from tfrecords_schema.dataset_info import ShardInfo, SplitInfo

    return SplitInfo(
        images=sum(r.records for r in results),
        captions=sum(r.captions for r in results),
        rejects=sum(r.rejects for r in results),
        shards=tuple(ShardInfo(r.name, r.records, r.captions, r.bytes, r.sha256) for r in results),
    )


if __name__ == "__main__":
    # Under its own name and not __main__'s, so that worker processes find the classes where they are.
    from pipelines.features import main as main_by_name

    main_by_name()
