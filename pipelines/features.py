"""Captioned images -> TFRecord shards of features and tokenised captions (`python -m pipelines.features`)."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines import cli
from pipelines.settings.features import FeaturesConfig
from tfrecords_schema import command, command_line, ending
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import tfds
from tfrecords_schema.manifests.features_info import FEATURES_INFO, VOCABULARY, StoredImages
from tfrecords_schema.shards import SPLITS

ABOUT = {
    "prog": "python -m pipelines.features",
    "usage": "%(prog)s --coco_dir DIR --output DIR [flags]\n"
    "       %(prog)s --captions FILE ... --images PLACE ...\n"
    "                                    --output DIR [flags]",
    "description": "Compute image features, tokenise captions, and write both as sharded TFRecords for trainer.task. "
    "Run the same command again to continue a run that was stopped.",
    "epilog": cli.BEAM_FLAGS,
    "examples": """
        python -m pipelines.features --coco_dir demo/coco --weights random \\
          --output demo/features-2
        python -m pipelines.features --weights random --output demo/features-3 \\
          --train_captions demo/coco/annotations/captions_train2017.json \\
          --val_captions demo/coco/annotations/captions_val2017.json \\
          --images demo/coco/train2017 demo/coco/val2017
    """,
}
_MANIFESTS = (FEATURES_INFO, tfds.FEATURES, tfds.DATASET_INFO)


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-features`."""
    with cli.command():
        run(*command_line.parse_known(FeaturesConfig, argv, **ABOUT))


def run(config: FeaturesConfig, beam_args: Sequence[str] = ()) -> dict[str, Any]:
    """Writes a feature directory; returns the content of its report.json. `beam_args` are flags of Beam's.

    Raises:
      InputError: a flag or a file does not fit; nothing was written.
      report.RejectsError: too many images were rejected; the output is complete.
    """
    started = time.time()
    import apache_beam as beam

    from pipelines.engines.engine import choose
    from pipelines.engines.precision import settle
    from pipelines.engines.running import run_pipeline
    from pipelines.output import lifecycle, sharding, start, steps
    from pipelines.output.names import Names
    from pipelines.output.report import summarise
    from pipelines.training_records.records import RecordMaker
    from pipelines.training_records.source import source_of
    from pipelines.training_records.words import MakeVocabulary
    from pipelines.vision import extractors
    from pipelines.vision.keeping import QUALITY
    from pipelines.vision.reading import Reading
    from tfrecords_schema.networks.registry import AUTO

    data, network, words, running = config.data, config.network, config.words, config.running
    engine = choose(beam_args, running.gpu, running.accelerator, command.names(FeaturesConfig))
    engine.require_reachable(**command.places(config))
    images = source_of(data, config.records_per_shard)
    asked = network.precision
    exact = "float32" if asked == AUTO else asked
    extractor = extractors.parse(network.extractor, network.weights, running.batch_size, network.feature_grid, exact)
    spec = extractor.spec(network.feature_dtype)
    keep = StoredImages(config.store.short_side(extractor.size), QUALITY) if config.store.store_images else None
    if network.weights == "random":
        print("WARNING: --weights random is an untrained network, only for trying things out.", flush=True)
    reading = Reading(running.read_threads, running.max_pixels, running.read_retries, keep, extractor.resize)
    names = Names(SPLITS, [RecordMaker.suffix], [VOCABULARY], _MANIFESTS, carries=True)
    with contextlib.ExitStack() as held:
        with start.listed(images) as catalogue:
            if "train" not in (counts := catalogue.counts()):
                raise InputError(f"--captions: expected images of the train split, found {counts}")
            if asked == AUTO:
                recorded = lifecycle.recorded(config.output, names, running.overwrite).get("feature_precision")
                precision = settle(extractor, engine, recorded, catalogue, reading)
                extractor = dataclasses.replace(extractor, precision=precision)
                spec = dataclasses.replace(spec, precision=precision)
            options = lifecycle.Options(
                image={  # weights count by their digest, wherever the file lies
                    **{f"feature_{key}": value for key, value in vars(spec).items() if key not in ("weights", "shape")},
                    "max_pixels": running.max_pixels,
                    "store_images": keep and vars(keep),
                },
                other={**vars(words), "records_per_shard": config.records_per_shard, **images.describe()},
                flags=frozenset(command.values(config)),
            )
            how = (options, names, config.records_per_shard, started, running.overwrite, config.update)
            listing, publication = held.enter_context(start.begin(catalogue, config.output, *how))
            source = extractor.source()
            carried = start.carry(source, spec.weights_digest, config.output) if source else ""
            if carried:  # workers need not reach what was given
                extractor = extractor.carried_at(config.output, carried, spec.weights_digest)
        maker = RecordMaker(
            extractor=extractor,
            reading=reading,
            dtype=network.feature_dtype,
            max_caption_length=words.max_caption_length,
        )
        # Without what is not asked for: what versions before that option made stays as it is.
        image = {name: value for name, value in options.image.items() if value is not None}
        shaping = {**image, "max_caption_length": words.max_caption_length}
        process = sharding.ProcessShard(maker, listing, shaping, image)
        vocabulary = beam.pvalue.AsSingleton(
            engine.pipeline | MakeVocabulary(listing, words.vocab_size, words.min_word_count)
        )
        _ = (
            engine.pipeline
            | steps.EveryShard(listing)
            | steps.MakeShards(process, engine.accelerator, vocabulary=vocabulary)
            | steps.Finish(Publish(publication, spec, words.max_caption_length, carried, keep), vocabulary=vocabulary)
        )
        ran = run_pipeline(engine, config.output, sum(counts.values()))
    return summarise(config.output, running.max_reject_fraction) if ran else {}


