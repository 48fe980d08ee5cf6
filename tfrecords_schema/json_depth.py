"""JSON of a depth that can be handled: deeper values end the memory of one parser, and the recursion of another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

DEEPEST = 64  # levels of lists and objects; nothing that we read has ten
_CHUNK_BYTES = 1 << 20
_NO_BRACKETS = bytes(set(range(256)) - set(b'"[]{}'))


def shallow(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces of JSON as they are; none may end within an escape.

    Raises ValueError before what is nested too deep: ijson takes memory by the square of the depth.
    """
    level, within = 0, False  # within a text
    for piece in pieces:
        plain = piece.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in piece else piece
        # Without two quotes that follow each other, whatever they mean, the same brackets stand within texts.
        parts = plain.translate(None, _NO_BRACKETS).replace(b'""', b"").split(b'"')
        steps = (np.frombuffer(b"".join(parts[within::2]), np.int8) & 2) - 1  # of the four, what opens has the bit
        levels = np.cumsum(np.append(level, steps))
        within ^= len(parts) % 2 == 0
        level = levels[-1]
        if levels.max() > DEEPEST:
            raise ValueError(f"lists and objects nested deeper than {DEEPEST} levels")
        yield piece


def require_shallow(text: bytes) -> None:
    """Raises ValueError where a JSON text is nested too deep, as `shallow` does."""
    for _ in shallow(_pieces(text)):
        pass


def _pieces(text: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(text):
        end = start + _CHUNK_BYTES
        while text[end - 1 : end] == b"\\":
            end += 1
        yield text[start:end]
        start = end
