"""Clients of the captioning service: many at a time, and among them those that mean harm or are broken."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import http.client
import io
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

_PATH = "/v1/captions"
_WAIT_S = 120
HEAD = f"POST {_PATH} HTTP/1.1\r\nHost: service\r\nContent-Type: image/jpeg\r\n".encode()


@dataclasses.dataclass
class Outcome:
    """What came of some requests.

    Attributes:
      seconds: of each good one, from its first byte to the last of its answer.
      wrong: what was answered otherwise than it should have been, in a line each.
      counts: of hostile ones, by kind.
      wall_s: of all.
    """

    seconds: list[float] = dataclasses.field(default_factory=list)
    wrong: list[str] = dataclasses.field(default_factory=list)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    wall_s: float = 0.0

    def percentile(self, share: float) -> float:
        """Seconds within which this share of the good requests were answered."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Connection:
    """One client's, kept from request to request."""

    def __init__(self, port: int):
        self._made = http.client.HTTPConnection("127.0.0.1", port, timeout=_WAIT_S)

    def post(self, body: bytes, kind: str = "image/jpeg") -> tuple[int, Any]:
        """(status, what the answer says)."""
        for is_last in (False, True):
            try:
                self._made.request("POST", _PATH, body, {"Content-Type": kind})
                answer = self._made.getresponse()
                return answer.status, json.loads(answer.read())
            except (http.client.RemoteDisconnected, ConnectionError):
                self._made.close()  # it was idle for too long; as browsers do, asked once more
                if is_last:
                    raise
        raise AssertionError

    def close(self) -> None:
        """Nothing more is asked."""
        self._made.close()


def raw(port: int, *pieces: bytes, pause_s: float = 0.0, is_cut: bool = False) -> bytes:
    """The beginning of what a server answers to these bytes, sent one after the other; "" where it only hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=_WAIT_S) as made, contextlib.suppress(ConnectionError):
        for piece in pieces:
            made.sendall(piece)
            time.sleep(pause_s)
        return b"" if is_cut else made.recv(64)
    return b""


def bomb(side: int = 20_000) -> bytes:
    """A PNG of a few kilobytes that says it has so many pixels on a side, and has."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def hostile(good: bytes) -> dict[str, Callable[[int], str]]:
    """By kind, a function that asks the service at a port, and gives "" or what is wrong with its answer."""
    bombed = bomb()

    def rejected(data: bytes, error: str) -> Callable[[int], str]:
        def ask(port: int) -> str:
            with contextlib.closing(Connection(port)) as client:
                status, said = client.post(data)
            found = said.get("images", [{}])[0].get("error", {}).get("error")
            return "" if (status, found) == (422, error) else f"expected 422 and {error}, found {status} and {found}"

        return ask

    def answers(expected: Sequence[bytes], *pieces: bytes, **how: Any) -> Callable[[int], str]:
        def ask(port: int) -> str:
            found = raw(port, *pieces, **how)[9:12]
            return "" if found in expected else f"expected {expected}, found {found!r}"

        return ask

    def length(size: int) -> bytes:
        return HEAD + f"Content-Length: {size}\r\n\r\n".encode()

    drops = [HEAD, *(f"X-{number}: a\r\n".encode() for number in range(50))]
    return {
        "bomb": rejected(bombed, "TooLarge"),
        "truncated": rejected(good[: len(good) // 2], "Truncated"),
        "not an image": rejected(b"not an image" * 999, "NotAnImage"),
        "length too small": answers([b"422", b"200"], length(len(good) // 3) + good),
        "length too large": answers([b"408"], length(2 * len(good)) + good),
        "upload aborted": answers([b""], length(len(good)) + good[: len(good) // 2], is_cut=True),
        "gone while waiting": answers([b""], length(len(good)) + good, is_cut=True),
        "slow head": answers([b""], *drops, pause_s=0.2),
        "slow body": answers([b"408", b""], length(len(good)), *[good[:1]] * 50, pause_s=0.2),
        "no HTTP": answers([b"400"], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    }


def run(
    port: int,
    photos: Sequence[tuple[bytes, Any]],
    requests: int,
    clients: int,
    hostile_share: float = 0.0,
    check: Callable[[Any, Any], bool] = lambda said, expected: True,
    every: Callable[[int], None] = lambda number: None,
    seed: int = 1,
) -> Outcome:
    """Asks a service: each client one request after the other, a new one as soon as the last is answered.

    Args:
      photos: bytes with what `check` compares the answer's image with.
      hostile_share: of the requests; they come from further clients, beside the good ones.
      every: is told the number of each request as it begins.
    """
    generator = random.Random(seed)
    kinds = hostile(photos[0][0])
    turns = itertools.cycle(kinds)
    planned = [next(turns) if generator.random() < hostile_share else number for number in range(requests)]
    outcome, lock, local = Outcome(), threading.Lock(), threading.local()

    def good(number: int) -> None:
        data, expected = photos[number % len(photos)]
        if not hasattr(local, "client"):
            local.client = Connection(port)
        every(number)
        begun = time.perf_counter()
        try:
            status, said = local.client.post(data)
        except OSError as error:
            status, said = 0, repr(error)
        took = time.perf_counter() - begun
        is_right = status == 200 and check(said["images"][0], expected)
        with lock:
            outcome.seconds.append(took)
            if not is_right:
                outcome.wrong.append(f"a good request: {status} {str(said)[:300]}")

    def bad(kind: str) -> None:
        try:
            told = kinds[kind](port)
        except OSError as error:
            told = repr(error)
        with lock:
            outcome.counts[kind] = outcome.counts.get(kind, 0) + 1
            if told:
                outcome.wrong.append(f"{kind}: {told}")

    begun = time.perf_counter()
    with (
        concurrent.futures.ThreadPoolExecutor(clients) as goods,
        concurrent.futures.ThreadPoolExecutor(clients) as bads,
    ):
        asked = [goods.submit(good, one) if isinstance(one, int) else bads.submit(bad, one) for one in planned]
        for one, plan in zip(asked, planned, strict=True):
            if isinstance(plan, int):
                one.result()
        outcome.wall_s = time.perf_counter() - begun
    return outcome
