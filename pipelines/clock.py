"""How long the stages of a shard take."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Iterator


class StageClock:
    """Seconds that each stage took, summed over threads."""

    def __init__(self):
        self.seconds: collections.defaultdict[str, float] = collections.defaultdict(float)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time its body takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[name] += time.perf_counter() - started
