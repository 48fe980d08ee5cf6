"""Text that any file can hold, and that fits into a line; the name of a place beside another."""

from __future__ import annotations

import os
import re

_LONE = re.compile("[\ud800-\udfff]")


def whole(text: str) -> str:
    """JSON may hold halves of surrogate pairs, which no UTF-8 can; they become the replacement character U+FFFD."""
    return _LONE.sub("\ufffd", text)


def on_screen(text: str) -> str:
    """A line as any screen shows it: names and contents may hold line ends, and orders to a terminal."""
    shown = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)


def shortened(value: object, letters: int = 40) -> str:
    """A value for the middle of a message, without its end where it is long."""
    text = str(value)
    return text if len(text) <= letters else f"{text[:letters]}…"


def one_line(error: Exception) -> str:
    """An error's message for the middle of ours: its first words, or its kind where it has none."""
    return " ".join(str(error).split()[:20]) or type(error).__name__


def beside(directory: str, name: str) -> str:
    """`/jobs/1-captions` of `/jobs/1` and "captions"; a bucket has nothing beside it, and takes it in."""
    scheme, _, path = directory.rstrip("/").rpartition("://")
    if not scheme:
        return f"{os.path.abspath(directory)}-{name}"
    return f"{scheme}://{path}{'-' if '/' in path else '/'}{name}"
