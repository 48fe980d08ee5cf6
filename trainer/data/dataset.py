"""Feature directories: opened, checked, and read record by record. Batches are made of them in batches.py."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import re
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfrecords_schema import record
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.dataset_info import DATASET_INFO, DatasetInfo, open_features
from tfrecords_schema.storage import copies, files, paths
from tfrecords_schema.vocabulary import Vocabulary
from trainer.model.scaling import pool


@dataclasses.dataclass(frozen=True)
class FeatureDirectory:
    """An opened feature directory: what it holds, and the vocabulary of its captions."""

    path: str
    info: DatasetInfo
    vocabulary: Vocabulary

    def shard_paths(self, split: str) -> list[str]:
        """The files of a split, in order."""
        return [os.path.join(self.path, shard.name) for shard in self.info.splits[split].shards]


def open_directory(path: str, check: Callable[[], None] = lambda: None) -> FeatureDirectory:
    """Checks versions, digests, and that each shard has its recorded size, before anything is read.

    A remote directory is copied to this machine first, or the copy of an earlier run taken. `check` is called
    meanwhile, and may raise to stop.

    Raises:
      InputError: naming the file, what was expected and what was found.
    """
    info, vocabulary = open_features(path, files.read_text, "--data")
    given, shards = path, [shard for split in info.splits.values() for shard in split.shards]
    if paths.is_remote(path):
        texts = {DATASET_INFO: info.dumps(), info.vocabulary_file: vocabulary.dumps()}
        path = copies.feature_directory(path, texts, shards, check)
    for shard in shards:
        file = os.path.join(path, shard.name)
        found = files.size(file)
        if found != shard.bytes:
            shown = "no file" if found is None else f"{found} bytes"
            raise InputError(f"{file}: expected {shard.bytes} bytes, found {shown}; make the features again")
    if "train" not in info.splits or not info.splits["train"].images:
        raise InputError(f"--data: {given} holds no training images")
    return FeatureDirectory(path, info, vocabulary)


def images(directory: FeatureDirectory, split: str, shards: Sequence[int] | None = None) -> tf.data.Dataset:
    """Parsed records of a split (see `record.parse`), or of some of its shards, in the shards' order."""
    info, paths = directory.info, directory.shard_paths(split)
    raw = tf.data.TFRecordDataset(paths if shards is None else [paths[shard] for shard in shards])
    return raw.map(
        lambda serialized: record.parse(serialized, info.features.shape, info.features.dtype, info.max_caption_length),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def place_of_images(directory: FeatureDirectory) -> str:
    """Where the first validation image was, or the first training image without any: its directory or zip file."""
    val = directory.info.splits.get("val")
    first = next(iter(images(directory, "val" if val and val.images else "train")))
    uri = first["image/uri"].numpy().decode("utf-8", "replace")
    archive = re.search(r"\.zip(?=!/)", uri, re.IGNORECASE)  # a member's URI is `images.zip!/folder/name.jpg`
    return uri[: archive.end()] if archive else posixpath.dirname(uri)


def find_damaged(directory: FeatureDirectory) -> str | None:
    """What is wrong with the first shard that cannot be read to its end, by its checksums; None where all can be."""
    for split in directory.info.splits:
        for path in directory.shard_paths(split):
            try:
                for _ in tf.data.TFRecordDataset(path):
                    pass
            except tf.errors.NotFoundError:
                return f"{path}: expected a shard, found none any more; put it back or make the features again"
            except tf.errors.OpError:
                return f"{path}: damaged or cut short; make the features again"
    return None


def feature_moments(
    directory: FeatureDirectory, pooled: bool, covariance: bool, check: Callable[[], None] = lambda: None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[F]` of the training features, and their variance `[F]` or covariance `[F, F]`; float64, in one pass.

    Of grids, `pooled` measures the mean over positions of each image, otherwise every position counts. `check` is
    called between batches, and may raise to stop.
    """
    size = directory.info.features.shape[-1]
    features = images(directory, "train").map(lambda r: r["image/feature"])
    count, total, products = 0, np.zeros(size), np.zeros((size, size) if covariance else size)
    for batch in features.batch(64).prefetch(tf.data.AUTOTUNE):
        check()
        values = tf.cast(batch, tf.float32)
        values = (pool(values) if pooled else tf.reshape(values, [-1, size])).numpy().astype(np.float64)  # [n, F]
        count += len(values)
        total += values.sum(0)
        products += values.T @ values if covariance else np.square(values).sum(0)
    mean = total / count
    return mean, products / count - (np.outer(mean, mean) if covariance else np.square(mean))
