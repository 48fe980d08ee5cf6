"""From URIs to pixels: threads read and decode ahead of whoever takes the images."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import os
import stat
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pipelines.clock import StageClock
from pipelines.items import ImageError, Item
from pipelines.storage import archives, parquet_cells, tars
from pipelines.vision import devices, images, memory
from tfrecords_schema.manifests.features_info import RESIZE, StoredImages
from tfrecords_schema.storage import faults, files, paths

_TRYING = 16  # threads that look whether images are back
_MAX_FILE_BYTES = 1 << 30  # held in memory by each thread; no photograph is larger


@dataclasses.dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
      threads: that read. More than there are cores, since object stores answer slowly.
      max_pixels: larger images are rejected from their header.
      retries: how often a read is tried again after a passing fault.
      keep: how records keep the image itself; None: they do not.
      resize: how images become square: the extractor's.
    """

    threads: int = 16
    max_pixels: int = images.MAX_PIXELS
    retries: int = faults.READ_RETRIES
    keep: StoredImages | None = None
    resize: str = RESIZE


def some_can_be_read(items: Iterable[Item]) -> bool:
    """Whether any of these images, whose reading failed before, can be read by now."""

    def can_be_read(item: Item) -> bool:
        with contextlib.suppress(ImageError):
            read(item.uri, retries=0)
            return True
        return False

    remaining = list(items)
    if not remaining:
        return False
    with ThreadPoolExecutor(min(len(remaining), _TRYING)) as pool:
        found = any(pool.map(can_be_read, remaining))
        pool.shutdown(cancel_futures=True)
    return found


def is_inside_a_file(uri: str) -> bool:
    """Whether an image is a member of a zip or tar file or a cell of a Parquet file, by its URI."""
    return any(parse(uri) is not None for parse in (archives.parse_uri, parquet_cells.parse_uri, tars.parse_uri))


def read_ahead(
    items: Iterable[Item], size: int, reading: Reading, ahead: int, clock: StageClock
) -> Generator[tuple[Item, images.Pixels | ImageError], None, None]:
    """Each item with its pixels or what is wrong with it, in order; at most `ahead` images are held."""
    source = iter(items)
    # Many threads wait for bytes; no more decode than there are cores, since each holds a whole image in memory.
    decoding = threading.BoundedSemaphore(devices.cores())

    with ThreadPoolExecutor(reading.threads, thread_name_prefix="read") as pool:
        pending: collections.deque[tuple[Item, Future]] = collections.deque()

        def submit(count: int) -> None:
            pending.extend(
                (item, pool.submit(load, item, size, reading, decoding, clock))
                for item in itertools.islice(source, count)
            )

        submit(ahead)
        try:
            while pending:
                item, future = pending.popleft()
                loaded = future.result()
                submit(1)
                yield item, loaded
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def load(
    item: Item, size: int, reading: Reading, decoding: threading.Semaphore, clock: StageClock
) -> images.Pixels | ImageError:
    """An item's pixels `[size, size, 3]`, or what is wrong with it.

    Args:
      decoding: is held while the image is decoded.
    """
    if item.problem:
        return item.problem
    try:
        with contextlib.ExitStack() as stack:
            image = item.given
            if image is None:
                with clock.stage("read"):
                    image = stack.enter_context(held(item.uri, reading.retries))
            encoded = images.encoded(image, size, reading.max_pixels, reading.keep, reading.resize)
            # In this order: who waits for memory must not keep others from decoding small images.
            with memory.DECODING.taking(encoded.memory), decoding, clock.stage("decode"):
                return encoded.pixels(size, reading.keep)
    except ImageError as error:
        return error


@contextlib.contextmanager
def held(uri: str, retries: int | None = None) -> Iterator[bytes]:
    """A context with what `read` gives; within it, a large file counts as memory that all threads together may hold."""
    with contextlib.ExitStack() as stack:

        def admit(size: int) -> None:
            _check_size(size)
            stack.enter_context(memory.FILES.taking(size))

        yield read(uri, retries, admit)


def _check_size(size: int) -> None:
    if size > _MAX_FILE_BYTES:
        raise faults.TooLargeError(size, _MAX_FILE_BYTES)


def read(uri: str, retries: int | None = None, admit: Callable[[int], None] = _check_size) -> bytes:
    """All bytes of a file, of a member of a zip or tar file, or of a cell of a Parquet file.

    Args:
      retries: how often it is tried again after a passing fault; None for the default.
      admit: is given the number of bytes, before they are read where that can be told; raises TooLargeError.

    Raises:
      ImageError: stage "read"; "Unreachable" where a later run may succeed.
      MemoryError, OSError: this machine has no memory or descriptors left, which is no fault of the image.
    """
    try:
        with faults.retries(retries):
            return _read(uri, admit)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("read", "Absent", "no such file") from None
    except faults.TooLargeError as error:
        raise ImageError("read", "TooLarge", str(error)) from None
    except faults.UnreachableError as error:
        raise ImageError("read", "Unreachable", str(error)) from None
    except Exception as error:
        if faults.is_of_the_machine(error):
            raise
        raise ImageError("read", "Unreadable", f"{type(error).__name__}: {error}") from None


def _read(uri: str, admit: Callable[[int], None]) -> bytes:
    cell = parquet_cells.parse_uri(uri)
    if cell and not paths.is_file(uri):
        return parquet_cells.read(*cell, admit)
    part = tars.parse_uri(uri)
    if part and not paths.is_file(uri):
        return tars.read(*part, admit)
    member = archives.parse_uri(uri)
    if member and not paths.is_file(uri):
        return archives.open_archive(member[0]).read(member[1], admit)
    if paths.is_remote(uri):
        if not paths.has_filesystem(uri):
            raise ImageError("read", "Unreadable", f"no filesystem for {uri}; {paths.way_to_read(uri)}")
        data = files.read_bytes(uri, _MAX_FILE_BYTES)
        admit(len(data))
        return data
    status = os.stat(uri)
    # A pipe would be waited on for ever, a device may have no end.
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("read", "Unreadable", "a directory, a pipe or a device, not a file")
    admit(status.st_size)
    return files.read_bytes(uri)
