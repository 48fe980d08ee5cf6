"""What a command tells a user who made a mistake, or whose run failed: one line, and an exit status."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

from tfrecords_schema.text import did_you_mean, on_screen, one_line, shortened

_UNKNOWN = "unrecognized arguments: "  # what argparse says of them
_MOST_LETTERS = 400  # of what does not fit on a command line
_LONGEST_LINE = 900  # letters of a message


class InputError(ValueError):
    """What the user gave does not fit.

    The message is one line that says which flag or file, what was expected, what was found and what to do. Commands
    print it after `error:` and exit with status 2, without a traceback.
    """


class RunError(Exception):
    """The run failed, or its result must not be used; the message is one line. Commands exit with status 1."""


@contextlib.contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turns an InputError into `error: …` and exit status 2, a RunError into the same and 1."""
    try:
        yield
    except (InputError, RunError) as error:
        print(f"error: {_line(str(error))}", file=sys.stderr, flush=True)
        sys.exit(2 if isinstance(error, InputError) else 1)


def _line(text: str) -> str:
    shown = on_screen(text)
    if len(shown) <= _LONGEST_LINE:
        return shown
    return f"{shown[: _LONGEST_LINE // 2]} … {shown[-_LONGEST_LINE // 3 :]}"  # what to do stands at the end


@contextlib.contextmanager
def blaming(flag: str) -> Iterator[None]:
    """Puts the flag that a file or place came with in front of an InputError's message."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{flag}: {error}") from None


@contextlib.contextmanager
def reading(path: str, expected: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turns any error of reading a file into an InputError; `kinds` are those that its parser raises besides."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not isinstance(error, (OSError, RecursionError, ValueError, *kinds)):
            raise
        raise InputError(f"{path}: expected {expected}, found something unreadable: {one_line(error)}") from None


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, with mistakes told in one line and flags never abbreviated.

    Attributes:
      known: the names of flags, without dashes, of which the nearest is told to whoever gives another.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs, allow_abbrev=False)
        self.known: tuple[str, ...] = ()

    def error(self, message: str) -> NoReturn:
        """Exits with status 2."""
        told = on_screen(shortened(message.removeprefix("argument "), _MOST_LETTERS))
        words = message.removeprefix(_UNKNOWN).split() if message.startswith(_UNKNOWN) else []
        near = did_you_mean(next((word for word in words if word.startswith("--")), ""), self.known, "--")
        self.exit(2, f"error: {told}{f'{near} See' if near else '; see'} {self.prog} --help\n")
