"""What every store can be asked, the user's flags for them, and the one thread that all clients of a process run in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from tfrecords_schema.storage import faults

FLAGS: dict[str, Any] = {}  # Beam's, by name; see clients.use_flags
Entry = tuple[str, int, str]  # name in the bucket, bytes, and what changes with the content
_Answer = TypeVar("_Answer")


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


def flag(name: str) -> Any:
    """The value of one of Beam's flags: as told to `use_flags`, or as the job of a worker has it, or None."""
    # Not imported, since this package knows nothing of Beam; who runs in a worker of Beam's has it. Elsewhere another
    # thread may be importing it, and have made half of the module.
    beams = getattr(sys.modules.get("apache_beam.options.value_provider"), "RuntimeValueProvider", None)
    found = FLAGS.get(name)
    return beams.get_value(name, lambda value: value, None) if beams and not found else found


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
