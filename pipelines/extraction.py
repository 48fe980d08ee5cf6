"""A shard's images to batches of features: reading, decoding and forward passes run beside each other in threads."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
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
    items: Iterable[Item], extractor: Extractor, reading: Reading, clock: StageClock
) -> Iterator[FeatureBatch | Reject]:
    """Yields every item exactly once, in a batch or as a Reject; batches keep the order of the items."""
    batch_size, in_flight = extractor.batch_size, extractor.in_flight
    waiting: list[tuple[Item, images.Pixels]] = []
    running: collections.deque[Future[FeatureBatch]] = collections.deque()

    def forward(batch: list[tuple[Item, images.Pixels]]) -> FeatureBatch:
        padded = np.zeros((batch_size, extractor.size, extractor.size, 3), np.uint8)
        for row, (_, pixels) in enumerate(batch):
            padded[row] = pixels.rgb
        with clock.stage("forward"):
            features = extractor(padded)[: len(batch)]
        return FeatureBatch([item for item, _ in batch], [(p.height, p.width) for _, p in batch], features)

    ahead = (in_flight + 1) * batch_size + reading.threads
    with (
        ThreadPoolExecutor(in_flight, thread_name_prefix="forward") as pool,
        contextlib.closing(read_ahead(items, extractor.size, reading, ahead, clock)) as loaded_items,
    ):
        for item, loaded in loaded_items:
            if isinstance(loaded, ImageError):
                yield loaded.of(item.id, item.uri)
                continue
            waiting.append((item, loaded))
            if len(waiting) == batch_size:
                running.append(pool.submit(forward, waiting))
                waiting = []
                if len(running) > in_flight:  # one more is kept ready than can run
                    yield running.popleft().result()
        if waiting:
            running.append(pool.submit(forward, waiting))
        while running:
            yield running.popleft().result()
