"""Feature directories: opened, checked, and read record by record. Batches are made of them in batches.py."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import itertools
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from tfrecords_schema import record
from tfrecords_schema import shards as shard_files
from tfrecords_schema.errors import InputError, reading
from tfrecords_schema.manifests.features_info import FEATURES_INFO, FeaturesInfo, ShardInfo, open_features
from tfrecords_schema.storage import carried, copies, files, paths
from tfrecords_schema.text import one_line
from tfrecords_schema.vocabulary import Vocabulary
from trainer.model.scaling import pool

_TOLD_BYTES = 2e9  # that much takes seconds to hash


@dataclasses.dataclass(frozen=True)
class FeatureDirectory:
    """An opened feature directory: what it holds, and the vocabulary of its captions.

    Attributes:
      remade: by split, features `[images, *shape]` in the order of the records, to be learned from in place of theirs;
        of those splits that a fine-tuned network has been run on.
    """

    path: str
    info: FeaturesInfo
    vocabulary: Vocabulary
    remade: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def shard_paths(self, split: str) -> list[str]:
        """The files of a split, in order."""
        return [os.path.join(self.path, shard.name) for shard in self.info.splits[split].shards]


def open_directory(path: str, check: Callable[[], None] = lambda: None) -> FeatureDirectory:
    """Checks versions, digests, and that each shard has its recorded size, before anything is read.

    A remote directory is copied to this machine first, or the copy of an earlier run taken. `check` is called
    meanwhile, and may raise to stop.

    All of a local one is read and hashed: who has a shard of other bytes than were written learns nothing of them. That
    takes a second for each 500 MB and core; a copy was hashed when it came.

    Raises:
      InputError: naming the file, what was expected and what was found.
    """
    info, vocabulary = open_features(path, files.read_text, "--data")
    given, shards = path, [shard for split in info.splits.values() for shard in split.shards]
    if paths.is_remote(path):
        texts = {FEATURES_INFO: info.dumps(), info.vocabulary_file: vocabulary.dumps()}
        path = copies.feature_directory(path, texts, shards, check)
    if info.extractor:  # the export carries them on: what is wrong with them is told now, and not after the training
        _require_weights(given, path, info)
    for shard in shards:
        file = os.path.join(path, shard.name)
        try:
            found = files.size(file)
        except OSError as error:
            raise InputError(f"{file}: expected a file that can be read, found: {one_line(error)}") from None
        if found != shard.bytes:
            shown = "no file" if found is None else f"{found} bytes"
            raise InputError(f"{file}: expected {shard.bytes} bytes, found {shown}; make the features again")
    if not paths.is_remote(given):
        _require_digests(path, shards, check)
    if "train" not in info.splits or not info.splits["train"].images:
        raise InputError(f"--data: {given} holds no training images")
    return FeatureDirectory(path, info, vocabulary)


def _require_weights(given: str, local: str, info: FeaturesInfo) -> None:
    """Brings the extractor's weights into a local copy of a feature directory; checks them. Raises InputError."""
    digest, ways = info.features.weights_digest, "put them back or make the features again"
    source, target = paths.join(given, info.extractor), os.path.join(local, info.extractor)
    if paths.is_remote(given):
        try:
            carried.bring(source, target, digest, "--data", ways)
        except OSError as error:
            raise InputError(
                f"--data: {source}: expected weights that can be copied here: {files.reason(error)}"
            ) from None
    else:
        carried.require(target, digest, source, "--data", ways)


