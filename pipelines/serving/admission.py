"""How much a service has on its hands: images and bytes, both bounded, so that more clients cost no more memory."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

from pipelines.serving.errors import RequestError

_RECENT_S = 10.0  # over which the speed is taken that Retry-After follows from


class Admission:
    """What is accepted and not yet answered. Belongs to the event loop's thread.

    Attributes:
      images: accepted and not yet captioned.
      held: bytes of requests in memory.
    """

    def __init__(self, most_images: int, most_bytes: int):
        self._most_images, self._most_bytes = most_images, most_bytes
        self.images = self.held = 0
        self._rate, self._told = 0.0, time.monotonic()

    @contextlib.contextmanager
    def taking(self, count: int) -> Iterator[None]:
        """Holds so many images within the block. Raises RequestError 429 where the queue has no place for them."""
        if self.images + count > self._most_images:
            found = f"{self.images} images are waiting, of {self._most_images} at most"
            raise RequestError(429, "queue_full", f"the queue has no place for {count} more: {found}", self._wait_s())
        self.images += count
        try:
            yield
        finally:
            self.images -= count
            self._answered(count)

    def _answered(self, count: int) -> None:
        """Follows the speed, as a mean in which the past fades."""
        now = time.monotonic()
        fading = math.exp(-(now - self._told) / _RECENT_S)
        self._rate = self._rate * fading + count / _RECENT_S
        self._told = now

    def _wait_s(self) -> int:
        """Seconds until about half of the queue is done; one to sixty."""
        return max(1, min(60, math.ceil(self.images / 2 / self._rate))) if self._rate else 1

    def bytes_of(self) -> HeldBytes:
        """Counts the bytes of one request, which has none yet."""
        return HeldBytes(self)

    def hold(self, count: int) -> None:
        """More bytes. Raises RequestError 429 where too many are held already."""
        if self.held + count > self._most_bytes:
            raise RequestError(429, "memory_full", "the requests of all clients take too much memory", self._wait_s())
        self.held += count

    def let_go(self, count: int) -> None:
        """Fewer bytes."""
        self.held -= count


class HeldBytes(contextlib.AbstractContextManager):
    """The bytes of one request; those that it has at its end are let go."""

    def __init__(self, admission: Admission):
        self._admission, self.size = admission, 0

    def add(self, count: int) -> None:
        """Raises as `Admission.hold`."""
        self._admission.hold(count)
        self.size += count

    def __exit__(self, *_) -> None:
        self._admission.let_go(self.size)
