"""A shard's images to batches of features: reading and decoding run ahead in threads, beside the forward pass."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipelines import files, images
from pipelines.extractors import Extractor
from pipelines.rejects import ImageError, Reject
from pipelines.sources import Item


@dataclasses.dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
      threads: that read and decode. More than there are cores, since object stores answer slowly.
      max_pixels: larger images are rejected from their header.
    """

    threads: int = 16
    max_pixels: int = images.MAX_PIXELS


@dataclasses.dataclass(frozen=True)
class FeatureBatch:
    """`n` images with features float32 `[n, *shape]`; n is the batch size, or less for a shard's last batch."""

    items: list[Item]
    pixels: list[images.Pixels]
    features: np.ndarray


def extract(items: Iterable[Item], extractor: Extractor, reading: Reading) -> Iterator[FeatureBatch | Reject]:
    """Yields every item exactly once, in a batch or as a Reject; batches keep the order of the items."""
    size, batch_size = extractor.network.size, extractor.batch_size
    waiting: list[tuple[Item, images.Pixels]] = []

    def flush() -> FeatureBatch:
        padded = np.zeros((batch_size, size, size, 3), np.uint8)
        for row, (_, pixels) in enumerate(waiting):
            padded[row] = pixels.rgb
        features = extractor(padded)[: len(waiting)]
        batch = FeatureBatch([item for item, _ in waiting], [pixels for _, pixels in waiting], features)
        waiting.clear()
        return batch

    for item, loaded in read_ahead(items, size, reading, ahead=2 * batch_size + reading.threads):
        if isinstance(loaded, ImageError):
            yield loaded.of(item.id, item.uri)
            continue
        waiting.append((item, loaded))
        if len(waiting) == batch_size:
            yield flush()
    if waiting:
        yield flush()


def some_can_be_used(items: Iterable[Item], extractor: Extractor, reading: Reading) -> bool:
    """Whether any of these images, rejected before, could be used by now."""
    loaded = read_ahead(items, extractor.network.size, reading, ahead=2 * reading.threads)
    return any(isinstance(found, images.Pixels) for _, found in loaded)


def read_ahead(
    items: Iterable[Item], size: int, reading: Reading, ahead: int
) -> Iterator[tuple[Item, images.Pixels | ImageError]]:
    """Each item with its pixels or what is wrong with it, in order; at most `ahead` images are held."""
    source = iter(items)
    with ThreadPoolExecutor(reading.threads, thread_name_prefix="read") as pool:

        def submit(count: int) -> None:
            for item in itertools.islice(source, count):
                pending.append((item, pool.submit(_load, item, size, reading.max_pixels)))

        pending: collections.deque = collections.deque()
        submit(ahead)
        while pending:
            item, future = pending.popleft()
            loaded = future.result()
            submit(1)
            yield item, loaded


def _load(item: Item, size: int, max_pixels: int) -> images.Pixels | ImageError:
    if item.problem:
        return item.problem
    try:
        return images.decode(_read(item.uri), size, max_pixels)
    except ImageError as error:
        return error


def _read(uri: str) -> bytes:
    """All of a file. Raises ImageError, stage "read"."""
    try:
        # A pipe would be waited on for ever, a device may have no end.
        if not files.is_local(uri) or stat.S_ISREG(os.stat(uri).st_mode):
            return files.read_bytes(uri)
    except FileNotFoundError:
        raise ImageError("read", "Absent", "no such file") from None
    except Exception as error:
        raise ImageError("read", "Unreadable", f"{type(error).__name__}: {error}") from None
    raise ImageError("read", "Unreadable", "a directory, a pipe or a device, not a file")
