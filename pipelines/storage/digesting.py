"""A handle that knows what went through it."""

from __future__ import annotations

import hashlib
import io
from typing import BinaryIO


class DigestingWriter(io.RawIOBase):
    """A handle that only appends, and knows the SHA-256 and the length of what it was given."""

    def __init__(self, handle: BinaryIO):
        self._handle, self._digest, self._written = handle, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        """Appends bytes."""
        length = memoryview(data).nbytes
        self._handle.write(data)
        self._digest.update(data)
        self._written += length
        return length

    def tell(self) -> int:
        """How many bytes there are, also after closing."""
        return self._written

    def sha256(self) -> str:
        """Of the bytes so far, hexadecimal."""
        return self._digest.hexdigest()
