"""A feature directory and settings -> the best weights: what a run is made of, and its phases one after the other."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import Any

import keras
import tensorflow as tf

from tfrecords_schema.errors import InputError
from tfrecords_schema.text import one_line
from trainer import config
from trainer.config import DecoderConfig, DecoderSettings, TrainConfig
from trainer.data import dataset
from trainer.data.batches import Batches
from trainer.model.cnn import Cnn, require_usable
from trainer.model.decoder import Decoder
from trainer.model.earlier import Earlier
from trainer.model.pretrained import read_embeddings
from trainer.training import job, phases
from trainer.training.checkpoints import Best, Checkpoints, Progress
from trainer.training.fine_tuning import Learner, Tuning
from trainer.training.interruptions import Interruptions
from trainer.training.journal import Journal
from trainer.training.loop import Bench, PhaseRun
from trainer.training.mirror import Local, Mirror
from trainer.training.screen import Screen
from trainer.training.validation import Validation


def decoder_config(directory: dataset.FeatureDirectory, settings: DecoderSettings) -> DecoderConfig:
    """The decoder of these settings that fits a feature directory. Raises InputError."""
    return DecoderConfig(
        **vars(settings),
        vocabulary_size=len(directory.vocabulary),
        max_length=directory.info.max_caption_length,
        feature_shape=directory.info.features.shape,
    )


def make_cnn(directory: dataset.FeatureDirectory, settings: TrainConfig) -> Cnn | None:
    """The network that is fine-tuned, with the weights that the feature directory carries; None where none is.

    Raises:
      InputError: the directory lacks what that takes, or the network has no such layer.
    """
    if not settings.fine_tune:
        return None
    info = directory.info
    require_usable(info.features, info.extractor, info.images is not None, directory.path)
    path = os.path.join(directory.path, info.extractor)
    return Cnn(info.features, path, settings.fine_tune, settings.precision, settings.fine_tune_batch_norm)


def train(
    directory: dataset.FeatureDirectory,
    place: Local | Mirror,
    decoder_config: DecoderConfig,
    train_config: TrainConfig,
    interruptions: Interruptions,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Trains, or goes on where an earlier run of the same command stopped, in a job directory that `job.opened` gave.

    Writes there what job.py lists: config.json, checkpoints/ (for going on), best/ (the weights of the best epoch), and
    what journal.py leaves for people.

    Returns:
      The row of the best epoch, {} where no epoch had a finite figure.

    Raises:
      InputError: a setting does not fit, or the directory holds something else; nothing was trained or deleted.
      RunError: training cannot go on; earlier checkpoints are intact.
      Preempted, KeyboardInterrupt: a signal came; if training had begun, the checkpoint is written.
    """
    job_dir, settings = place.directory, _settings(directory, decoder_config, train_config)
    goes_on = job.check(job_dir, settings, overwrite)
    if train_config.jit_compile and decoder_config.attention == "bahdanau":
        raise InputError(
            "--jit_compile: expected none with --attention bahdanau, whose loop XLA cannot compile; leave it out"
        )
    if train_config.monitor == "meteor" and not shutil.which("java"):
        raise InputError("--monitor meteor: expected `java` on the PATH, found none; choose another or install one")
    phases.check(directory, train_config)
    strategy = _strategy()
    keras.utils.set_random_seed(train_config.seed)
    with strategy.scope():
        cnn = make_cnn(directory, train_config)
    embeddings = None
    if train_config.pretrained_embeddings and not goes_on:
        embeddings, coverage = read_embeddings(
            train_config.pretrained_embeddings, directory.vocabulary, decoder_config.embedding_dim, train_config.seed
        )
    earlier = None
    if train_config.init_from and not goes_on:
        earlier = Earlier(
            train_config.init_from, directory.info.features, directory.vocabulary, decoder_config, directory.path
        )
    job.begin(place, settings, anew=not goes_on)

    keras.utils.set_random_seed(train_config.seed)
    precision = train_config.mixed_precision
    with strategy.scope():
        decoder = Decoder(decoder_config, "float32" if precision == "none" else f"mixed_{precision}")
        decoder.build()
        decoder.word_embedding.trainable = not train_config.freeze_embeddings
        decoder.runs_whole_layers |= train_config.jit_compile  # XLA compiles no loop over ever fewer rows
    weights = [*decoder.weights, *(cnn.weights if cnn else ())]
    best = Best(os.path.join(job_dir, job.BEST), weights)
    bench = Bench(train_config, strategy, decoder, best, Journal(job_dir), Screen(), interruptions, place.push)
    bench.validation = _validation(directory, bench)
    tuning = None
    if cnn:
        learner = Learner(cnn, decoder)
        tuning = Tuning(directory, job_dir, train_config, learner, bench.screen, bench.validation)
    try:
        if not goes_on:
            _introduce(directory, bench)
            if embeddings is not None:
                decoder.word_embedding.embeddings.assign(embeddings)
                bench.screen.say(str(coverage))
            if earlier:
                bench.screen.say(earlier.begin(decoder))
            else:
                _measure_features(directory, decoder, interruptions)
        return _run_phases(directory, job_dir, bench, weights, tuning)
    finally:
        bench.screen.close()
        if tuning:
            tuning.close()
        if bench.validation:
            bench.validation.close()


