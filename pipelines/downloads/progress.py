"""How many bytes have come, on stderr: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time

_PLAIN_PERIOD_S = 15.0


class Progress:
    """A context manager that shows progress until it ends.

    Args:
      total: bytes of all files.
      have: how many of them are there already; no part of the rate.
    """

    def __init__(self, total: int, have: int):
        from tqdm import tqdm

        self._on_terminal, self._name = sys.stderr.isatty(), ""
        self._total, self._have, self._came = total, have, 0
        self._started = time.monotonic()
        self._next = self._started + _PLAIN_PERIOD_S
        bar = {"unit": "B", "unit_scale": True, "dynamic_ncols": True}
        self._bar = tqdm(total=total, initial=have, disable=not self._on_terminal, **bar)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def begin(self, name: str) -> None:
        """Names the file that comes next."""
        self._name = name
        self._bar.set_description(name)

    def came(self, count: int) -> None:
        """Counts bytes; fewer than none where some were in vain."""
        self._came += count
        self._bar.update(count)
        if not self._on_terminal and time.monotonic() >= self._next:
            self._next = time.monotonic() + _PLAIN_PERIOD_S
            self.say(self._line())

    def expect(self, count: int) -> None:
        """Adds to the bytes of all files."""
        self._total += count
        self._bar.total = self._total

    def say(self, line: str) -> None:
        """A line, above the bar."""
        self._bar.write(line, file=sys.stderr)
        sys.stderr.flush()

    def _line(self) -> str:
        have = self._have + self._came
        rate = self._came / (time.monotonic() - self._started)
        left = f", {(self._total - have) / rate:.0f} s left" if rate > 0 else ""
        return f"{self._name}: {have / 1e9:.2f} of {self._total / 1e9:.2f} GB, {rate / 1e6:.1f} MB/s{left}"
