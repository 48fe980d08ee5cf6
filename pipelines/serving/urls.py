"""Images by URL, of strangers: http(s) of public addresses alone, which are checked where a socket is opened.

A name is resolved once for a connection, all of its addresses must be public, and one of these very addresses is
connected to: a name that changes between a check and its use has nothing to change in between. What makes the socket
checks again, whatever way an address came to it. Redirects are followed here, each as if it were asked for.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from pipelines.items import ImageError
from pipelines.serving.errors import RequestError
from tfrecords_schema.storage import faults

Resolve = Callable[[str, int], Awaitable[list[str]]]
_REDIRECTS = 3
_MOVED = {301, 302, 303, 307, 308}
_CONNECT_S = 5
_AGENT = "batch-image-captioning"
# What Python, or some version of it, takes for the internet's, and is not: addresses of protocols (where Oracle's cloud
# has its metadata), Azure's, which gives out credentials, and ways to write an IPv4 address into another: Teredo, 6to4.
_OTHERS = [
    ipaddress.ip_network(one)
    for one in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2002::/16")
]
_INTERNET_6 = ipaddress.ip_network("2000::/3")  # of IPv6, all that is given out; NAT64 is elsewhere


class _RefusedError(Exception):
    """An address that is not to be connected to."""


def is_public(address: str) -> bool:
    """Whether an address, in its usual form, is one of the internet, and of no machine or network of ours."""
    try:
        found: Any = ipaddress.ip_address(address)
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    if found.version == 6 and found not in _INTERNET_6:
        return False
    is_odd = found.is_multicast or found.is_reserved or found.is_unspecified
    return found.is_global and not is_odd and not any(found in network for network in _OTHERS)


class Fetcher:
    """Reads images by their URLs.

    Args:
      most: bytes of one.
      total_s: seconds that one may take, with all redirects.
      resolve: (name, port) -> its addresses; the system's by default.
      is_allowed: which addresses may be connected to.
    """

    def __init__(
        self,
        most: int,
        total_s: float,
        resolve: Resolve | None = None,
        is_allowed: Callable[[str], bool] = is_public,
    ):
        self._most, self._total_s, self._is_allowed = most, total_s, is_allowed
        self._resolve = resolve or self._by_system
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="resolve")  # names that take long keep only each other

    async def fetch(self, url: str, hold: Callable[[int], None]) -> bytes | ImageError:
        """The bytes that a URL names, or why there are none.

        Args:
          hold: is given the number of bytes as they come.
        """
        try:
            async with asyncio.timeout(self._total_s):
                return await self._followed(url, hold)
        except ImageError as error:
            return error
        except RequestError:
            raise
        except _RefusedError:
            return _refused()
        except TimeoutError:
            return ImageError("read", "Unreachable", f"not there within {self._total_s:g} seconds")
        except (aiohttp.ClientError, OSError, ValueError) as error:  # the last of what yarl finds no URL
            if faults.is_of_the_machine(error):
                raise
            kind = "Unreachable" if faults.is_passing(error) else "Unreadable"
            return ImageError("read", kind, type(error).__name__)

    async def _followed(self, url: str, hold: Callable[[int], None]) -> bytes:
        place = yarl.URL(url)
        connector = aiohttp.TCPConnector(
            resolver=_Resolver(self._addresses), use_dns_cache=False, socket_factory=self._socket, force_close=True
        )
        # No proxy of the environment: it would resolve names by itself.
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": _AGENT, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=self._total_s, sock_connect=_CONNECT_S),
            auto_decompress=False,  # what is packed is no image, and might unpack to anything
            trust_env=False,
        ) as session:
            for _ in range(_REDIRECTS + 1):
                self._check(place)
                async with session.get(place, allow_redirects=False) as answer:
                    if answer.status in _MOVED and (where := answer.headers.get("Location")):
                        place = place.join(yarl.URL(where))
                        continue
                    return await self._body(answer, hold)
        raise ImageError("read", "Unreadable", f"more than {_REDIRECTS} redirects")

    def _check(self, place: yarl.URL) -> None:
        """What can be told without asking anybody."""
        host = place.host
        if place.scheme not in ("http", "https") or not host or place.user or place.password:
            raise _RefusedError
        is_number = ":" in host or host.replace(".", "").isdigit()  # aiohttp resolves none of these
        if is_number and not self._is_allowed(host):
            raise _RefusedError

    async def _addresses(self, host: str, port: int) -> list[str]:
        found = await self._resolve(host, port)
        if not found or not all(map(self._is_allowed, found)):
            raise _RefusedError
        return found

    def _socket(self, info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        if not self._is_allowed(address[0]):
            raise _RefusedError
        return socket.socket(family, kind, protocol)

    async def _body(self, answer: aiohttp.ClientResponse, hold: Callable[[int], None]) -> bytes:
        if answer.status in (404, 410):
            raise ImageError("read", "Absent", "no such file")
        answer.raise_for_status()
        size, parts = answer.content_length or 0, []
        self._check_size(size)
        size = 0
        async for part in answer.content.iter_any():
            size += len(part)
            self._check_size(size)
            hold(len(part))
            parts.append(part)
        return b"".join(parts)

    def _check_size(self, size: int) -> None:
        if size > self._most:
            raise ImageError("read", "TooLarge", str(faults.TooLargeError(size, self._most)))

    async def _by_system(self, host: str, port: int) -> list[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _refused() -> ImageError:
    """Always in the same words, so that nobody learns from them which names and addresses there are inside."""
    return ImageError("read", "Refused", "expected an http(s) URL of a public address, found another")


class _Resolver(AbstractResolver):
    """aiohttp's, of a function that gives addresses."""

    def __init__(self, addresses: Resolve):
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[ResolveResult]:
        """Addresses of a name."""
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in await self._addresses(host, port)
        ]

    async def close(self) -> None:
        """Does nothing: there is nothing to close."""