@dataclasses.dataclass(frozen=True)
class Publish:
    """The pipeline's last step: vocabulary.txt and what describes the directory, beside the shards."""

    publication: Any
    spec: Any
    max_caption_length: int
    carried: str
    images: StoredImages | None

    def __call__(self, results: list, vocabulary: str) -> Iterator[list[str]]:
        from pipelines.output.publishing import publish
        from tfrecords_schema.manifests import features_info
        from tfrecords_schema.shards import prefix_of
        from tfrecords_schema.text import beside
        from tfrecords_schema.vocabulary import Vocabulary

        words, publication = Vocabulary.loads(vocabulary), self.publication

        def manifests(results: Sequence) -> tuple[dict[str, str | None], dict[str, str]]:
            name = publication.settle_text(VOCABULARY, vocabulary)
            info = features_info.FeaturesInfo(
                features=self.spec,
                max_caption_length=self.max_caption_length,
                vocabulary_size=len(words),
                vocabulary_digest=words.digest,
                vocabulary_file=name,
                extractor=self.carried,
                images=self.images,
                splits={
                    split: _split_info([r for r in results if prefix_of(r.name) == split])
                    for split in publication.expected
                },
            )
            return {FEATURES_INFO: info.dumps(), **tfds.texts(info)}, {VOCABULARY: name}

        output = publication.directory
        following = ("python", "-m", "trainer.task", "--data", output, "--job_dir", beside(output, "job"))
        yield from publish(publication, results, following, manifests, carried=self.carried, alike=True)


def _split_info(results: list) -> Any:
    from tfrecords_schema.manifests.features_info import ShardInfo, SplitInfo

    return SplitInfo(
        images=sum(r.records for r in results),
        captions=sum(r.captions for r in results),
        rejects=sum(r.rejects for r in results),
        shards=tuple(ShardInfo(r.name, r.records, r.captions, r.bytes, r.sha256) for r in results),
    )


program = ending.program(main)

if __name__ == "__main__":
    # Under its own name and not __main__'s, so that worker processes find the classes where they are.
    from pipelines.features import program

    program()
