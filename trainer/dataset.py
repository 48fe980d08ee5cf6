"""Shards -> `tf.data` batches for teacher forcing."""

from __future__ import annotations

import dataclasses
import math
import os

import numpy as np
import tensorflow as tf

from tfrecords_schema import record
from tfrecords_schema.dataset_info import DATASET_INFO, VOCABULARY, DatasetInfo
from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import Vocabulary
from trainer.scaling import pool

_SHUFFLE_BUFFER = 20_000  # captions; 80 MB of float16 [2048] features
_CACHE_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True)
class FeatureDirectory:
    """An opened feature directory: what it holds, and the vocabulary of its captions."""

    path: str
    info: DatasetInfo
    vocabulary: Vocabulary

    def shard_paths(self, split: str) -> list[str]:
        """The files of a split, in order."""
        return [os.path.join(self.path, shard.name) for shard in self.info.splits[split].shards]


def open_directory(path: str) -> FeatureDirectory:
    """Checks versions, digests, and that each shard has its recorded size, before anything is read.

    Raises:
      InputError: naming the file, what was expected and what was found.
    """
    info = DatasetInfo.loads(_read(path, DATASET_INFO), os.path.join(path, DATASET_INFO))
    vocabulary = Vocabulary.loads(_read(path, VOCABULARY), os.path.join(path, VOCABULARY))
    info.require_vocabulary(vocabulary.digest, os.path.join(path, VOCABULARY))
    for split in info.splits.values():
        for shard in split.shards:
            file = os.path.join(path, shard.name)
            found = tf.io.gfile.stat(file).length if tf.io.gfile.exists(file) else None
            if found != shard.bytes:
                shown = "no file" if found is None else f"{found} bytes"
                raise InputError(f"{file}: expected {shard.bytes} bytes, found {shown}; make the features again")
    if "train" not in info.splits or not info.splits["train"].images:
        raise InputError(f"--data: {path} holds no training images")
    return FeatureDirectory(path, info, vocabulary)


def _read(directory: str, name: str) -> str:
    path = os.path.join(directory, name)
    if not tf.io.gfile.exists(path):
        raise InputError(
            f"--data: expected a feature directory with {name}, found none in {directory}; pipelines.features makes one"
        )
    with tf.io.gfile.GFile(path) as file:
        return file.read()


def images(directory: FeatureDirectory, split: str) -> tf.data.Dataset:
    """Parsed records of a split (see `record.parse`), in the shards' order."""
    info = directory.info
    raw = tf.data.TFRecordDataset(directory.shard_paths(split))
    return raw.map(
        lambda serialized: record.parse(serialized, info.features.shape, info.features.dtype, info.max_caption_length),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def captions(
    directory: FeatureDirectory, split: str, batch_size: int, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """Batches of ((features `[B, *shape]` float32, words in `[B, T-1]`), words to predict `[B, T-1]`), ids int32.

    Every caption of every image once, PAD-padded; shuffled anew in each epoch where a seed is given. The split is kept
    in memory if it is smaller than 2 GiB.
    """
    info = directory.info.splits[split]
    parsed = images(directory, split).map(lambda r: (r["image/feature"], tf.cast(r["caption/ids"], tf.int32)))
    if sum(shard.bytes for shard in info.shards) < _CACHE_BYTES:
        parsed = parsed.cache()
    pairs = parsed.flat_map(
        lambda feature, ids: tf.data.Dataset.from_tensor_slices(ids).map(lambda caption: (feature, caption))
    )
    if shuffle_seed is not None:
        pairs = pairs.shuffle(min(info.captions, _SHUFFLE_BUFFER), seed=shuffle_seed, reshuffle_each_iteration=True)
    batches = pairs.batch(batch_size).map(
        lambda features, ids: ((tf.cast(features, tf.float32), ids[:, :-1]), ids[:, 1:]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    # Keras would otherwise learn the number of batches by running out of them, with a warning.
    batches = batches.apply(tf.data.experimental.assert_cardinality(math.ceil(info.captions / batch_size)))
    options = tf.data.Options()
    # Replicas share this process: each batch is split among them, the files are not.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def find_damaged(directory: FeatureDirectory) -> str | None:
    """The first shard that cannot be read to its end, by its checksums; None where all can."""
    for split in directory.info.splits:
        for path in directory.shard_paths(split):
            try:
                for _ in tf.data.TFRecordDataset(path):
                    pass
            except tf.errors.OpError:
                return path
    return None


def feature_moments(directory: FeatureDirectory) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[F]` and covariance `[F, F]` of the training images' features, float64, in one pass; grids are pooled."""
    size = directory.info.features.shape[-1]
    count, total, products = 0, np.zeros(size), np.zeros((size, size))
    for batch in images(directory, "train").map(lambda r: r["image/feature"]).batch(256):
        values = pool(tf.cast(batch, tf.float64)).numpy()  # [n, F]
        count += len(values)
        total += values.sum(0)
        products += values.T @ values
    mean = total / count
    return mean, products / count - np.outer(mean, mean)
