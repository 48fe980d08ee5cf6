"""What the threads of a process hold at the same time: large images wait for one another, small ones never do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from pipelines.vision import devices

_SMALL_BYTES = 64 << 20  # more than photographs take: no more of these are held than there are threads


class Budget:
    """Bytes that are taken for a while, and waited for where they are taken already. Safe from many threads.

    A thread takes of one budget once, and of several in one order only: then none waits for a thread that waits for it.
    """

    def __init__(self, total: int):
        self._total = self._free = total
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taking(self, size: int) -> Iterator[None]:
        """Holds so many bytes within the block; one who needs more than there are has all of them, and is alone."""
        taken = min(size, self._total)
        if size <= _SMALL_BYTES:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._free >= taken)
            self._free -= taken
        try:
            yield
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()


FILES = Budget(1 << 30)  # of files, from before they are read until their pixels are there
DECODING = Budget(max(1 << 30, devices.cores() << 27))  # of what lies between; a core has 128 MiB
