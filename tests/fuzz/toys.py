"""Formats whose readers do what none may do: `python -m tests.fuzz.toys DIRECTORY` prints what is said of each."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
import time

from tests.fuzz import runner
from tests.fuzz.oracle import Seen
from tests.fuzz.runner import Format
from tfrecords_schema.errors import InputError, RunError


def _crash(given: pathlib.Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang(given: pathlib.Path) -> None:
    time.sleep(60)


def _eat(given: pathlib.Path) -> None:
    bytearray(2_000_000_000)


def _raise(given: pathlib.Path) -> None:
    raise KeyError("a bug")


def _stray(given: pathlib.Path) -> None:
    (given.parent / "neighbour/precious.txt").write_text("mine now")


def _take(given: pathlib.Path) -> None:
    (given.parent / "out/mine/precious.txt").unlink()


def _refuse(given: pathlib.Path) -> None:
    raise InputError("--a: expected\nb")


def _fail(given: pathlib.Path) -> None:
    raise RunError("disk full")


def _lose(given: pathlib.Path) -> None:
    """Says nothing of the last line."""


def _exit(given: pathlib.Path) -> None:
    sys.exit(3)


_VALID = bytes(range(1, 200))
WAYS = (_crash, _hang, _eat, _raise, _stray, _take, _refuse, _fail, _exit, _lose)


def toy(way) -> Format:
    """A reader that goes wrong where the file is not what it was."""

    def read(given: pathlib.Path, output: pathlib.Path) -> Seen:
        path = given / "a.bin"
        is_valid = path.is_file() and path.read_bytes() == _VALID
        if not is_valid:
            way(given)
        return Seen(2, 0, 2 if is_valid else 3)

    return Format(("a.bin",), ("a.bin",), read, timeout_s=1.0)


def main(directory: pathlib.Path) -> None:
    """Two cases of each, since one that ends its process must not keep the next from being tried."""
    (directory / "a.bin").write_bytes(_VALID)
    found = {}
    for way in WAYS:
        result = runner.run(way.__name__, toy(way), directory, 4, range(2))
        found[way.__name__] = [outcome.kind for _, outcome in result.bad.values()], dict(result.counts)
    print(json.dumps(found))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
