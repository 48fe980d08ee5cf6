"""Parts of files by where they begin and end: few descriptors for many files, or one request of a store."""

from __future__ import annotations

import contextlib
import functools
import os

from tfrecords_schema.storage import objects, paths


class _Descriptor:
    """An open local file, closed when nobody has it any more."""

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self):
        with contextlib.suppress(AttributeError):  # it could not be opened
            os.close(self.number)


@functools.lru_cache(maxsize=32)
def _descriptor(path: str) -> _Descriptor:
    """The descriptor of a file, one for all threads; only the latest are kept, however many files there are."""
    return _Descriptor(path)


def read(path: str, start: int, stop: int) -> bytes:
    """The bytes `start` to `stop` of a file, fewer where it ends before. Safe from many threads. Raises OSError."""
    if paths.is_remote(path):
        return objects.read(path, start, stop)
    descriptor = _descriptor(path)  # held by this name until it is read, whoever is opened meanwhile
    return os.pread(descriptor.number, stop - start, start)


def forget() -> None:
    """Has every file be opened anew: one may have been replaced."""
    _descriptor.cache_clear()
