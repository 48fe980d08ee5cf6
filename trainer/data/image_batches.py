"""A split with images in its records -> batches of images, each with all of its captions, for training the CNN too."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfrecords_schema.record import IMAGE
from tfrecords_schema.vocabulary import PAD, START
from trainer.data import dataset, stored_images
from trainer.data.batches import AHEAD, ahead, windows_of

_READ = 64  # records parsed at a time


class ImageBatch(NamedTuple):
    """What one step of fine-tuning learns from: B images with up to C captions of up to T ids.

    Attributes:
      inputs: uint8 pixels `[B, size, size, 3]`, alone in a tuple; or the tensors `[B, ...]` of a trunk's activations.
      ids: int32 `[B, C, T]`, START first; an image with fewer captions has some of START and PAD alone.
      image: int32 `[B]`, places in the split.
    """

    inputs: tuple[Any, ...]
    ids: Any
    image: Any


class _Window(NamedTuple):
    """The part of a split that is in memory: n images with m captions."""

    jpegs: np.ndarray | None  # [n], bytes
    image: np.ndarray  # [n], places in the split
    ids: np.ndarray  # [m, max_length]
    first: np.ndarray  # [n + 1], where each image's captions begin


@dataclasses.dataclass
class ImageBatches:
    """Batches of a split, epoch by epoch, in an order that follows from the seed and the epoch alone.

    As Batches: shards of a split that is larger than `budget_bytes` are mixed a few at a time, and read again in each
    epoch. Each image comes once an epoch. The last batch of a window may be smaller.

    Attributes:
      batch_size: images.
      size: of the square that images become, in pixels.
      one_caption: draw one caption for each image, in place of all.
      augment: distort images, each in another way in each epoch.
      kept: a trunk's activations of all images, `[images, ...]` each, to be given in place of pixels.
      multiple: the number of replicas; a batch is filled up to a multiple of it with images that have no captions.
    """

    directory: dataset.FeatureDirectory
    split: str
    batch_size: int
    budget_bytes: float
    seed: int
    size: int
    one_caption: bool = False
    augment: bool = False
    kept: Sequence[Any] | None = None
    multiple: int = 1

    def __post_init__(self):
        self._shards = self.directory.info.splits[self.split].shards
        self._first = np.cumsum([0, *(shard.records for shard in self._shards)])
        self._loaded: _Window | None = None

    @property
    def is_cached(self) -> bool:
        """Whether all of the split is in memory."""
        return len(self._windows(0)) == 1

    def steps(self, epoch: int) -> int:
        """How many batches an epoch has; without reading anything."""
        return sum(map(self._batches_of, self._windows(epoch)))

    def dataset(self, epoch: int, start: int = 0) -> tf.data.Dataset:
        """ImageBatches' of an epoch from its batch `start` on, made ahead of their use."""
        ids, image = tf.TensorSpec([None, None, None], tf.int32), tf.TensorSpec([None], tf.int32)
        if self.kept is None:
            given: tuple[Any, ...] = (tf.TensorSpec([None], tf.string),)
        else:
            given = tuple(tf.TensorSpec([None, *kept.shape[1:]], _held_as(kept.dtype)) for kept in self.kept)
        made = tf.data.Dataset.from_generator(
            lambda: self._epoch(epoch, start), output_signature=ImageBatch(given, ids, image)
        )
        if self.kept is None:
            made = made.map(lambda batch: self._decoded(batch, epoch), num_parallel_calls=AHEAD)
        else:
            types = [tf.as_dtype(kept.dtype) for kept in self.kept]
            made = made.map(lambda batch: _restored(batch, types))
        return ahead(made)

    def _decoded(self, batch: ImageBatch, epoch: int) -> ImageBatch:
        """A batch of JPEGs as one of pixels."""
        jpegs = batch.inputs[0]
        if self.augment:
            begin = [tf.constant(self.seed, tf.int64) * 1_000_003 + epoch]
            seeds = tf.stack([tf.repeat(begin, tf.size(jpegs)), tf.cast(batch.image, tf.int64)], axis=1)
            pixels = tf.map_fn(
                lambda one: stored_images.distorted(one[0], self.size, one[1]),
                (jpegs, seeds),
                fn_output_signature=_UINT8,
            )
        else:
            pixels = tf.map_fn(lambda one: stored_images.square(one, self.size), jpegs, fn_output_signature=_UINT8)
        return batch._replace(inputs=(tf.ensure_shape(pixels, [None, self.size, self.size, 3]),))

    def _epoch(self, epoch: int, start: int) -> Iterator[ImageBatch]:
        for number, shards in enumerate(self._windows(epoch)):
            count = self._batches_of(shards)
            if start >= count:
                start -= count
                continue
            window = self._load(shards)
            rng = np.random.default_rng([self.seed, epoch, number])
            order = rng.permutation(len(window.image))
            chosen = rng.integers(0, np.diff(window.first))  # of each image's captions, where only one is wanted
            for at in range(start * self.batch_size, len(order), self.batch_size):
                yield self._batch(window, order[at : at + self.batch_size], chosen)
            start = 0

    def _windows(self, epoch: int) -> list[list[int]]:
        sizes = [shard.bytes if self.kept is None else 0 for shard in self._shards]
        return windows_of(sizes, self.budget_bytes, [self.seed, epoch])

    def _batches_of(self, shards: list[int]) -> int:
        return math.ceil(sum(self._shards[shard].records for shard in shards) / self.batch_size)

    def _load(self, shards: list[int]) -> _Window:
        """Reads shards; what is kept is read once."""
        if self._loaded:
            return self._loaded
        keys = ("caption/ids", "caption/length") + ((IMAGE,) if self.kept is None else ())
        records = dataset.images(self.directory, self.split, shards).map(lambda r: {key: r[key] for key in keys})
        jpegs, ids, counts = [], [], []
        for batch in records.ragged_batch(_READ).prefetch(2):
            ids.append(batch["caption/ids"].values.numpy().reshape(-1, self.directory.info.max_caption_length))
            counts.append(batch["caption/length"].row_lengths().numpy())
            if self.kept is None:
                jpegs.append(batch[IMAGE].numpy())
        window = _Window(
            np.concatenate(jpegs) if jpegs else None,
            np.concatenate([np.arange(self._first[shard], self._first[shard + 1]) for shard in shards]),
            np.concatenate(ids).astype(np.int32),
            np.cumsum([0, *np.concatenate(counts)]),
        )
        if self.is_cached:
            self._loaded = window
        return window

    def _batch(self, window: _Window, rows: np.ndarray, chosen: np.ndarray) -> ImageBatch:
        captions = [window.ids[window.first[row] : window.first[row + 1]] for row in rows]
        if self.one_caption:
            captions = [given[chosen[row]][None] for given, row in zip(captions, rows, strict=True)]
        missing = -len(rows) % self.multiple
        rows = np.concatenate([rows, np.repeat(rows[:1], missing)])
        length = max(int((given != PAD).sum(1).max()) for given in captions)
        ids = np.full((len(rows), max(map(len, captions)), length), PAD, np.int32)
        ids[:, :, 0] = START
        for place, given in enumerate(captions):
            ids[place, : len(given)] = given[:, :length]
        image = window.image[rows].astype(np.int32)
        if self.kept is None:
            assert window.jpegs is not None
            return ImageBatch((window.jpegs[rows],), ids, image)
        return ImageBatch(tuple(kept[image].view(_held_as(kept.dtype)) for kept in self.kept), ids, image)


_UINT8 = tf.TensorSpec([None, None, 3], tf.uint8)


def _held_as(dtype: Any) -> Any:
    """The type that numbers travel as: bfloat16, which numpy does not know by itself, as the bits that it is."""
    return np.dtype(np.uint16) if dtype == tf.bfloat16.as_numpy_dtype else np.dtype(dtype)


def _restored(batch: ImageBatch, types: Sequence[tf.DType]) -> ImageBatch:
    """With the types that the inputs had."""
    inputs = tuple(
        tf.bitcast(given, dtype) if given.dtype != dtype else given
        for given, dtype in zip(batch.inputs, types, strict=True)
    )
    return batch._replace(inputs=inputs)
