"""The clients of stores, made by fsspec: once per process and place, with the user's flags, and one thread for all.

fsspec's own caches are not used: what is listed or read is what is there now.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from tfrecords_schema.storage import faults, paths

_flags: dict[str, Any] = {}
_clients: dict[tuple[str, str], Store] = {}
_making = threading.Lock()
_Answer = TypeVar("_Answer")
Entry = tuple[str, int, str]  # name in the bucket, bytes, and what changes with the content


class Store(Protocol):
    """A store's requests, as coroutines. Passing faults are tried again inside, others raised as they are."""

    async def has_bucket(self, bucket: str) -> bool:
        """Whether there is such a bucket, for all that one is allowed to know."""

    async def read(self, bucket: str, name: str, start: int, stop: int | None, most: int | None) -> bytes:
        """Bytes `start` to `stop`, or to the end; TooLargeError is raised before more than `most` are fetched."""

    async def entry(self, bucket: str, name: str) -> Entry:
        """What a listing says of one object."""

    async def page(self, bucket: str, prefix: str, flat: bool, token: Any) -> tuple[list[Entry], list[str], Any]:
        """(objects, prefixes up to the next slash where not `flat`, token of the next page or None)."""

    async def write(self, bucket: str, name: str, local: str) -> None:
        """Makes a local file an object, which is there when all of it is."""

    async def delete(self, bucket: str, name: str) -> None:
        """Also one that is not there."""


def use_flags(flags: Mapping[str, Any]) -> None:
    """Has clients made by Beam's flags for stores (`s3_endpoint_url`, `no_auth` and others) from now on."""
    _flags.clear()
    _flags.update(flags)
    forget()


def flag(name: str) -> Any:
    """The value of one of Beam's flags: as told to `use_flags`, or, in a worker, as the job has it; None for none."""
    # Not imported, since this package knows nothing of Beam; who runs in a worker of Beam's has it.
    beams = sys.modules.get("apache_beam.options.value_provider")
    found = _flags.get(name)
    return beams.RuntimeValueProvider.get_value(name, lambda value: value, None) if beams and not found else found


def forget() -> None:
    """Has all clients made anew. Another process, forked from this one, begins with that: connections are no heirs."""
    global _making
    _clients.clear()
    faults.forget()
    _making = threading.Lock()


os.register_at_fork(after_in_child=forget)


def _make(scheme: str, bucket: str) -> Store:
    if scheme in paths.S3:
        from tfrecords_schema.storage.s3 import S3

        return S3()
    if scheme in paths.GOOGLE:
        from tfrecords_schema.storage.google import Google

        return Google()
    if scheme in paths.WEB:
        from tfrecords_schema.storage.web import Web

        return Web(scheme)
    from tfrecords_schema.storage.other import Other

    return Other(scheme, bucket)


def store(scheme: str, bucket: str) -> Store:
    """The client for a bucket. Raises OSError where it cannot be made: no package, a wrong profile, endpoint or key."""
    key = (scheme, "") if scheme in (*paths.S3, *paths.GOOGLE, *paths.WEB) else (scheme, bucket)
    with _making:
        if key not in _clients:
            try:
                _clients[key] = _make(scheme, bucket)
            except ImportError as error:
                raise OSError(f"{error}; {paths.way_to_read(f'{scheme}://')}") from None
            except Exception as error:  # each client has kinds of its own
                if faults.is_of_the_machine(error):
                    raise
                raise OSError(f"{type(error).__name__}: {faults.told(error)}") from None
        return _clients[key]


def run(ask: Callable[..., Coroutine[Any, Any, _Answer]], *arguments: Any) -> _Answer:
    """What a coroutine returns, which fsspec's thread runs beside those of other threads of ours."""
    from fsspec.asyn import get_loop, sync

    return sync(get_loop(), ask, *arguments)


async def body(response: Any, most: int | None) -> bytes:
    """All of an answer of aiohttp's. Raises TooLargeError, before it is fetched where the server tells its length."""
    if most is None:
        return await response.read()
    if (response.content_length or 0) > most:
        raise faults.TooLargeError(response.content_length, most)
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > most:
            raise faults.TooLargeError(size, most)
        parts.append(part)
    return b"".join(parts)


def byte_range(start: int, stop: int | None) -> dict[str, str]:
    """The header that asks for a part; empty for the whole."""
    return {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"} if start or stop is not None else {}
