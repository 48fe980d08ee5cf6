"""How the pipelines' commands start and end: exit statuses, Ctrl-C."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import signal
import sys
from collections.abc import Iterator

from tfrecords_schema.errors import told_in_one_line

BEAM_FLAGS = (
    "Any other flag is passed on to Beam: for example --runner=DataflowRunner, or --direct_num_workers=2 "
    "--direct_running_mode=multi_processing for two processes on this machine."
)


@contextlib.contextmanager
def command() -> Iterator[None]:
    """Runs its body as a command: exit status 0, 1 for a run that failed, 2 for bad input, 130 for Ctrl-C."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported, here or in a worker process
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s")
    before = signal.signal(signal.SIGINT, _interrupted)
    try:
        with told_in_one_line():
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupted(*_) -> None:
    """Ends at once: a KeyboardInterrupt would reach the runner as an error of the pipeline, with its traceback."""
    from pipelines.engines import running

    print(f"\nerror: interrupted; {running.let_go()}", file=sys.stderr, flush=True)
    _kill_children(os.getpid())
    os._exit(128 + signal.SIGINT)


def _kill_children(pid: int) -> None:
    """Ends worker processes, which would go on for a while and end in tracebacks of a lost connection (Linux only)."""
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError), open(path) as file:
            for child in map(int, file.read().split()):
                _kill_children(child)
                os.kill(child, signal.SIGKILL)
