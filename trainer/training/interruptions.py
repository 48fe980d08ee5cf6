"""SIGTERM (a machine is taken away) and Ctrl-C, turned into a checkpoint and an exit."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class Preempted(Exception):  # noqa: N818 - like KeyboardInterrupt, not an error
    """SIGTERM came; the checkpoint is written."""


class Interruptions:
    """Remembers a signal until training can stop without loss, between two steps. A second Ctrl-C stops at once."""

    def __init__(self):
        self._signal: int | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[Interruptions]:
        """Takes the signals over, and gives them back at the end."""
        if threading.current_thread() is not threading.main_thread():  # Python takes signals in the main one only
            yield self
            return
        earlier = {number: signal.signal(number, self._remember) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _remember(self, number: int, frame) -> None:
        if number == signal.SIGINT and self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number

    @property
    def came(self) -> bool:
        """Whether there was one."""
        return self._signal is not None

    def check(self) -> None:
        """Raises Preempted or KeyboardInterrupt if there was one."""
        if self._signal == signal.SIGTERM:
            raise Preempted
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
