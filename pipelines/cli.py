"""What the two pipelines' command lines share: flags, their types, exit statuses, Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import glob
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from tfrecords_schema.errors import ArgumentParser, told_in_one_line


def add_common_flags(parser: Any, per_shard: str) -> None:
    """The flags that both pipelines have; `per_shard` names the one that sets a shard's size."""
    parser.add_argument("--batch_size", type=positive, help="images in a forward pass (default %(default)s)")
    parser.add_argument(f"--{per_shard}", type=positive, help="images in an output file, about (default %(default)s)")
    parser.add_argument("--read_threads", type=positive, help="threads that read and decode (default %(default)s)")
    parser.add_argument("--max_pixels", type=positive, help="larger images are rejected unread (default %(default)s)")
    parser.add_argument(
        "--max_reject_fraction", type=fraction, help="the run fails, at its end, above this (default %(default)s)"
    )
    parser.add_argument(
        "--accelerator", metavar="HINT", help="Beam's resource hint for workers with GPUs, of the extraction step alone"
    )
    parser.add_argument("--gpu", metavar="NAME", help="nvidia-l4 and others: one in each Dataflow worker that extracts")
    parser.add_argument("--overwrite", action="store_true", help="delete what an earlier run left in --output")


def take_defaults(parser: ArgumentParser, run: Callable[..., Any]) -> None:
    """Gives the flags the defaults of the parameters of `run` that they become: one place to state them."""
    defaults = {p.name: p.default for p in inspect.signature(run).parameters.values() if p.default is not p.empty}
    del defaults["beam_args"]  # what is left on the command line, not a flag
    parser.set_defaults(**defaults)


def positive(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return number


def fraction(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, found {text!r}")
    return number


def run_command(run: Callable[..., Any], **flags: Any) -> None:
    """Runs with a command line's flags, and exits: 0, 1 for a run that failed, 2 for bad input, 130 for Ctrl-C."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported, here or in a worker process
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s")
    before = signal.signal(signal.SIGINT, _interrupted)
    try:
        with told_in_one_line():
            run(**flags)
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
