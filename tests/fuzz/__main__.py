"""`python -m tests.fuzz`: prints the counts by outcome of each format; exits with 1 where a case went wrong.

The counts go to a file as JSON where one is given, for whoever adds them up.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import pathlib
import sys
import tempfile
import time

# Before anything allocates: address space that is only reserved would count as memory that is used.
os.environ |= {"MALLOC_ARENA_MAX": "2", "ARROW_DEFAULT_MEMORY_POOL": "system", "PATH": "/nowhere"}
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


def main() -> None:
    """Parses, runs, reports."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--format", action="append", help="one of those in formats.py; all by default")
    parser.add_argument("--seeds", type=pathlib.Path, help="what seeds.make made; made anew by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--cases", type=int, help="of each format; by default a short run's")
    parser.add_argument("--scale", type=float, default=1.0, help="times as many cases by default")
    parser.add_argument("--minutes", type=float, default=0.0, help="go on with further cases for so long")
    parser.add_argument("--counts", type=pathlib.Path, help="JSON file to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as made:
        seeds = args.seeds or pathlib.Path(made)
        if not args.seeds:
            _make_seeds(seeds)
        sys.exit(_run(args, seeds.resolve()))


def _make_seeds(directory: pathlib.Path) -> None:
    """In a process of its own: what has run TensorFlow must not be forked."""
    import multiprocessing

    from tests.fuzz import seeds

    process = multiprocessing.get_context("spawn").Process(target=seeds.make, args=(directory,))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit("the seeds could not be made")


def _run(args: argparse.Namespace, seeds: pathlib.Path) -> int:
    import pyarrow.parquet  # noqa: F401 - once, and not in each fork

    from tfrecords_schema.quiet import import_tensorflow

    import_tensorflow()

    from pipelines.captions import captioner, rows, stored  # noqa: F401
    from tests.fuzz import runner
    from tests.fuzz.formats import FORMATS
    from trainer.data import batches  # noqa: F401
    from trainer.scoring import predictions, references  # noqa: F401

    gc.freeze()  # else each fork would go through all that was imported, again and again
    names = args.format or [name for name, one in FORMATS.items() if one.short or args.minutes]
    total = {name: runner.Result() for name in names}
    until = time.monotonic() + 60 * args.minutes
    for turn in itertools.count():
        for name in names:
            cases = args.cases or max(1, round(args.scale * FORMATS[name].cases))
            first = args.first + turn * cases
            began = time.monotonic()
            result = runner.run(name, FORMATS[name], seeds, args.seed, range(first, first + cases))
            total[name].counts += result.counts
            total[name].bad |= result.bad
            total[name].seconds += time.monotonic() - began
        if time.monotonic() >= until:
            break
    for name, result in total.items():
        runner.report(name, args.seed, result)
    if args.counts:
        args.counts.write_text(json.dumps({name: result.counts for name, result in total.items()}, indent=2))
    return int(any(result.bad for result in total.values()))


if __name__ == "__main__":
    main()
