"""Directories that are made once for all processes that share a run of the tests."""

from __future__ import annotations

import fcntl
import os
import pathlib
from collections.abc import Callable


class Once:
    """`once("name", make)`: the directory of that name, which `make(directory)` has filled, here or in another process.

    `base` is the directory of this process's temporary files: pytest-xdist gives each process one, below a common one.
    """

    def __init__(self, base: pathlib.Path):
        self._base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def __call__(self, name: str, make: Callable[[pathlib.Path], object]) -> pathlib.Path:
        directory, made = self._base / name, self._base / f"{name}.made"
        with open(self._base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                directory.mkdir()  # where an earlier `make` failed, so does this
                make(directory)
                made.touch()
        return directory
