"""A web server that publishes files, does what it is told to each of its visitors, and keeps a log of what it sent."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import http.server
import io
import re
import socket
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from typing import Any


@dataclasses.dataclass
class Published:
    """A file: its bytes, and the headers that tell one content from another."""

    data: bytes
    marks: dict[str, str] = dataclasses.field(default_factory=lambda: {"ETag": '"one"'})


@dataclasses.dataclass
class Turn:
    """What is done with one GET.

    Attributes:
      status: of the answer, which then has no file in it.
      most: bytes of the body that are sent before the connection is closed; None for all.
      reset: whether it is closed so that the other side gets an error.
      then: is called after these bytes.
      ranges: whether Range is understood; if_range: whether If-Range is.
      chunked: whether the length of a body is told piece by piece.
      headers: in place of those that would be right.
    """

    status: int | None = None
    most: int | None = None
    reset: bool = False
    then: Callable[[], object] | None = None
    ranges: bool = True
    if_range: bool = True
    chunked: bool = False
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Sent:
    """One line of the log: bytes from `start` on, `count` of them."""

    path: str
    status: int
    start: int
    count: int
    asked: dict[str, str]


class Publisher(http.server.ThreadingHTTPServer):
    """The server. `turns` are taken by one GET after the other; without them all is done as it should be."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Published] = {}
        self.turns: collections.deque[Turn] = collections.deque()
        self.every = Turn()
        self.log: list[Sent] = []
        self.heads = self.busy = 0  # HEADs that came; that are answered by 503
        self.head_length: str | None = None
        self.redirect: str | None = None
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Visitors go away, and are killed."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Publisher

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.server.heads += 1
        if self.server.busy:
            self.server.busy -= 1
            self._begin(503, {"Content-Length": "0"})
            return
        found = self._found()
        if found:
            length = self.server.head_length or str(len(found.data))
            self._begin(200, {"Content-Length": length, **found.marks, **self.server.every.headers})

    def do_GET(self) -> None:
        turn = self.server.turns.popleft() if self.server.turns else self.server.every
        found = self._found()
        if not found:
            return
        if turn.status:
            self.server.log.append(Sent(self.path, turn.status, 0, 0, dict(self.headers)))
            self._begin(turn.status, {"Content-Length": "0"})
            return
        start, end = 0, len(found.data)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if turn.ranges else None
        if asked and (not turn.if_range or self.headers.get("If-Range") in (None, *found.marks.values())):
            start = int(asked[1])
            if start >= end:
                self.server.log.append(Sent(self.path, 416, start, 0, dict(self.headers)))
                self._begin(416, {"Content-Range": f"bytes */{end}", "Content-Length": "0"})
                return
        told = {"Transfer-Encoding": "chunked"} if turn.chunked else {"Content-Length": str(end - start)}
        part = {"Content-Range": f"bytes {start}-{end - 1}/{end}"} if start else {}
        self._begin(206 if start else 200, {**told, **part, **found.marks, **turn.headers})
        body = found.data[start:][: turn.most]
        sent = Sent(self.path, 206 if start else 200, start, 0, dict(self.headers))
        self.server.log.append(sent)
        for at in range(0, len(body), 1 << 16):
            piece = body[at : at + (1 << 16)]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if turn.chunked else piece)
            sent.count += len(piece)
        if turn.then:
            turn.then()
        if turn.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _found(self) -> Published | None:
        found = self.server.files.get(self.path)
        if self.server.redirect and found is None:
            self._begin(302, {"Location": self.server.redirect + self.path, "Content-Length": "0"})
            return None
        if found is None:
            self._begin(404, {"Content-Length": "0"})
        return found

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()


@contextlib.contextmanager
def publishing() -> Iterator[Publisher]:
    """A server, while this is entered."""
    with Publisher() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def packed(members: dict[str, bytes]) -> bytes:
    """A zip file, stored as COCO's are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()