def _strategy() -> tf.distribute.Strategy:
    """Over all visible devices. Raises InputError where TF_CONFIG, which TensorFlow reads by itself, does not fit."""
    try:
        return tf.distribute.MirroredStrategy()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if "TF_CONFIG" not in os.environ:
            raise
        raise InputError(
            f"TF_CONFIG: expected JSON that describes this machine, found what TensorFlow cannot use: {one_line(error)}"
            "; unset it"
        ) from None


def _validation(directory: dataset.FeatureDirectory, bench: Bench) -> Validation | None:
    """None without validation images."""
    split, settings = directory.info.splits.get("val"), bench.config
    if not split or not split.images:
        return None
    batches = Batches(
        directory,
        "val",
        settings.batch_size,
        settings.cache_gb * 1e9,
        settings.seed,
        multiple=bench.strategy.num_replicas_in_sync,
    )
    return Validation(batches, settings, bench.decoder, bench.strategy)


def _introduce(directory: dataset.FeatureDirectory, bench: Bench) -> None:
    """What is about to happen."""
    split, replicas = directory.info.splits["train"], bench.strategy.num_replicas_in_sync
    first = phases.cross_entropy_batches(directory, bench.config, replicas)
    kept = "kept in memory" if first.is_cached else "read again in each epoch (--cache_gb)"
    bench.screen.say(
        f"training on {split.images:,} images with {split.captions:,} captions, {kept}; {first.steps(0):,} steps an "
        f"epoch, {bench.decoder.count_params():,} weights, {replicas} device{'s' if replicas > 1 else ''}"
    )
    if not bench.validation:
        bench.screen.say(
            "no validation images: the training loss decides which epoch is the best, and no captions are scored; "
            "pipelines.features --val_fraction 0.1 --update holds some out"
        )


def _measure_features(directory: dataset.FeatureDirectory, decoder: Decoder, interruptions: Interruptions) -> None:
    """Sets the decoder's scaling; one or two passes over all training features."""
    kind = decoder.config.feature_scaling
    if kind == "none":
        return
    layers = [(decoder.scaling, True)] + ([(decoder.grid_scaling, False)] if decoder.attention else [])
    for layer, pooled in layers:
        layer.measure(*dataset.feature_moments(directory, pooled, kind == "whiten", interruptions.check))


def _run_phases(
    directory: dataset.FeatureDirectory, job_dir: str, bench: Bench, weights: list[Any], tuning: Tuning | None
) -> dict[str, Any]:
    """Runs all phases, or what is left of them. A later one starts from the best weights of the one before."""
    progress, names = Progress(), phases.names(bench.config)
    for i, name in enumerate(names):
        before, progress = (
            progress,
            Progress(
                epoch=progress.epoch,
                history=progress.history,
                # Without validation, losses and rewards cannot be compared, and a later phase begins its own search.
                best=progress.best if bench.validation else {},
                steps_before=progress.all_steps,
            ),
        )
        with bench.strategy.scope():
            phase = phases.make(
                name, directory, bench.config, bench.strategy.num_replicas_in_sync, bench.decoder, tuning
            )
            phase.optimizer.build(phase.learner.trainable_variables)
        saved = Checkpoints(
            os.path.join(job_dir, job.CHECKPOINTS, name),
            weights,
            phase.optimizer.variables,
            progress,
            bench.config.keep_checkpoints,
        )
        last_epoch = before.epoch + phase.epochs
        is_over = any(job.has_begun(job_dir, later) for later in names[i + 1 :])
        was_there = saved.restore(bench.screen.say)
        goes_on = not is_over and progress.epoch < last_epoch and progress.without_better < bench.config.patience
        if not was_there and before.best:
            bench.best.restore()
        if goes_on:
            if i and not was_there:
                title, best = name.replace("_", "-"), before.best.get("epoch")
                bench.screen.say(f"{title}: {phase.epochs} epochs at most, from epoch {best}, the best so far")
            if was_there:
                bench.screen.say(f"going on with epoch {progress.epoch + 1}, after {progress.step:,} of its steps")
            phase.begin(bench.interruptions.check)
        if not is_over:
            PhaseRun(bench, phase, saved, progress, last_epoch).run()
    return progress.best


def _settings(directory: dataset.FeatureDirectory, *configs: Any) -> dict[str, dict[str, Any]]:
    """Everything that must stay the same for a run to go on. The data is named by its digests."""
    shards = [shard.sha256 for split in directory.info.splits.values() for shard in split.shards]
    data = {
        "vocabulary": directory.vocabulary.digest,
        "features": directory.info.features.weights_digest,
        "records": hashlib.sha256("".join(shards).encode()).hexdigest(),
    }
    return {**json.loads(config.dumps(*configs)), "Data": data}  # as JSON has them: they are compared with what it held
