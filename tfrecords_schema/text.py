"""Text that any file can hold, and that fits into a line; names of files in a column; a place beside another."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence

_DIGEST = re.compile("[0-9a-f]{64}")
_NEAR = 0.75  # of difflib's ratio
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


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256, in hexadecimal."""
    return bool(_DIGEST.fullmatch(text))


def digest_cut(text: str) -> str:
    """A digest as people are shown it; any other text as it is."""
    return f"{text[:12]}…" if is_digest(text) else text


def did_you_mean(given: str, known: Iterable[str], mark: str = "") -> str:
    """`; did you mean NAME?` of the known name that a given one is nearest to; empty where none is near.

    Args:
      mark: what names begin with on the command line, "--".
    """
    near = difflib.get_close_matches(given.removeprefix(mark).partition("=")[0], known, 1, _NEAR)
    return f"; did you mean {mark}{near[0]}?" if near else ""


def shown_names(uris: Sequence[str]) -> dict[str, str]:
    """What each is called in a column of them: without the directories that all have in common."""
    # By letters, since `commonpath` would take one slash of s3:// away; then cut at a slash.
    common = os.path.commonprefix([uri[: uri.rfind("/") + 1] for uri in uris])  # noqa: RUF071
    start = common.rfind("/") + 1
    return {uri: uri[start:] for uri in uris}


def fitted(name: str, width: int) -> str:
    """The end of a long name, which tells more than its beginning."""
    return name if len(name) <= width else f"…{name[1 - width :]}"


def beside(directory: str, name: str) -> str:
    """`/jobs/1-captions` of `/jobs/1` and "captions"; a bucket has nothing beside it, and takes it in."""
    scheme, _, path = directory.rstrip("/").rpartition("://")
    if not scheme:
        return f"{os.path.abspath(directory)}-{name}"
    return f"{scheme}://{path}{'-' if '/' in path else '/'}{name}"
