"""Remote files one by one: read whole or in part by one request, written whole or not at all. Errors are OSErrors.

FileNotFoundError is one that is not there, UnreachableError a store that did not answer however often it was asked.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import io
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, BinaryIO

from tfrecords_schema.storage import clients, faults, paths, stores

_BUFFER_BYTES = 1 << 20
_DELETING = 16  # threads
_LISTING = 8  # threads, and no fewer pages of names that are held
Entry = tuple[str, int, str]  # URI, bytes, and what changes with the content


def split(path: str) -> tuple[str, str, str]:
    """(scheme, bucket, name) of a remote path."""
    scheme, (bucket, _, name) = paths.scheme(path), path.partition("://")[2].partition("/")
    if scheme in paths.HDFS and stores.flag("hdfs_host") and not stores.flag("hdfs_full_urls"):
        return scheme, "", f"{bucket}/{name}"  # as Beam spells paths
    return scheme, bucket, name


@contextlib.contextmanager
def _errors(path: str) -> Iterator[None]:
    """All errors of a client become OSErrors of one line that begins with the path."""
    try:
        yield
    except Exception as error:
        if faults.is_of_the_machine(error):
            if isinstance(error, MemoryError | OSError):
                raise
            raise OSError(errno.ENOMEM, f"{path}: {faults.told(error)}") from error
        if faults.is_absent(error):
            raise FileNotFoundError(errno.ENOENT, "no such object", path) from None
        if isinstance(error, faults.TooLargeError):
            raise
        kind = faults.UnreachableError if faults.is_passing(error) else OSError
        raise kind(f"{path}: {faults.told(error)}") from None


def _call(method: str, path: str, *arguments: Any, of_name: bool = True) -> Any:
    """What a client's method returns; of an absent object it is asked whether its bucket is there."""
    scheme, bucket, name = split(path)
    store = clients.store(scheme, bucket)
    ask: Callable[..., Coroutine] = getattr(store, method)
    try:
        with _errors(path):
            return stores.run(ask, bucket, *([name] if of_name else []), *arguments)
    except FileNotFoundError:
        if (scheme, bucket) not in _there:
            require_bucket(path)
            _there.add((scheme, bucket))
        raise


_there: set[tuple[str, str]] = set()  # buckets that are known to be


def require_bucket(path: str) -> None:
    """Raises OSError where nobody answers for a bucket, or there is none. "Forbidden" is an answer too."""
    scheme, bucket, _ = split(path)
    place = f"{scheme}://{bucket}"
    if not _call("has_bucket", place, of_name=False):
        raise OSError(f"{place}: no such bucket")


def read(path: str, start: int = 0, stop: int | None = None, most: int | None = None) -> bytes:
    """A file's bytes `start` to `stop`, or to its end, by one request.

    Raises:
      OSError: it cannot be read; TooLargeError, of these, before a byte is fetched, where there are more than `most`.
    """
    return _call("read", path, start, stop, most)


def entry(path: str) -> Entry:
    """What a listing would say of a file. Raises OSError."""
    return (path, *_call("entry", path)[1:])


def write(path: str, local: str) -> None:
    """Replaces a remote file by a local one when all of it is there, and not before. Raises OSError."""
    _call("write", path, local)


def delete(given: Iterable[str]) -> None:
    """Deletes remote files; those that are not there are passed over. Raises OSError."""

    def delete_one(path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            _call("delete", path)

    for_each(delete_one, given, _DELETING)


def for_each(do: Callable[[Any], Any], given: Iterable[Any], threads: int) -> None:
    """Calls a function with each in several threads, with this thread's settings; the first error ends it."""
    with ThreadPoolExecutor(threads) as pool:
        pending = [pool.submit(contextvars.copy_context().run, do, one) for one in given]
        try:
            for future in pending:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def listing(prefix: str) -> Iterator[list[Entry]]:
    """The remote files whose names begin with a prefix, in batches, in no order; no more than some pages are held.

    Directories are listed beside each other where there are a thousand at most. Raises OSError.
    """
    scheme, bucket, name = split(prefix)
    root = f"{scheme}://{bucket}/" if bucket else f"{scheme}://"

    def page(name: str, flat: bool, token: Any = None) -> tuple[list[Entry], list[tuple]]:
        """The entries of a page, and the pages that are to be asked for after it."""
        try:
            found, directories, following = _call("page", root + name, flat, token)
        except FileNotFoundError:  # of a filesystem with directories
            return [], []
        entries = [(root + key, size, version) for key, size, version in found if not key.endswith("/")]
        if not flat and following:  # more directories than would be listed one by one
            return [], [(name, True)]
        more = [(directory, len(directories) > 1) for directory in directories]
        return entries, [*more, *([(name, flat, following)] if following else [])]

    with ThreadPoolExecutor(_LISTING) as pool:
        pending: set[Future] = {pool.submit(contextvars.copy_context().run, page, name, False)}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    entries, more = future.result()
                    pending |= {pool.submit(contextvars.copy_context().run, page, *asked) for asked in more}
                    if entries:
                        yield entries
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def open_binary(path: str) -> BinaryIO:
    """A handle to read and seek in, which fetches what is read, a megabyte at least. Raises OSError."""
    if paths.is_web(path):
        return io.BytesIO(read(path))
    return io.BufferedReader(_Reader(path), _BUFFER_BYTES)


class _Reader(io.RawIOBase):
    def __init__(self, path: str):
        self._path, self._position = path, 0
        _, self._size, self._version = entry(path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer) -> int:
        stop = min(self._size, self._position + len(buffer))
        if self._position >= stop:
            return 0
        data = read(self._path, self._position, stop)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
