"""How the process of a command ends: at once."""

from __future__ import annotations

import atexit
import functools
import os
import sys
from collections.abc import Callable
from typing import NoReturn

_NOT_PRINTED = 120  # Python's own exit status where what was printed last cannot be written


def program(main: Callable[[], None]) -> Callable[[], NoReturn]:
    """`main` as all that a process does.

    The process ends as soon as `main` is through, with its exit status, and does what others registered for the end.
    Python itself would first take TensorFlow's half a million objects apart, for a second or two, and native
    libraries their threads; if one of them crashes over that, a complete run looks like a failed one.
    """

    @functools.wraps(main)
    def run() -> NoReturn:
        status = 0
        try:
            main()
        except SystemExit as end:
            if not isinstance(end.code, int | None):
                raise
            status = end.code or 0
        atexit._run_exitfuncs()  # for which there is no public name
        leave(status)

    return run


def leave(status: int) -> NoReturn:
    """Ends the process; threads that still compute or load do not hold it up."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None if it was closed before the start
        try:
            stream.flush()
        except (OSError, ValueError):
            status = status or _NOT_PRINTED
    os._exit(status)
