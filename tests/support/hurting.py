"""A store that misbehaves: a proxy before a real one, which hurts a share of the requests, the same ones each time."""

import contextlib
import http.client
import http.server
import random
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterator

HURTS = ("reset", "busy", "cut", "slow")


class Proxy:
    """What it does; may be changed while it runs.

    Attributes:
      endpoint: its address.
      share: of the requests that are hurt, from 0 to 1.
      hurts: how, of HURTS, or "down": every connection is closed unanswered.
      hurt: how many were.
      methods: of those requests that may be hurt.
      broken: ends of paths that are never answered but with "busy".
      served: (path, bytes) of each answer to a GET, so far.
    """

    def __init__(self, endpoint: str, target: str, seed: int):
        self.endpoint, self.target = endpoint, urllib.parse.urlsplit(target)
        self.share, self.hurts, self.hurt = 0.0, HURTS[:3], 0
        self.methods = ("GET", "PUT", "POST", "HEAD", "DELETE")
        self.broken: tuple[str, ...] = ()
        self.served: list[tuple[str, int]] = []
        self._random, self._lock = random.Random(seed), threading.Lock()

    def choose(self, method: str, path: str) -> str | None:
        """How the next request is hurt."""
        if self.broken and path.partition("?")[0].endswith(self.broken):
            return "busy"
        with self._lock:
            if method not in self.methods or self._random.random() >= self.share:
                return None
            self.hurt += 1
            return self._random.choice(self.hurts)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _reset(self) -> None:
        """Closes with an RST: who waits for the answer gets "connection reset by peer"."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _forward(self) -> None:
        hurt = self.proxy.choose(self.command, self.path)
        content = self._content()
        if hurt in ("reset", "down"):
            return self._reset()
        if hurt == "busy":
            body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            return self._answer(503, [("Content-Type", "application/xml")], body)
        if hurt == "slow":
            time.sleep(0.3)
        connection = http.client.HTTPConnection(self.proxy.target.hostname, self.proxy.target.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, content, dict(self.headers.items()))
            answer = connection.getresponse()
            body = answer.read()
        if self.command == "GET":
            self.proxy.served.append((self.path.partition("?")[0], len(body)))
        own = {"connection", "transfer-encoding", "content-length", "server", "date"}
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in own]
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self._answer(answer.status, headers, body, length, cut=hurt == "cut")
        return None

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        del self.headers["Transfer-Encoding"]
        return content

    def _answer(self, status, headers, body: bytes, length: str | None = None, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.wfile.flush()
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward  # noqa: N815 - http.server's names

    def log_message(self, *_) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        """Clients give up as they like."""


@contextlib.contextmanager
def proxy(target: str, seed: int = 0) -> Iterator[Proxy]:
    """A Proxy before a server's address, which hurts nothing until it is told to."""
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        handler.proxy = Proxy(f"http://127.0.0.1:{server.server_port}", target, seed)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield handler.proxy
        finally:
            server.shutdown()
