"""How far a running pipeline is: workers leave counts beside the shard they make, the launcher adds them up."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator

from tfrecords_schema.shards import parse_shard_name
from tfrecords_schema.storage import files, finding, paths

LISTING, LOADING = "listing the images", "loading the network"
_FIRST = "working on the first ones"
_WRITE_PERIOD_S = _TERMINAL_PERIOD_S = 0.5
_PLAIN_PERIOD_S = 15.0
_REMOTE_PERIOD_S = 30.0


class ShardProgress:
    """Counts of one shard in the making, and what is being done, in a small local file; none for a remote output.

    A file and not a callback or a metric, since it reaches the launcher from any thread or process, while the
    in-process runner reports metrics only at the end.
    """

    def __init__(self, directory: str, name: str):
        self._path = os.path.join(directory, files.WORK, f"{name}.progress") if paths.is_local(directory) else None
        self._counts = (0, 0)
        self._doing, self._since = _FIRST, time.time()
        self._next = 0.0

    def __enter__(self) -> ShardProgress:
        return self

    def __exit__(self, *_) -> None:
        if self._path:
            with contextlib.suppress(OSError):
                os.remove(self._path)

    def show(self, records: int, rejects: int) -> None:
        """Tells the counts so far, at most twice a second. Never fails: progress is not worth a run."""
        self._counts = records, rejects
        if time.monotonic() >= self._next:
            self._write()

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Tells at once what is being done until the end of the block."""
        self._doing, self._since = what, time.time()
        self._write()
        yield
        self._doing, self._since = _FIRST, time.time()
        self._write()

    def _write(self) -> None:
        self._next = time.monotonic() + _WRITE_PERIOD_S
        if self._path:
            records, rejects = self._counts
            with contextlib.suppress(OSError), open(self._path, "w") as handle:
                handle.write(f"{records} {rejects} {self._since} {self._doing}")


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Shows on stderr what the block does, and for how long: a line that goes on a terminal, else one now and then."""
    on_terminal, started, stop = sys.stderr.isatty(), time.monotonic(), threading.Event()

    def show() -> None:
        while not stop.wait(_TERMINAL_PERIOD_S if on_terminal else _PLAIN_PERIOD_S):
            line = f"{what}, {time.monotonic() - started:.0f} s"
            # The cursor goes back to the beginning, so that a message of the block takes the line.
            print(line, end="\r" if on_terminal else "\n", file=sys.stderr, flush=True)
        if on_terminal:
            print(" " * (len(what) + 20), end="\r", file=sys.stderr, flush=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Watch:
    """A context manager that shows progress on stderr until it ends: a bar on a terminal, else a line now and then."""

    def __init__(self, directory: str, total: int):
        self._directory, self._total = directory, total
        self._done_shards: dict[str, tuple[int, int]] = {}
        # Of a remote output nothing is known until a shard is done.
        self._doing, self._since = (
            LISTING if paths.is_local(directory) else "the first files are being made",
            time.time(),
        )
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
        nearby = _TERMINAL_PERIOD_S if on_terminal else _PLAIN_PERIOD_S
        period = nearby if paths.is_local(self._directory) else _REMOTE_PERIOD_S
        records, rejects = self._counts() or (0, 0)
        before, started = records + rejects, None
        bar = tqdm(total=self._total, unit=" images", initial=before, disable=not on_terminal, dynamic_ncols=True)
        bar.set_postfix_str(self._start())
        while not self._stop.wait(period):
            records, rejects = self._counts() or (records, rejects)
            if started is None and records + rejects > before:
                # The clock starts with the first image, so that the rate and the time left are not those of start-up.
                before, started = records + rejects, time.monotonic()
                bar.reset(self._total)
                bar.initial = before
            if started is not None:
                bar.set_postfix_str(f"{rejects} rejects", refresh=False)
                bar.update(records + rejects - bar.n)
            else:
                bar.set_postfix_str(self._start())
            if not on_terminal:
                print(self._line(records, rejects, before, started), file=sys.stderr, flush=True)
        if self._completed:  # the counts are gone by now, with `.work`
            bar.update(self._total - bar.n)
        bar.close()

    def _line(self, records: int, rejects: int, before: int, started: float | None) -> str:
        done = records + rejects
        if started is None:
            return f"{done}/{self._total} images, {self._start()}"
        rate = (done - before) / (time.monotonic() - started)
        if not rate:
            return f"{done}/{self._total} images, {rejects} rejects"
        left = (self._total - done) / rate
        return f"{done}/{self._total} images, {rate:.1f} images/s, {rejects} rejects, {left:.0f} s left"

    def _start(self) -> str:
        """What is done before the first image is, and for how long."""
        return f"{self._doing}, {time.time() - self._since:.0f} s"

    def _counts(self) -> tuple[int, int] | None:
        """(records, rejects) of finished shards, each sidecar read once, and of those being made; None at the end."""
        work = paths.join(self._directory, files.WORK)
        making, started = [], []
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
                    words = files.read_bytes(paths.join(work, name)).decode().split(maxsplit=3)
                    if len(words) == 4:
                        making.append((int(words[0]), int(words[1])))
                        started.append((float(words[2]), words[3]))
            if started:  # of several shards, what was begun last
                self._since, self._doing = max(started)
        counts = [*self._done_shards.values(), *making]
        return sum(c[0] for c in counts), sum(c[1] for c in counts)
