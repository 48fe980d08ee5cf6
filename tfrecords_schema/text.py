"""Text that any file can hold, and that fits into a line."""

from __future__ import annotations

import re

_LONE = re.compile("[\ud800-\udfff]")


def whole(text: str) -> str:
    """JSON may hold halves of surrogate pairs, which no UTF-8 can; they become the replacement character U+FFFD."""
    return _LONE.sub("\ufffd", text)


def one_line(error: Exception) -> str:
    """An error's message for the middle of ours: its first words, or its kind where it has none."""
    return " ".join(str(error).split()[:20]) or type(error).__name__
