"""Web servers, by fsspec's client: single files, to be read only, and not too many at a time."""

from __future__ import annotations

import asyncio
import collections
import contextlib

from tfrecords_schema.storage import faults, stores

_CONNECT_S, _READ_S, _TOTAL_S = 10, 30, 300
_REDIRECTS = 5  # at most; aiohttp gives up at the number that it is told, and not after it
_AT_A_TIME = 6  # requests of this process to one host, about what a browser sends
_AGENT = "batch-image-captioning"


class Web:
    """Files of `http://` or `https://` hosts; the host stands for the bucket, and what follows it for the name."""

    def __init__(self, scheme: str) -> None:
        import aiohttp
        from fsspec.implementations.http import HTTPFileSystem

        limits = aiohttp.ClientTimeout(total=_TOTAL_S, sock_connect=_CONNECT_S, sock_read=_READ_S)
        own = {"timeout": limits, "headers": {"User-Agent": _AGENT}, "trust_env": True}
        self._files = HTTPFileSystem(client_kwargs=own, skip_instance_cache=True, use_listings_cache=False)
        self._scheme = scheme
        self._free: dict[str, asyncio.Semaphore] = collections.defaultdict(lambda: asyncio.Semaphore(_AT_A_TIME))

    async def read(self, bucket, name, start, stop, most):
        """As Store's."""

        async def read() -> bytes:
            async with self._asked("GET", bucket, name, stores.byte_range(start, stop)) as answer:
                return await stores.body(answer, most)

        return await faults.patiently(read, f"{self._scheme}://{bucket}")

    async def entry(self, bucket, name):
        """As Store's."""

        async def ask() -> stores.Entry:
            async with self._asked("HEAD", bucket, name, {"Accept-Encoding": "identity"}) as answer:
                version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
                return name, answer.content_length or 0, version.strip('"')

        return await faults.patiently(ask, f"{self._scheme}://{bucket}")

    @contextlib.asynccontextmanager
    async def _asked(self, method: str, bucket: str, name: str, headers: dict[str, str]):
        import yarl

        url = f"{self._scheme}://{bucket}/{name}".partition("#")[0]
        session = await self._files.set_session()
        async with self._free[bucket]:
            place = yarl.URL(url, encoded="%" in url)
            asked = session.request(method, place, headers=headers, max_redirects=_REDIRECTS + 1)
            async with asked as answer:
                answer.raise_for_status()
                yield answer

    async def has_bucket(self, bucket: str) -> bool:
        """As Store's; whether there is such a host, the first file tells."""
        return True

    async def page(self, bucket, prefix, flat, token):
        """Raises OSError: there are no listings."""
        raise OSError("a web server does not tell which files it has; list them in a table")

    async def write(self, bucket, name, local):
        """Raises OSError."""
        raise OSError("a web server's files can be read only")

    async def delete(self, bucket, name):
        """Raises OSError."""
        raise OSError("a web server's files can be read only")
