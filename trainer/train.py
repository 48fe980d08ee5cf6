"""Teacher forcing under MirroredStrategy with Keras `fit`: loss, update step, callbacks, resume."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import PAD
from trainer import config, dataset
from trainer.config import DecoderConfig, TrainConfig
from trainer.decoder import ShowAndTell

CONFIG = "config.json"
HISTORY = "history.csv"
BEST_WEIGHTS = "best.weights.h5"
BACKUP = "backup"
TENSORBOARD = "tensorboard"


class TeacherForcing(keras.Model):
    """A decoder with the loss it is trained on: cross-entropy per real token, in nats.

    The sum over a replica's tokens is divided by the number of real tokens of the whole batch, over all replicas; so
    the sum of the replicas' gradients is the gradient of the whole batch, however it was split and padded.
    """

    def __init__(self, decoder: ShowAndTell, clip_norm: float):
        super().__init__()
        self.decoder = decoder
        self.clip_norm = clip_norm
        self.loss_metric = keras.metrics.Mean(name="loss")
        self.accuracy_metric = keras.metrics.Mean(name="accuracy")

    @property
    def metrics(self):
        """What Keras resets at the start of each epoch. Both are means over tokens, not over batches."""
        return [self.loss_metric, self.accuracy_metric]

    def build(self, input_shape=None):
        """Makes every weight, so that checkpoints can be loaded."""
        self.decoder.build()
        self.built = True

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: all is built. Keras would draw a batch, and fail where replicas get unequal shares of it."""

    def call(self, inputs, training: bool = False):
        """As the decoder's."""
        return self.decoder(inputs, training=training)

    def train_step(self, data):
        """One update; the same for any number of replicas."""
        inputs, targets = data
        replicas = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            loss_sum, tokens = self._loss(inputs, targets, training=True)
            loss = loss_sum / tf.maximum(replicas.all_reduce(tf.distribute.ReduceOp.SUM, tokens), 1.0)
        weights = self.decoder.trainable_weights
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, [w.value for w in weights])]
        # Summed here and not left to the optimizer, which would clip each replica's share on its own. Its own sum over
        # replicas then adds the same gradient once a replica.
        gradients = replicas.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm)
        count = replicas.num_replicas_in_sync
        self.optimizer.apply_gradients([(g / count, w) for g, w in zip(gradients, weights, strict=True)])
        return self.get_metrics_result()

    def test_step(self, data):
        """Loss and accuracy of one batch."""
        inputs, targets = data
        self._loss(inputs, targets, training=False)
        return self.get_metrics_result()

    def _loss(self, inputs, targets, training: bool):
        """Targets `[B, T]` -> (sum of the cross-entropies of real tokens, number of real tokens), two scalars."""
        logits = self(inputs, training=training)  # [B, T, V]
        real = tf.cast(targets != PAD, tf.float32)  # [B, T]
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
        loss_sum, tokens = tf.reduce_sum(entropy * real), tf.reduce_sum(real)
        hits = tf.cast(tf.argmax(logits, axis=-1, output_type=targets.dtype) == targets, tf.float32)
        self.loss_metric.update_state(entropy, sample_weight=real)
        self.accuracy_metric.update_state(hits, sample_weight=real)
        return loss_sum, tokens


