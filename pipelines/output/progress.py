"""How far a running pipeline is: workers leave counts beside the shard they make, the launcher adds them up."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator

from pipelines.storage import files, finding, paths
from tfrecords_schema.shards import parse_shard_name

_WRITE_PERIOD_S = 0.5
_PLAIN_PERIOD_S = 15.0
_REMOTE_PERIOD_S = 30.0
_TERMINAL_PERIOD_S = 0.5
_LISTING, _READING, _WAITING = "listing the images", "reading the first images", "waiting for the first shard"


class ShardProgress:
    """Counts of one shard in the making, in a small local file; nothing where the output is not local.

    A file and not a callback or a metric, since it reaches the launcher from any thread or process, while the
    in-process runner reports metrics only at the end.
    """

    def __init__(self, directory: str, name: str):
        self._path = os.path.join(directory, files.WORK, f"{name}.progress") if paths.is_local(directory) else None
        self._next = 0.0
        self._told, self._doing = (0, 0), ""

    def __enter__(self) -> ShardProgress:
        return self

    def __exit__(self, *_) -> None:
        if self._path:
            with contextlib.suppress(OSError):
                os.remove(self._path)

    def show(self, records: int, rejects: int) -> None:
        """Tells the counts so far, at most twice a second. Never fails: progress is not worth a run."""
        self._told = records, rejects
        if time.monotonic() >= self._next:
            self._write()

    def doing(self, what: str) -> None:
        """Tells at once what keeps the shard from going on; "" when it goes on."""
        self._doing = what
        self._write()

    def _write(self) -> None:
        self._next = time.monotonic() + _WRITE_PERIOD_S
        if self._path:
            with contextlib.suppress(OSError), open(self._path, "w") as handle:
                handle.write(f"{self._told[0]} {self._told[1]} {self._doing}")


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
    """Says on stderr what is going on while its body runs, and for how many seconds; nothing where that is quick."""
    ended, started, on_terminal = threading.Event(), time.monotonic(), sys.stderr.isatty()

    def tell() -> None:
        while not ended.wait(_TERMINAL_PERIOD_S if on_terminal else _PLAIN_PERIOD_S):
            line = f"{what}, {time.monotonic() - started:.0f} s"
            print(f"\r{line}" if on_terminal else line, end="" if on_terminal else "\n", file=sys.stderr, flush=True)
        if on_terminal:
            print("\r" + " " * (len(what) + 10) + "\r", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Watch:
    """A context manager that shows progress on stderr until it ends: a bar on a terminal, else a line now and then."""

    def __init__(self, directory: str, total: int):
        self._directory, self._total = directory, total
        self._done_shards: dict[str, tuple[int, int]] = {}
        self._first = _LISTING if paths.is_local(directory) else _WAITING  # until a shard tells
        self._doing, self._doing_since = self._first, time.monotonic()
        self._stop, self._completed = threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, error_type, *_) -> None:
        self._completed = error_type is None
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        from tqdm import tqdm

        on_terminal = sys.stderr.isatty()
        local = paths.is_local(self._directory)
        period = (_TERMINAL_PERIOD_S if on_terminal else _PLAIN_PERIOD_S) if local else _REMOTE_PERIOD_S
        records, rejects = self._counts() or (0, 0)
        before, started = records + rejects, None
        bar = tqdm(total=self._total, unit=" images", initial=before, disable=not on_terminal, dynamic_ncols=True)
        while not self._stop.wait(period):
            records, rejects = self._counts() or (records, rejects)
            if started is None and records + rejects > before:
                # The clock starts with the first image, so that the rate and the time left are not those of start-up.
                before, started = records + rejects, time.monotonic()
                bar.reset(self._total)
                bar.initial = before
            if started is None:
                bar.set_postfix_str(self._what_now())
            else:
                bar.set_postfix_str(f"{rejects} rejects", refresh=False)
                bar.update(records + rejects - bar.n)
            if not on_terminal:
                print(self._line(records, rejects, before, started), file=sys.stderr, flush=True)
        if self._completed:  # the counts are gone by now, with `.work`
            bar.update(self._total - bar.n)
        bar.close()

    def _what_now(self) -> str:
        """What goes on before the first image is done, and for how long."""
        return f"{self._doing}, {time.monotonic() - self._doing_since:.0f} s"

    def _line(self, records: int, rejects: int, before: int, started: float | None) -> str:
        done = records + rejects
        if started is None:
            return f"{done}/{self._total} images, {self._what_now()}"
        rate = (done - before) / (time.monotonic() - started)
        if not rate:
            return f"{done}/{self._total} images, {rejects} rejects"
        left = (self._total - done) / rate
        return f"{done}/{self._total} images, {rate:.1f} images/s, {rejects} rejects, {left:.0f} s left"

    def _counts(self) -> tuple[int, int] | None:
        """(records, rejects) of finished shards, each sidecar read once, and of those being made; None at the end."""
        work = paths.join(self._directory, files.WORK)
        making, doing = [], self._first
        with contextlib.suppress(Exception):  # a file that is just being renamed or removed is counted next time
            names = finding.names(work)
            if not names:
                return None
            for gone in self._done_shards.keys() - set(names):  # a shard that is made again
                del self._done_shards[gone]
            for name in names:
                if parse_shard_name(name.removesuffix(".json")):
                    if name not in self._done_shards:
                        result = json.loads(files.read_bytes(paths.join(work, name)))["result"]
                        self._done_shards[name] = result["records"], result["rejects"]
                elif name.endswith(".progress"):
                    words = files.read_bytes(paths.join(work, name)).decode().split(maxsplit=2)
                    if len(words) >= 2:
                        making.append((int(words[0]), int(words[1])))
                        doing = words[2] if len(words) > 2 else _READING
        if doing != self._doing:
            self._doing, self._doing_since = doing, time.monotonic()
        counts = [*self._done_shards.values(), *making]
        return sum(c[0] for c in counts), sum(c[1] for c in counts)
