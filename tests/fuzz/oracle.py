"""What must hold of each case: what was listed is accounted for, or one line tells why not; nothing else changed."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import traceback
from collections.abc import Callable
from typing import NamedTuple

from tests.support import ROOT
from tfrecords_schema.errors import told_in_one_line

_MOST_LETTERS = 1000
GOOD = ("rows", "rejects", "refused", "failed")  # all that there may be


class Seen(NamedTuple):
    """What a reader made of a file.

    Attributes:
      rows, rejects: images, or entries, that it took, and that it wrote aside.
      least: how many an independent reader of the format counts; 0 where it cannot read it either.
    """

    rows: int
    rejects: int = 0
    least: int = 0


class Outcome(NamedTuple):
    """One of GOOD, or what went wrong and where."""

    kind: str
    detail: str = ""

    @property
    def is_good(self) -> bool:
        """Whether this may be."""
        return self.kind in GOOD


def judge(read: Callable[[], Seen]) -> Outcome:
    """Calls a reader as a command would be."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), told_in_one_line():
            seen = read()
    except SystemExit as exit_:
        return _told(told.getvalue().splitlines(keepends=True)[-1:], exit_.code)
    except BaseException as error:
        return Outcome(f"{type(error).__name__}", f"{_where(error)}: {str(error)[:200]}")
    if seen.rows + seen.rejects < seen.least:
        return Outcome("lost", f"{seen.rows} rows and {seen.rejects} rejects of {seen.least}")
    return Outcome("rejects" if seen.rejects else "rows")


def _told(lines: list[str], status: object) -> Outcome:
    """The last line that was printed is the error; a message of several lines would not begin with its prefix."""
    text = "".join(lines)
    if not text.startswith("error: ") or not text.endswith("\n"):
        return Outcome("no line", repr(text[:200]))
    if len(text) > _MOST_LETTERS:
        return Outcome("long", f"{len(text)} characters: {text[:100]}")
    if not text[:-1].isprintable():
        return Outcome("unprintable", repr(text[:200]))
    return Outcome({1: "failed", 2: "refused"}.get(status, f"exit {status}"), text.strip())  # type: ignore[call-overload]


def _where(error: BaseException) -> str:
    """The last place in our own code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tests/" not in frame.filename]
    ours = [frame for frame in frames if frame.filename.startswith(str(ROOT)) and ".venv" not in frame.filename]
    if not ours:
        return "nowhere in ours"
    return f"{pathlib.Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].name}"


def tree(directory: pathlib.Path) -> dict[str, object]:
    """All that is below a directory, with contents and links; compare two to see what changed."""
    found: dict[str, object] = {}
    for folder, folders, names in os.walk(directory):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                found[path] = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[path] = file.read()
            else:
                found[path] = None
    return found


def changes(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """The paths that are new, gone or others."""
    return sorted(path for path in {*before, *after} if before.get(path, "-") != after.get(path, "-"))
