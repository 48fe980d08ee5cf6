"""How far a running pipeline is: each worker leaves its counts in a small file, the launcher adds them up."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from pipelines.output.sidecars import ShardResult
from tfrecords_schema.manifests import typed_json
from tfrecords_schema.storage import files, finding, paths

LISTING, STARTING, LOADING = "listing the images", "starting the workers", "loading the network"
OPENING = "opening the model"
_FIRST = "working"
_WRITE_PERIOD_S = _TERMINAL_PERIOD_S = 0.5
_PLAIN_PERIOD_S = 15.0
_REMOTE_PERIOD_S = 30.0
_WIDEST = 79  # letters of a line that is written over
_PROGRESS = paths.join(files.WORK, "progress")


class WorkerProgress:
    """What one worker has done so far, and what it is doing.

    A file and not a callback or a metric, since it reaches the launcher from any thread, process or machine, while the
    in-process runner reports metrics only at the end. Never fails: progress is not worth a run.
    """

    def __init__(self, directory: str):
        self._directory, self._name = directory, paths.join(_PROGRESS, uuid.uuid4().hex)
        self._period = _WRITE_PERIOD_S if paths.is_local(directory) else _REMOTE_PERIOD_S
        self._kept = self._records = self._rejects = 0  # of finished shards
        self._making = (0, 0)  # records and rejects
        self._doing, self._since = _FIRST, time.time()
        self._next = 0.0

    @contextlib.contextmanager
    def shard(self) -> Iterator[WorkerProgress]:
        """While a shard is made."""
        try:
            yield self
        finally:
            self._making = (0, 0)

    def show(self, records: int, rejects: int) -> None:
        """Tells the counts of the shard that is made."""
        self._making = records, rejects
        self._tell()

    def finished(self, result: ShardResult) -> None:
        """Counts a shard."""
        self._kept += result.kept
        self._records += result.records
        self._rejects += result.rejects
        self._tell()

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Tells at once what is being done until the end of the block."""
        self._doing, self._since = what, time.time()
        self._tell(at_once=True)
        yield
        self._doing, self._since = _FIRST, time.time()
        self._tell(at_once=True)

    def _tell(self, at_once: bool = False) -> None:
        if at_once or time.monotonic() >= self._next:
            self._next = time.monotonic() + self._period
            records, rejects = self._records + self._making[0], self._rejects + self._making[1]
            with contextlib.suppress(Exception):
                told = json.dumps([records, rejects, self._kept, self._since, self._doing])
                files.write_text(self._directory, self._name, told)


@contextlib.contextmanager
def waiting(what: str | Callable[[], str]) -> Iterator[None]:
    """Shows on stderr what the block does, and for how long: a line that goes on a terminal, else one now and then.

    Args:
      what: it does, or a function that tells what it does by now.
    """
    telling = what if callable(what) else lambda: what
    on_terminal, started, stop = sys.stderr.isatty(), time.monotonic(), threading.Event()

    def show() -> None:
        while not stop.wait(_TERMINAL_PERIOD_S if on_terminal else _PLAIN_PERIOD_S):
            line = f"{telling()}, {time.monotonic() - started:.0f} s"
            # The cursor goes back to the beginning, so that a message of the block takes the line.
            print(line, end="\r" if on_terminal else "\n", file=sys.stderr, flush=True)
        if on_terminal:
            print(" " * _WIDEST, end="\r", file=sys.stderr, flush=True)

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
        self._doing, self._since = STARTING, time.time()
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
        done = rejects = kept = before = 0
        started = None
        bar = tqdm(total=self._total, unit=" images", disable=not on_terminal, dynamic_ncols=True)
        bar.set_postfix_str(self._start())
        while not self._stop.wait(period):
            done, rejects, kept = self._counts() or (done, rejects, kept)
            if started is None and done > kept:
                # The clock starts with the first image, so that the rate and the time left are not those of start-up.
                before, started = done - kept, time.monotonic()
                bar.reset(self._total)
            if started is not None:
                bar.initial = kept + before  # no part of the rate
                bar.set_postfix_str(_rejects(rejects), refresh=False)
            else:
                bar.set_postfix_str(self._start(), refresh=False)
            bar.update(done - bar.n)
            if not on_terminal:
                print(self._line(done, rejects, kept + before, started), file=sys.stderr, flush=True)
        if self._completed:  # the counts are gone by now, with `.work`
            bar.update(self._total - bar.n)
        bar.close()

    def _line(self, done: int, rejects: int, before: int, started: float | None) -> str:
        so_far = f"{done}/{self._total} images"
        if started is None:
            return f"{so_far}, {self._start()}"
        rate = (done - before) / (time.monotonic() - started)
        if not rate:
            return f"{so_far}, {_rejects(rejects)}"
        return f"{so_far}, {rate:.1f} images/s, {_rejects(rejects)}, {(self._total - done) / rate:.0f} s left"

    def _start(self) -> str:
        """What is done before the first image is, and for how long."""
        return f"{self._doing}, {time.time() - self._since:.0f} s"

    def _counts(self) -> tuple[int, int, int] | None:
        """(images done, rejects among them, how many were kept); None while there is nothing to read."""
        told = []
        with contextlib.suppress(Exception):  # a file that is just being replaced is counted next time
            place = paths.join(self._directory, _PROGRESS)
            for name in finding.names(place):
                path = paths.join(place, name)
                told.append(typed_json.decode(files.read_text(path) or "", tuple[int, int, int, float, str], path))
            if told:  # of several workers, what was begun last
                self._since, self._doing = max((since, doing) for *_, since, doing in told)
        if not told:
            return None
        records, rejects, kept = (sum(one[i] for one in told) for i in range(3))
        return records + rejects, rejects, kept


def _rejects(count: int) -> str:
    return f"{count:,} reject{'' if count == 1 else 's'}"