def _require_digests(directory: str, shards: Sequence[ShardInfo], check: Callable[[], None]) -> None:
    def sha256(shard: ShardInfo) -> str:
        path = os.path.join(directory, shard.name)
        with reading(path, f"{shard.bytes} bytes"), files.open_binary(path) as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]  # it has readinto

    size = sum(shard.bytes for shard in shards)
    if size > _TOLD_BYTES:
        print(f"comparing {size / 1e9:.1f} GB of features with their digests", flush=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for shard, found in zip(shards, pool.map(sha256, shards), strict=True):
            check()
            if found != shard.sha256:
                raise InputError(
                    f"{os.path.join(directory, shard.name)}: expected the SHA-256 that {FEATURES_INFO} records, "
                    f"{shard.sha256[:12]}…, found {found[:12]}…; put the shard back or make the features again"
                )


def images(directory: FeatureDirectory, split: str, shards: Sequence[int] | None = None) -> tf.data.Dataset:
    """Parsed records of a split (see `record.parse`), or of some of its shards, in the shards' order.

    A feature that holds what is no finite number is an InvalidArgumentError; `find_damaged` tells of which image.
    """
    info, paths = directory.info, directory.shard_paths(split)
    chosen = range(len(paths)) if shards is None else shards
    raw = tf.data.TFRecordDataset([paths[shard] for shard in chosen])

    def parse(serialized):
        parsed = record.parse(
            serialized, info.features.shape, info.features.dtype, info.max_caption_length, info.images is not None
        )
        return {**parsed, "image/feature": tf.debugging.check_numerics(parsed["image/feature"], "image/feature")}

    parsed = raw.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    if split not in directory.remade:
        return parsed
    remade = _remade(directory, split, chosen)
    return tf.data.Dataset.zip(parsed, remade).map(lambda one, feature: {**one, "image/feature": feature})


def _remade(directory: FeatureDirectory, split: str, shards: Iterable[int]) -> tf.data.Dataset:
    """The features of some shards that were made anew, one after the other."""
    first = np.cumsum([0, *(shard.records for shard in directory.info.splits[split].shards)])
    features, spec = directory.remade[split], directory.info.features
    rows = (range(first[shard], first[shard + 1]) for shard in shards)
    places = list(itertools.chain.from_iterable(rows))
    return tf.data.Dataset.from_generator(
        lambda: (features[place] for place in places), output_signature=tf.TensorSpec(spec.shape, spec.dtype)
    )


def place_of_images(directory: FeatureDirectory) -> str:
    """Where the first validation image was, or the first training image without any: its directory or archive."""
    val = directory.info.splits.get("val")
    first = next(iter(images(directory, "val" if val and val.images else "train")))
    uri = first["image/uri"].numpy().decode("utf-8", "replace")
    # A member's URI is `images.zip!/folder/name.jpg`; a cell's `images.parquet!/column/17`.
    archive = re.search(r"\.(zip|tar|parquet)(?=!/)", uri, re.IGNORECASE)
    return uri[: archive.end()] if archive else posixpath.dirname(uri)


def find_damaged(directory: FeatureDirectory) -> str | None:
    """What is wrong with the first shard that cannot be learned from: each record is read; None where all are good."""
    info = directory.info
    for split in info.splits:
        for path in directory.shard_paths(split):
            try:
                with files.open_binary(path) as handle:
                    for serialized in shard_files.read_framed(handle):
                        values = record.decode(
                            serialized,
                            info.features.shape,
                            info.features.dtype,
                            info.max_caption_length,
                            info.images is not None,
                        )
                        if told := _fault(values):
                            return f"{path}: image {values['image/id']!r}: {told}; make the features again"
            except FileNotFoundError:
                return f"{path}: expected a shard, found none any more; put it back or make the features again"
            except (DecodeError, KeyError, OSError, ValueError) as error:
                return f"{path}: damaged or cut short ({one_line(error)}); make the features again"
    return None


def _fault(values: dict[str, Any]) -> str:
    """What is wrong with a record that can be read; empty where nothing is."""
    if not np.isfinite(values["image/feature"]).all():
        return "expected features of finite numbers, found infinity or NaN"
    if record.IMAGE in values:
        try:
            tf.io.decode_jpeg(values[record.IMAGE], channels=3)
        except tf.errors.InvalidArgumentError as error:
            return f"expected a JPEG, found what TensorFlow cannot decode ({files.reason(error)})"
    return ""


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
