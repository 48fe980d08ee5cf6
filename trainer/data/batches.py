"""A split -> batches of captions of like length, in an order that follows from the seed and the epoch alone."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrecords_schema.manifests.features_info import FeaturesInfo, ShardInfo
from tfrecords_schema.vocabulary import END, PAD, START, tokenise
from trainer.data import dataset

AHEAD = 4  # batches made while the device is at work


class Batch(NamedTuple):
    """What one step learns from.

    Attributes:
      features: `[B, *shape]`, in the type they are stored in.
      ids: int32 `[B, K, T]`, K captions of each image, START first, then words, END, PAD, as long as the longest;
        a caption that is not there (not all images have as many) is START and PAD.
      image: int32 `[B]`, the images' places in the split.
    """

    features: np.ndarray
    ids: np.ndarray
    image: np.ndarray


class _Window(NamedTuple):
    """The part of a split that is in memory: n images with m captions."""

    features: np.ndarray  # [n, *shape]
    image: np.ndarray  # [n], places in the split
    ids: np.ndarray  # [m, max_length]
    length: np.ndarray  # [m]
    owner: np.ndarray  # [m], the caption's image in `features`


@dataclasses.dataclass
class Batches:
    """Batches of a split, epoch by epoch.

    A split smaller than `budget_bytes` is read once and kept. Of a larger one, shards are drawn in a new order in each
    epoch, and as many of them as half of the budget holds are mixed with each other while the next ones are read;
    shards are made by a hash of ids, so that each is a random part of the split.

    Within what is in memory, captions are sorted by length, those of one length in a random order, and cut into
    batches, which then come in a random order: hardly anything is padded. The last one may be smaller.

    Of a feature grid, whose positions cost more than a caption's words, all captions of an image come together, and
    images are sorted by their longest caption; a batch has as many images as have `batch_size` captions on average.

    Attributes:
      batch_size: captions.
      one_caption: draw one caption for each image, in place of all.
      multiple: the number of replicas; a batch is filled up to a multiple of it with captions that hold no word to
        learn.
    """

    directory: dataset.FeatureDirectory
    split: str
    batch_size: int
    budget_bytes: float
    seed: int
    one_caption: bool = False
    multiple: int = 1

    def __post_init__(self):
        self._shards = self.directory.info.splits[self.split].shards
        self._first = np.cumsum([0, *(shard.records for shard in self._shards)])  # places of each shard's first image
        self._bytes = [_bytes_of(shard, self.directory.info) for shard in self._shards]
        self.is_cached = sum(self._bytes) <= self.budget_bytes
        self._kept: _Window | None = None
        split = self.directory.info.splits[self.split]
        self._by_image = len(self.directory.info.features.shape) == 2 and not self.one_caption
        self._images = self.batch_size  # in a batch, one for each caption or for all of its own
        if self._by_image:
            self._images = max(1, round(self.batch_size * split.images / max(1, split.captions)))

    def forget(self) -> None:
        """Has what is kept read again, since features are others now."""
        self._kept = None

    def steps(self, epoch: int) -> int:
        """How many batches an epoch has; without reading anything."""
        return sum(self._batches_of(window) for window in self._windows(epoch))

    def dataset(self, epoch: int, start: int = 0) -> tf.data.Dataset:
        """An epoch from its batch `start` on, made ahead of their use."""
        spec = self.directory.info.features
        signature = Batch(
            tf.TensorSpec([None, *spec.shape], spec.dtype),
            tf.TensorSpec([None, None, None], tf.int32),
            tf.TensorSpec([None], tf.int32),
        )
        made = tf.data.Dataset.from_generator(lambda: self.epoch(epoch, start), output_signature=signature)
        return ahead(made)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from `start` on; the same ones whenever they are asked for."""
        windows = list(enumerate(self._windows(epoch)))
        while windows and start >= (count := self._batches_of(windows[0][1])):
            start -= count
            windows.pop(0)
        with concurrent.futures.ThreadPoolExecutor(1) as reader:
            coming = None
            for place, (number, shards) in enumerate(windows):
                window = coming.result() if coming else self._load(shards)
                if place + 1 < len(windows):
                    coming = reader.submit(self._load, windows[place + 1][1])
                rng = np.random.default_rng([self.seed, epoch, number])
                for captions in self._cut(window, rng)[start:]:
                    yield self._batch(window, captions)
                start = 0

    def _windows(self, epoch: int) -> list[list[int]]:
        """Which shards are in memory together, one after the other."""
        return windows_of(self._bytes, self.budget_bytes, [self.seed, epoch])

    def _batches_of(self, shards: list[int]) -> int:
        by_image = self.one_caption or self._by_image
        items = (self._shards[s].records if by_image else self._shards[s].captions for s in shards)
        return math.ceil(sum(items) / self._images)

    def _load(self, shards: list[int]) -> _Window:
        """Reads shards; what is kept is read once."""
        if self._kept:
            return self._kept
        spec = self.directory.info.features
        image = np.concatenate([np.arange(self._first[s], self._first[s + 1]) for s in shards])
        features = np.empty((len(image), *spec.shape), spec.dtype)
        ids, length, captions = [], [], []
        done = 0
        records = dataset.images(self.directory, self.split, shards)
        keys = ("image/feature", "caption/ids", "caption/length")
        for batch in records.map(lambda r: {key: r[key] for key in keys}).ragged_batch(64).prefetch(2):
            read = batch["image/feature"].numpy()
            features[done : done + len(read)] = read
            done += len(read)
            ids.append(batch["caption/ids"].values.numpy().reshape(-1, self.directory.info.max_caption_length))
            length.append(batch["caption/length"].values.numpy())
            captions.append(batch["caption/length"].row_lengths().numpy())
        owner = np.repeat(np.arange(done), np.concatenate(captions))
        window = _Window(features, image, np.concatenate(ids).astype(np.int32), np.concatenate(length), owner)
        if self.is_cached:
            self._kept = window
        return window

    def _cut(self, window: _Window, rng: np.random.Generator) -> list[np.ndarray]:
        """Captions of a window, as lists of their places `[B, K]`, one list a batch; -1 where there is none."""
        if self._by_image:
            rows = _side_by_side(window.owner)
        else:
            rows = np.arange(len(window.length))[:, None]
            if self.one_caption:  # the first of each image in a random order
                shuffled = rng.permutation(rows)
                rows = shuffled[np.unique(window.owner[shuffled], return_index=True)[1]]
        longest = np.where(rows < 0, 0, window.length[rows]).max(axis=1)
        by_length = rows[np.argsort(longest + rng.random(len(rows)))]
        batches = [by_length[i : i + self._images] for i in range(0, len(by_length), self._images)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _batch(self, window: _Window, captions: np.ndarray) -> Batch:
        """The captions at places `[B, K]` of a window."""
        # Filled up with some that are as short as a caption can be: cuDNN wants no empty replica.
        captions = np.pad(captions, ((0, -len(captions) % self.multiple), (0, 0)), constant_values=-1)
        captions = captions[:, (captions >= 0).any(axis=0)]
        is_there = captions >= 0
        ids = window.ids[captions, : window.length[captions[is_there]].max()]
        ids[~is_there] = PAD
        ids[..., 0] = START
        owner = window.owner[np.where(is_there, captions, captions[0])[:, 0]]
        return Batch(window.features[owner], ids, window.image[owner].astype(np.int32))


def _side_by_side(owner: np.ndarray) -> np.ndarray:
    """Whose each caption is `[m]`, rising -> the captions of each image `[n, K]`, and -1 where it has fewer."""
    _, first, counts = np.unique(owner, return_index=True, return_counts=True)
    place = np.arange(counts.max())
    return np.where(place < counts[:, None], first[:, None] + place, -1)


def ahead(made: tf.data.Dataset) -> tf.data.Dataset:
    """The batches of `made`, made ahead of their use, and each to be split among replicas."""
    options = tf.data.Options()
    # Replicas share this process: there are no files to share out.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return made.prefetch(AHEAD).with_options(options)


def windows_of(sizes: Sequence[int], budget_bytes: float, seed: Sequence[int]) -> list[list[int]]:
    """Shards of these sizes in bytes: all together, or, in an order that is drawn, as many as half the budget holds."""
    if sum(sizes) <= budget_bytes:
        return [list(range(len(sizes)))]
    windows: list[list[int]] = []
    free = 0.0
    for shard in np.random.default_rng(list(seed)).permutation(len(sizes)):
        if not sizes[shard]:  # a shard without images, of which no batch could be made
            continue
        if not windows or free < sizes[shard]:
            windows.append([])
            free = budget_bytes / 2
        windows[-1].append(int(shard))
        free -= sizes[shard]
    return windows


def _bytes_of(shard: ShardInfo, info: FeaturesInfo) -> int:
    """What a shard takes in memory, about: as much as on disk, but for images, which batches of captions leave out."""
    if info.images is None:
        return shard.bytes
    feature = math.prod(info.features.shape) * np.dtype(info.features.dtype).itemsize
    return shard.records * feature + shard.captions * info.max_caption_length * 8


def references(directory: dataset.FeatureDirectory, split: str) -> list[list[list[int]]]:
    """For each image of a split its captions' ids, END included, START left out, cut where records are cut.

    Words that the vocabulary lacks get ids of their own behind it: whoever says UNK matches none of them.
    """
    ids = {word: i for i, word in enumerate(directory.vocabulary.words)}
    most = directory.info.max_caption_length - 2
    found = []
    for texts in dataset.images(directory, split).map(lambda r: r["caption/text"]).prefetch(64):
        words = (tokenise(text.decode("utf-8", "replace"))[:most] for text in texts.numpy())
        found.append([[*(ids.setdefault(word, len(ids)) for word in caption), END] for caption in words])
    return found
