"""A shard's images to batches of features: reading, decoding and forward passes run beside each other in threads."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pipelines import images
from pipelines.extractors import Extractor
from pipelines.reading import Reading, StageClock, read_ahead
from pipelines.rejects import ImageError, Reject
from pipelines.sources import Item


@dataclasses.dataclass(frozen=True)
class FeatureBatch:
    """`n` images with features float32 `[n, *shape]`; n is the batch size, or less for a shard's last batch.

    `sizes` are (height, width) in pixels, after EXIF orientation, before resizing.
    """

    items: list[Item]
    sizes: list[tuple[int, int]]
    features: np.ndarray


def extract(
    items: Iterable[Item], extractor: Extractor, load: Callable[[], Extractor], reading: Reading, clock: StageClock
) -> Iterator[FeatureBatch | Reject]:
    """Yields every item exactly once, in a batch or as a Reject; batches keep the order of the items.

    Args:
      extractor: tells sizes.
      load: gives the same one, loaded; called when the first batch is there, so that bad images alone load nothing.
    """
    running: collections.deque[Future[FeatureBatch]] = collections.deque()
    with contextlib.ExitStack() as stack:
        pieces = stack.enter_context(contextlib.closing(_batches(items, extractor, reading, clock)))
        pool = None
        for piece in pieces:
            if isinstance(piece, Reject):
                yield piece
                continue
            if pool is None:
                loaded = load()
                pool = stack.enter_context(ThreadPoolExecutor(loaded.in_flight, thread_name_prefix="forward"))
            running.append(pool.submit(_forward, piece, loaded, clock))
            if len(running) > loaded.in_flight:  # one more is kept ready than can run
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


_Batch = list[tuple[Item, images.Pixels]]


def _batches(
    items: Iterable[Item], extractor: Extractor, reading: Reading, clock: StageClock
) -> Iterator[_Batch | Reject]:
    waiting: _Batch = []
    ahead = 2 * extractor.batch_size + reading.threads
    with contextlib.closing(read_ahead(items, extractor.size, reading, ahead, clock)) as loaded_items:
        for item, loaded in loaded_items:
            if isinstance(loaded, ImageError):
                yield loaded.of(item.id, item.uri)
                continue
            waiting.append((item, loaded))
            if len(waiting) == extractor.batch_size:
                yield waiting
                waiting = []
    if waiting:
        yield waiting


def _forward(batch: _Batch, extractor: Extractor, clock: StageClock) -> FeatureBatch:
    """The features of a batch, padded to the size that the network was traced for."""
    padded = np.zeros((extractor.batch_size, extractor.size, extractor.size, 3), np.uint8)
    for row, (_, pixels) in enumerate(batch):
        padded[row] = pixels.rgb
    with clock.stage("forward"):
        features = extractor(padded)[: len(batch)]
    return FeatureBatch([item for item, _ in batch], [(p.height, p.width) for _, p in batch], features)
