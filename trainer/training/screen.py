"""What a training shows while it runs: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import sys
import time

import tqdm

from tfrecords_schema.text import on_screen

_LINE_EVERY_S = 60.0


class Screen:
    """Shows one epoch at a time."""

    def __init__(self):
        self._bar: tqdm.tqdm | None = None
        self._is_terminal = sys.stderr.isatty()
        self._last_line = time.monotonic()
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        """Prints a line."""
        text = on_screen(text)
        try:
            tqdm.tqdm.write(text) if self._is_terminal else print(text)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever watched went away; that must not end days of training
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        self._last_line = time.monotonic()

    def say_once(self, text: str) -> None:
        """Prints a line, unless it was printed before."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def begin(self, title: str, done: int, steps: int) -> None:
        """An epoch begins, or goes on from batch `done`."""
        self._title, self._done, self._steps = title, done, steps
        if self._is_terminal:
            self._bar = tqdm.tqdm(desc=title, initial=done, total=steps, unit="step", leave=False, file=sys.stderr)

    def update(self, done: int, figures: dict[str, float]) -> None:
        """`done` batches of the epoch are done."""
        text = ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.update(done - self._done)
            self._bar.set_postfix_str(text)
            self._done = done
        elif done < self._steps and time.monotonic() - self._last_line > _LINE_EVERY_S:
            self.say(f"{self._title}: step {done:,} of {self._steps:,}, {text}")

    def waiting(self, text: str) -> None:
        """Something that takes a while and counts no steps."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def close(self) -> None:
        """The epoch is over, in whatever way."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
