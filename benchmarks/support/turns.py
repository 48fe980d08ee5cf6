"""Processes that have loaded what is to be measured, and take turns in running it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any


class Served:
    """`python -m ...` that prints a line when it is ready, and one of JSON for each line that comes in.

    Attributes:
      told: the line that it printed when it was ready.
    """

    def __init__(self, arguments: Sequence[str]):
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([sys.executable, "-m", *arguments], text=True, **pipes)
        self.told: str = self._process.stdout.readline()  # type: ignore[union-attr]  # a pipe

    def run(self) -> Any:
        """What it prints after another run."""
        self._process.stdin.write("go\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return json.loads(self._process.stdout.readline())  # type: ignore[union-attr]

    def end(self) -> None:
        """Waits for its end."""
        self._process.communicate()


def take_turns(served: Mapping[Any, Served], rounds: int) -> dict[Any, list[Any]]:
    """What each gave, a run in each round; then all are ended."""
    found: dict[Any, list[Any]] = {name: [] for name in served}
    for _ in range(rounds):
        for name, one in served.items():
            found[name].append(one.run())
    for one in served.values():
        one.end()
    return found
