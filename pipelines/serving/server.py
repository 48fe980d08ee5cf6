"""uvicorn around the application: a socket, signals, connections that bring nothing, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tfrecords_schema.errors import InputError

_CONNECTIONS = 500  # many systems give a process 1024 descriptors
_BACKLOG = 2048
_IDLE_S = 5  # of a connection between two requests


class Protocol(H11Protocol):
    """HTTP/1.1, whose connections are closed where the head of a request takes too long: uvicorn waits for ever."""

    head_s: float
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begins to wait for a head."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Goes on waiting, until the head is there."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no more."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.head_s, self.transport.abort)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Server(uvicorn.Server):
    """uvicorn's, whose signals are ours: a graceful end has exit status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to us."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InputError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named since asyncio sends at once (TCP_NODELAY) only where it is: else an answer, which is written
    # in two pieces, waits 40 ms for the client to acknowledge the first.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        return listener
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise InputError(f"--host, --port: expected an address to listen on, found {host}:{port}: {reason}") from None


def serve(
    app: Any,
    listener: socket.socket,
    load: Callable[[], None],
    close: Callable[[], None],
    upload_s: float,
    drain_s: float,
) -> int:
    """Answers requests until SIGTERM or SIGINT; returns the exit status.

    Args:
      load: is called in a thread once connections are accepted; what it raises ends the server, and is raised.
      close: is called at the end, when nothing is accepted any more.
      upload_s: seconds that the head of a request may take to arrive.
      drain_s: seconds to finish the requests there are.
    """
    config = uvicorn.Config(
        app,
        http=type("Protocol", (Protocol,), {"head_s": upload_s}),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=drain_s,  # type: ignore[arg-type]  # any number of seconds will do
    )
    server = _Server(config)
    failed: list[BaseException] = []
    received: list[int] = []

    def loading() -> None:
        try:
            load()
        except BaseException as error:
            failed.append(error)
            server.should_exit = True

    def end(number: int) -> None:
        server.force_exit = bool(received)  # asked twice
        server.should_exit = True
        received.append(number)

    async def run() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, end, number)
        threading.Thread(target=loading, name="loading", daemon=True).start()
        await server.serve([listener])

    asyncio.run(run())
    close()
    if failed:
        raise failed[0]
    return 128 + signal.SIGINT if received[:1] == [signal.SIGINT] else 0
