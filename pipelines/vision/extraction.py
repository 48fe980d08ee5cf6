"""A shard's images to batches of features: reading, decoding and forward passes run beside each other in threads."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pipelines.clock import StageClock
from pipelines.items import ImageError, Item, Reject
from pipelines.vision import images
from pipelines.vision.extractors import Extractor
from pipelines.vision.reading import Reading, read_ahead


@dataclasses.dataclass(frozen=True)
class FeatureBatch:
    """`n` images with features `[n, *shape]` of the dtype they are stored in; n is the batch size, or less.

    `sizes` are (height, width) in pixels, after EXIF orientation, before resizing; `jpegs` the images as records keep
    them, None where they do not, empty for features that come from records.
    """

    items: list[Item]
    sizes: list[tuple[int, int]]
    features: np.ndarray
    jpegs: list[bytes | None] = dataclasses.field(default_factory=list)


def extract(
    items: Iterable[Item],
    extractor: Extractor,
    load: Callable[[], Extractor],
    reading: Reading,
    clock: StageClock,
    dtype: str,
) -> Iterator[FeatureBatch | Reject]:
    """Yields every item exactly once, in a batch or as a Reject; batches keep the order of the items.

    A feature that `dtype` cannot hold, or that is no number, makes its image a Reject.

    Args:
      extractor: tells sizes.
      load: gives the same one, loaded; called when the first batch is there, so that bad images alone load nothing.
      dtype: that features are to be stored in.
    """
    running: collections.deque[Future[tuple[FeatureBatch, list[Reject]]]] = collections.deque()

    def finished() -> Iterator[FeatureBatch | Reject]:
        batch, rejects = running.popleft().result()
        yield from rejects
        if batch.items:
            yield batch

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
            running.append(pool.submit(forward, piece, loaded, clock, dtype))
            if len(running) > loaded.in_flight:  # one more is kept ready than can run
                yield from finished()
        while running:
            yield from finished()


Batch = list[tuple[Item, images.Pixels]]


def _batches(
    items: Iterable[Item], extractor: Extractor, reading: Reading, clock: StageClock
) -> Generator[Batch | Reject, None, None]:
    waiting: Batch = []
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


def forward(batch: Batch, extractor: Extractor, clock: StageClock, dtype: str) -> tuple[FeatureBatch, list[Reject]]:
    """The features of a batch, padded to a size that the network takes, and Rejects of those that are no numbers."""
    padded = np.zeros((extractor.rows(len(batch)), extractor.size, extractor.size, 3), extractor.pixels)
    for row, (_, pixels) in enumerate(batch):
        padded[row] = pixels.rgb
    with clock.stage("forward"):
        computed = extractor(padded)[: len(batch)]
    with np.errstate(over="ignore"):
        features = computed.astype(dtype)
    good = np.isfinite(features.reshape(len(batch), -1)).all(1)
    rejects = [
        _not_finite(item, feature, dtype)
        for (item, _), feature, fits in zip(batch, computed, good, strict=True)
        if not fits
    ]
    kept = [entry for entry, fits in zip(batch, good, strict=True) if fits]
    sizes, jpegs = [(p.height, p.width) for _, p in kept], [p.jpeg for _, p in kept]
    return FeatureBatch([item for item, _ in kept], sizes, features[good], jpegs), rejects


def _not_finite(item: Item, feature: np.ndarray, dtype: str) -> Reject:
    if np.isfinite(feature).all():
        message = (
            f"the largest value, {np.abs(feature).max():.3g}, is too large for {dtype}; give --feature_dtype float32"
        )
    else:
        message = "the network's output holds infinity or NaN"
    return ImageError("extract", "NotFinite", message).of(item.id, item.uri)


def regrouped(outcomes: Iterator[FeatureBatch | Reject], size: int) -> Iterator[FeatureBatch | Reject]:
    """Small batches joined to batches of exactly `size` images, the last one of what is left; Rejects at once."""
    waiting: FeatureBatch | None = None
    for outcome in outcomes:
        if isinstance(outcome, Reject):
            yield outcome
            continue
        waiting = outcome if waiting is None else _joined(waiting, outcome)
        while len(waiting.items) >= size:
            yield _part(waiting, slice(size))
            waiting = _part(waiting, slice(size, None))
    if waiting is not None and waiting.items:
        yield waiting


def _joined(one: FeatureBatch, other: FeatureBatch) -> FeatureBatch:
    return FeatureBatch(
        one.items + other.items,
        one.sizes + other.sizes,
        np.concatenate([one.features, other.features]),
        one.jpegs + other.jpegs,
    )


def _part(batch: FeatureBatch, which: slice) -> FeatureBatch:
    return FeatureBatch(batch.items[which], batch.sizes[which], batch.features[which], batch.jpegs[which])
