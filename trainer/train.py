"""A feature directory and settings -> the best weights: what a run is made of, and its phases one after the other."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer import checkpoints, config, dataset, phases
from trainer.batches import Batches
from trainer.checkpoints import Best, Checkpoints, Progress
from trainer.config import DecoderConfig, TrainConfig
from trainer.decoder import Decoder
from trainer.interruptions import Interruptions
from trainer.journal import HISTORY, LOSS, SAMPLES, TENSORBOARD, Journal
from trainer.loop import Bench, PhaseRun
from trainer.pretrained import read_embeddings
from trainer.screen import Screen
from trainer.validation import Validation

OUTPUTS = (HISTORY, LOSS, SAMPLES, TENSORBOARD)


def decoder_config(directory: dataset.FeatureDirectory, flags: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that fits a feature directory, with the rest from flags."""
    return config.from_flags(
        DecoderConfig,
        flags,
        vocabulary_size=len(directory.vocabulary),
        max_length=directory.info.max_caption_length,
        feature_shape=directory.info.features.shape,
    )


def train(
    directory: dataset.FeatureDirectory,
    job_dir: str,
    decoder_config: DecoderConfig,
    train_config: TrainConfig,
) -> dict[str, Any]:
    """Trains, or goes on where an earlier run of the same command stopped.

    Writes under `job_dir`: config.json, checkpoints/ (for going on), best/ (the weights of the best epoch), and what
    journal.py leaves for people.

    Returns:
      The row of the best epoch.

    Raises:
      InputError: `job_dir` holds a run with other settings.
      RunError: training cannot go on; the latest checkpoint is intact.
      Preempted, KeyboardInterrupt: a signal came; the checkpoint is written.
    """
    checkpoints.begin(job_dir, _settings(directory, decoder_config, train_config))
    keras.utils.set_random_seed(train_config.seed)
    strategy = tf.distribute.MirroredStrategy()
    precision = train_config.mixed_precision
    with strategy.scope():
        decoder = Decoder(decoder_config, "float32" if precision == "none" else f"mixed_{precision}")
        decoder.build()
        decoder.word_embedding.trainable = not train_config.freeze_embeddings
    split = directory.info.splits.get("val")
    with Interruptions().watched() as interruptions:
        bench = Bench(
            train_config, strategy, decoder, Best(job_dir, decoder.weights), Journal(job_dir), Screen(), interruptions
        )
        if split and split.images:
            bench.validation = Validation(directory, "val", train_config)
            bench.validation_batches = Batches(
                directory,
                "val",
                train_config.batch_size,
                train_config.cache_gb * 1e9,
                train_config.seed,
                multiple=strategy.num_replicas_in_sync,
            )
        try:
            best = _run_phases(directory, job_dir, bench)
        finally:
            bench.screen.close()
            if bench.validation:
                bench.validation.close()
    return best


def _run_phases(directory: dataset.FeatureDirectory, job_dir: str, bench: Bench) -> dict[str, Any]:
    """All phases, or what is left of them. A later one starts from the best weights of the one before."""
    names = [phases.CROSS_ENTROPY] + [phases.SELF_CRITICAL] * bool(bench.config.self_critical)
    progress = Progress()
    for name in names:
        before, progress = (
            progress,
            Progress(
                epoch=progress.epoch,
                history=progress.history,
                best=progress.best,
                steps_before=progress.all_steps,
            ),
        )
        with bench.strategy.scope():
            phase = phases.BY_NAME[name](directory, bench.config, bench.strategy.num_replicas_in_sync)
            phase.optimizer.build(bench.decoder.trainable_variables)
        saved = Checkpoints(
            checkpoints.phase_directory(job_dir, name),
            bench.decoder.weights,
            phase.optimizer.variables,
            progress,
            bench.config.keep_checkpoints,
        )
        if saved.restore():
            if not progress.finished:
                bench.screen.say(f"going on with epoch {progress.epoch + 1}, after {progress.step:,} of its steps")
        elif before.best:
            bench.best.restore()
        else:
            _start(directory, bench, phase)
        if not progress.finished:
            PhaseRun(bench, phase, saved, progress, before.epoch + phase.epochs).run()
    return progress.best


def _start(directory: dataset.FeatureDirectory, bench: Bench, phase: phases.Phase) -> None:
    """What a new decoder takes over from the data, and a word on what is about to happen."""
    decoder, settings = bench.decoder, bench.config
    kind = decoder.config.feature_scaling
    if kind != "none":  # a pass over all training features
        decoder.scaling.measure(*dataset.feature_moments(directory, pooled=True, covariance=kind == "whiten"))
        if decoder.attention:
            decoder.grid_scaling.measure(*dataset.feature_moments(directory, pooled=False, covariance=kind == "whiten"))
    if settings.pretrained_embeddings:
        matrix, coverage = read_embeddings(
            settings.pretrained_embeddings, directory.vocabulary, decoder.config.embedding_dim, settings.seed
        )
        decoder.word_embedding.embeddings.assign(matrix)
        bench.screen.say(str(coverage))
    split = directory.info.splits["train"]
    kept = "kept in memory" if phase.batches.is_cached else "read again in each epoch (--cache_gb)"
    bench.screen.say(
        f"training on {split.images:,} images with {split.captions:,} captions, {kept}; {decoder.count_params():,} "
        f"weights, {bench.strategy.num_replicas_in_sync} replica(s), {phase.batches.steps(0):,} steps an epoch"
    )


def delete_earlier_run(job_dir: str) -> None:
    """Deletes what `train` writes, and nothing else that may lie in `job_dir`."""
    checkpoints.delete_earlier_run(job_dir, OUTPUTS)


def _settings(directory: dataset.FeatureDirectory, *configs: Any) -> dict[str, dict[str, Any]]:
    """Everything that must stay the same for a run to go on. The data is named by its digests."""
    shards = [shard.sha256 for split in directory.info.splits.values() for shard in split.shards]
    data = {
        "vocabulary": directory.vocabulary.digest,
        "features": directory.info.features.weights_digest,
        "records": hashlib.sha256("".join(shards).encode()).hexdigest(),
    }
    settings = {type(c).__name__: dataclasses.asdict(c) for c in configs}
    settings["DecoderConfig"]["feature_shape"] = list(settings["DecoderConfig"]["feature_shape"])  # as JSON has it
    return {**settings, "Data": data}
