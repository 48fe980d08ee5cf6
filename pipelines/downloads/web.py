"""Single questions to a web server, by urllib: what a file is, and its bytes from any of them on.

urllib gives bytes as they come, so that of an answer that is cut nothing is lost; it follows redirects, takes proxies
from the environment, and asks for content as it is stored.
"""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping

from tfrecords_schema.storage import faults
from tfrecords_schema.text import one_line

_SILENCE_S = 30  # without an answer, or without another byte of it
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, *rest):
        """Goes on asking for nothing but the headers: before Python 3.13, HEAD becomes GET."""
        found = super().redirect_request(req, *rest)
        if found:
            found.method = req.get_method()
        return found


_HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    _Redirects,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.UnknownHandler,  # a redirect may lead to ftp:, for which there is no handler here
)


class UnansweredError(ConnectionError):
    """Nobody could be connected to."""


class CutError(ConnectionError):
    """An answer that must be asked for again: it ended before its end, or is of another part of the file."""


@dataclasses.dataclass(frozen=True)
class Remote:
    """What a server says of a file.

    Attributes:
      bytes: in all.
      validator: another content has another one: a strong ETag, or the time of the last change; "" where there is none.
    """

    url: str
    bytes: int
    validator: str


def ask(method: str, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    """The answer, to be closed, after redirects.

    Raises:
      urllib.error.HTTPError: the status is none of success.
      OSError: there was no answer; `faults` tells which ones may pass.
    """
    opener = urllib.request.OpenerDirector()
    for handler in _HANDLERS:
        opener.add_handler(handler())
    agent = {"User-Agent": "batch-image-captioning"}
    try:
        return opener.open(urllib.request.Request(url, headers={**agent, **headers}, method=method), timeout=_SILENCE_S)
    except urllib.error.HTTPError as error:
        error.close()
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, OSError) and not isinstance(error.reason, ssl.SSLError):
            raise UnansweredError(one_line(error.reason)) from error
        raise OSError(str(error.reason)) from None
    except ConnectionError:  # of which some are among the following too
        raise
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"no answer in HTTP: {type(error).__name__}: {one_line(error)}") from None


def place_of(url: str) -> str:
    """The server of a file, as `faults` knows it."""
    return "://".join(urllib.parse.urlsplit(url)[:2])


def look(url: str) -> Remote:
    """What a file is, without its bytes; after passing faults the server is asked again. Raises as `ask`."""

    async def look() -> Remote:
        with ask("HEAD", url, {}) as answer:
            return described(url, answer)

    with faults.retries(faults.READ_RETRIES):
        return asyncio.run(faults.patiently(look, place_of(url)))


def described(url: str, answer: http.client.HTTPResponse) -> Remote:
    """The file of an answer that is about all of it. Raises OSError where its size is not told."""
    headers = answer.headers
    length, encoding = headers.get("Content-Length", ""), headers.get("Content-Encoding", "identity")
    if not re.fullmatch(r"[0-9]{1,18}", length) or encoding != "identity":
        raise OSError(f"expected a Content-Length of a file as it is, found {length!r} of one coded as {encoding!r}")
    tag = headers.get("ETag", "")
    # A weak ETag may stay the same where bytes do not: https://www.rfc-editor.org/rfc/rfc9110#name-if-range.
    return Remote(url, int(length), tag if tag.startswith('"') else headers.get("Last-Modified", ""))


def some_of(answer: http.client.HTTPResponse, most: int) -> bytes:
    """The bytes of an answer that have come, at least one; none at its end. Raises OSError."""
    try:
        return answer.read1(most)
    except http.client.HTTPException as error:  # of an answer in chunks
        raise CutError(f"the answer ended in the middle: {type(error).__name__}") from None


def part_of(answer: http.client.HTTPResponse) -> tuple[int, int] | None:
    """(the first byte that an answer brings, bytes of the whole file); None where it is no part, but all of it."""
    if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
        return None
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return (int(found[1]), int(found[2])) if found else (-1, -1)