def decoder_config(directory: dataset.FeatureDirectory, flags: dict[str, Any]) -> DecoderConfig:
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
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, float]:
    """Trains, or goes on where an earlier run of the same command stopped.

    Writes under `job_dir`: config.json, history.csv, best.weights.h5 (the epoch with the best validation loss; training
    loss where there is no validation split), backup/ (for going on), tensorboard/. `callbacks` are further ones of
    Keras' `fit`.

    Returns:
      The metrics of the best epoch.

    Raises:
      InputError: `job_dir` holds a run with other settings.
    """
    _begin(job_dir, directory, decoder_config, train_config)
    keras.utils.set_random_seed(train_config.seed)
    has_validation = bool("val" in directory.info.splits and directory.info.splits["val"].images)
    batches = dataset.captions(directory, "train", train_config.batch_size, shuffle_seed=train_config.seed)
    validation = dataset.captions(directory, "val", train_config.batch_size) if has_validation else None
    captions = directory.info.splits["train"].captions
    steps = math.ceil(captions / train_config.batch_size)

    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        model = TeacherForcing(ShowAndTell(decoder_config), train_config.clip_norm)
        model.build()
        rate = keras.optimizers.schedules.CosineDecay(train_config.learning_rate, steps * train_config.epochs)
        model.compile(optimizer=keras.optimizers.AdamW(rate, weight_decay=train_config.weight_decay))
        model.optimizer.build(model.decoder.trainable_weights)
    if decoder_config.feature_scaling != "none":  # a pass over all training features
        model.decoder.scaling.measure(*dataset.feature_moments(directory))
    print(
        f"training on {directory.info.splits['train'].images:,} images with {captions:,} captions, "
        f"{model.decoder.count_params():,} weights, {strategy.num_replicas_in_sync} replica(s)",
        flush=True,
    )
    monitor = "val_loss" if has_validation else "loss"
    history = os.path.join(job_dir, HISTORY)
    best = best_epoch(history, monitor)
    model.fit(
        batches,
        validation_data=validation,
        epochs=train_config.epochs,
        shuffle=False,  # the dataset does that
        verbose=1 if sys.stdout.isatty() else 2,
        callbacks=[
            keras.callbacks.BackupAndRestore(
                os.path.join(job_dir, BACKUP), double_checkpoint=True, delete_checkpoint=False
            ),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.ModelCheckpoint(
                os.path.join(job_dir, BEST_WEIGHTS),
                monitor=monitor,
                save_best_only=True,
                save_weights_only=True,
                initial_value_threshold=best.get(monitor),
            ),
            keras.callbacks.EarlyStopping(monitor=monitor, patience=train_config.patience, baseline=best.get(monitor)),
            keras.callbacks.CSVLogger(history, append=True),
            keras.callbacks.TensorBoard(os.path.join(job_dir, TENSORBOARD), write_graph=False),
            *callbacks,
        ],
    )
    return best_epoch(history, monitor)


def delete_earlier_run(job_dir: str) -> None:
    """Deletes what `train` writes, and nothing else that may lie in `job_dir`."""
    for name in (CONFIG, HISTORY, BEST_WEIGHTS, BACKUP, TENSORBOARD):
        path = os.path.join(job_dir, name)
        if tf.io.gfile.exists(path):
            tf.io.gfile.rmtree(path) if tf.io.gfile.isdir(path) else tf.io.gfile.remove(path)


def _begin(job_dir: str, directory: dataset.FeatureDirectory, *configs: Any) -> None:
    """Writes config.json, or checks that a run to go on with has the same. The data is named by its digests."""
    shards = [shard.sha256 for split in directory.info.splits.values() for shard in split.shards]
    data = {
        "vocabulary": directory.vocabulary.digest,
        "features": directory.info.features.weights_digest,
        "records": hashlib.sha256("".join(shards).encode()).hexdigest(),
    }
    now = {**json.loads(config.dumps(*configs)), "Data": data}
    path = os.path.join(job_dir, CONFIG)
    try:
        tf.io.gfile.makedirs(job_dir)
        if tf.io.gfile.exists(path):
            try:
                with tf.io.gfile.GFile(path) as file:
                    earlier = json.load(file)
            except ValueError:
                raise InputError(
                    f"--job_dir: {path}: expected JSON, found something else; give another --job_dir"
                ) from None
            changes = [
                f"{key} was {earlier.get(group, {}).get(key)}, now {value}"
                for group, values in now.items()
                for key, value in values.items()
                if earlier.get(group, {}).get(key) != value
            ]
            if changes:
                raise InputError(
                    f"--job_dir: {job_dir} holds a run with other settings ({'; '.join(changes)}); "
                    "give --overwrite, or another --job_dir"
                )
        with tf.io.gfile.GFile(path + ".tmp", "w") as file:
            file.write(json.dumps(now, indent=2) + "\n")
        tf.io.gfile.rename(path + ".tmp", path, overwrite=True)
    except (tf.errors.OpError, OSError) as error:
        raise InputError(f"--job_dir: expected a directory that can be written to, found {job_dir}: {error}") from None


def best_epoch(history: str, monitor: str) -> dict[str, float]:
    """The row of history.csv with the smallest `monitor`, and its perplexity; epochs count from 1; {} without rows."""
    if not tf.io.gfile.exists(history):
        return {}
    with tf.io.gfile.GFile(history) as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    rows = [row for row in rows if math.isfinite(row[monitor])]
    if not rows:
        return {}
    best = min(rows, key=lambda row: row[monitor])
    return {**best, "epoch": best["epoch"] + 1, "perplexity": math.exp(min(best[monitor], 700))}
