"""Cases in processes that may die of them: under a limit of memory and of time, one after the other, told one by one.

The process that is asked has imported everything, and done nothing; each format's cases run in a fork of it, and after
a crash, a hang or the end of memory the next ones in a new fork.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gc
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

from tests.fuzz import mutations, odd, oracle
from tests.fuzz.oracle import Outcome, Seen

_MEMORY_BYTES = 1_500_000_000  # beside what is in use when valid files were read
_START_TIMEOUT_S = 120.0
_MARK = "precious, and nobody's business\n"


Read = Callable[[pathlib.Path, pathlib.Path], Seen]


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
      parts: files and directories of the seeds, copied side by side for each case.
      targets: patterns of the files that are changed, of which one is chosen.
      read: (where the parts are, an output directory) -> what was made of them; raises as a command does.
      cases: in a short run, and in each turn of a long one; those that take long have fewer.
      short: whether `make test` has it at all.
      timeout_s: for one case, on a machine that others use too.
    """

    parts: tuple[str, ...]
    targets: tuple[str, ...]
    read: Read
    cases: int = 15
    timeout_s: float = 20.0
    short: bool = True


@dataclasses.dataclass
class Result:
    """Of one format: how many cases had which outcome, and those that must not be, by number.

    `seconds` are those of this machine, for choosing how many cases a turn has.
    """

    seconds: float = 0.0
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    bad: dict[int, tuple[str, Outcome]] = dataclasses.field(default_factory=dict)

    def add(self, number: int, how: str, outcome: Outcome) -> None:
        """One case."""
        self.counts[outcome.kind if outcome.is_good else "bad"] += 1
        if not outcome.is_good:
            self.bad[number] = (how, outcome)


def run(name: str, format_: Format, seeds: pathlib.Path, seed: int, numbers: range) -> Result:
    """The cases of a format with these numbers."""
    result, number = Result(), numbers.start
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        while number < numbers.stop:
            here, there = fork.Pipe(duplex=False)
            left = range(number, numbers.stop)
            process = fork.Process(target=_work, args=(format_, name, seeds, pathlib.Path(place), seed, left, there))
            process.start()
            there.close()
            number = _collect(here, process, number, result, format_.timeout_s)
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
            process.join()
    return result


def _collect(
    here: multiprocessing.connection.Connection, process, number: int, result: Result, timeout_s: float
) -> int:
    """Takes what a fork tells until it ends, or takes too long; returns the number of the next case."""
    how, wait_s = "valid files", _START_TIMEOUT_S
    while True:
        try:
            if not here.poll(wait_s):
                result.add(number, how, Outcome("hang", f"more than {wait_s:.0f} s"))
                return number + 1
            told = here.recv()
        except EOFError:
            process.join()
            if process.exitcode:
                result.add(number, how, Outcome("crash", f"the process ended with {process.exitcode}"))
                return number + 1
            return number
        if isinstance(told, RuntimeError):
            raise told
        if isinstance(told, str):
            how, wait_s = told, timeout_s
        else:
            result.add(number, how, told)
            number += 1


def repeat(name: str, seed: int, number: int) -> str:
    """The command that runs a case again."""
    return f"python -m tests.fuzz --format {name} --seed {seed} --first {number} --cases 1"


def _work(format_: Format, name: str, seeds, place, seed: int, numbers: range, there) -> None:
    """In a fork: tells of each case how it is made, then what came of it; or what is wrong with the fuzzer itself."""
    try:
        _work_on(format_, name, seeds, place / "case", seed, numbers, there)
    except BaseException:
        there.send(RuntimeError(traceback.format_exc()))
    there.close()
    os._exit(0)  # no atexit of libraries that were imported before the fork


def _work_on(format_: Format, name: str, seeds, case: pathlib.Path, seed: int, numbers: range, there) -> None:
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
        spare = [path.read_bytes() for path in sorted(seeds.rglob("*")) if path.is_file()]
        _lay_out(format_, seeds, case)
        valid = oracle.judge(lambda: format_.read(case / "given", case / "out"))
        if valid.kind not in ("rows", "rejects"):
            raise AssertionError(f"{name}: valid files were not read: {valid}")
        _limit_memory()
        for number in numbers:
            _lay_out(format_, seeds, case)
            rng = random.Random(f"{name}:{seed}:{number}")
            target = rng.choice(_targets(format_, case / "given"))
            there.send(mutations.mutate(target, mutations.Context(rng, str(case), spare)))
            outcome = _judged(format_, case)
            there.send(outcome)
            if outcome.kind == "MemoryError":  # what is left of it might hurt the next case
                break


def _targets(format_: Format, given: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for pattern in format_.targets for path in given.glob(pattern) if path.is_file())


def _judged(format_: Format, case: pathlib.Path) -> Outcome:
    before = _around(case)
    outcome = oracle.judge(lambda: format_.read(case / "given", case / "out"))
    changed = oracle.changes(before, _around(case))
    gc.collect()
    if changed:
        return Outcome("changed", f"{', '.join(changed)[:300]} ({outcome.kind})")
    return outcome


def _around(case: pathlib.Path) -> dict[str, object]:
    """All but what a command may write: the output, without what is another's there."""
    found = oracle.tree(case)
    own = str(case / "out/")
    return {path: told for path, told in found.items() if not path.startswith(own) or odd.PRECIOUS in path}


def _lay_out(format_: Format, seeds: pathlib.Path, case: pathlib.Path) -> None:
    """A case's directory anew: `given` with the parts, neighbours that must stay as they are, `out` with some too."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(case)
    for folder in ("given", "neighbour", "out/mine"):
        (case / folder).mkdir(parents=True)
        (case / folder / odd.PRECIOUS).write_text(_MARK)
    (case / odd.PRECIOUS).write_text(_MARK)
    (case / "out" / odd.PRECIOUS).write_text(_MARK)
    (case / "link").symlink_to("neighbour")
    for part in format_.parts:
        source = seeds / part
        target = case / "given" / source.name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    os.chdir(case)


def _limit_memory() -> None:
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def report(name: str, seed: int, result: Result) -> None:
    """Prints the counts of a format, and each case that must not be with the command that repeats it."""
    total = sum(result.counts.values())
    counts = ", ".join(f"{kind} {result.counts[kind]:,}" for kind in (*oracle.GOOD, "bad") if result.counts[kind])
    print(f"{name:<20}{total:>7,}{result.seconds:>8.1f} s  {counts}", flush=True)
    for number, (how, outcome) in result.bad.items():
        print(f"  {outcome.kind}: {outcome.detail}\n    {how[:200]}\n    {repeat(name, seed, number)}", file=sys.stderr)
