"""A command as its machine sees it: how long, how much work, how much memory, with all the processes that it starts.

For Linux, whose /proc tells all three; other systems have no such table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence

_EVERY_S = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")
_TAIL = 4000  # characters


@dataclasses.dataclass(frozen=True)
class Watched:
    """What a command took.

    Attributes:
      status: its exit status; negative for a signal.
      seconds: from its start to its end.
      cpu_seconds: of all its processes; of those that it did not wait for, as last seen.
      peak_mb: the largest sum over its processes, each page shared among those that have it (PSS).
      root_mb: the peak of the process itself; `child_mb`, the largest of any other one's.
      tail: the end of what it printed.
    """

    status: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    root_mb: float
    child_mb: float
    tail: str


class _Tree:
    """A process and all that it has started, also those whose parent is gone by now."""

    def __init__(self, root: int):
        self._root, self._peak = root, 0
        self._known: dict[int, str] = {root: ""}  # when each was started, since numbers are used again
        self._cpu: dict[int, int] = {}
        self._largest: dict[int, int] = {}

    def look(self) -> list[int]:
        """Those that live; takes note of what they use."""
        stats = {}
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit():
                    text = pathlib.Path("/proc", entry, "stat").read_text()
                    stats[int(entry)] = text.rpartition(")")[2].split()
        found = True
        while found:
            found = {pid for pid, stat in stats.items() if pid not in self._known and int(stat[1]) in self._known}
            self._known |= {pid: stats[pid][19] for pid in found}
        alive = [pid for pid in self._known if pid in stats and self._known[pid] in ("", stats[pid][19])]
        self._cpu |= {pid: int(stats[pid][11]) + int(stats[pid][12]) for pid in alive}
        total = 0
        for pid in alive:
            with contextlib.suppress(OSError):
                total += _kilobytes(pid, "smaps_rollup", "Pss:")
                self._largest[pid] = max(_kilobytes(pid, "status", "VmHWM:"), self._largest.get(pid, 0))
        self._peak = max(self._peak, total)
        return alive

    def used(self) -> dict[str, float]:
        """By the names that Watched has."""
        others = [size for pid, size in self._largest.items() if pid != self._root]
        return {
            "cpu_seconds": sum(self._cpu.values()) / _TICKS,
            "peak_mb": self._peak * 1.024e-3,
            "root_mb": self._largest.get(self._root, 0) * 1.024e-3,
            "child_mb": max(others, default=0) * 1.024e-3,
        }


def _kilobytes(pid: int, file: str, name: str) -> int:
    for line in pathlib.Path("/proc", str(pid), file).read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0  # it is ending


def watch(
    command: Sequence[str],
    environment: dict[str, str] | None = None,
    kill_when: Callable[[], bool] = lambda: False,
) -> Watched:
    """Runs a command to its end.

    Args:
      environment: variables beside those of this process.
      kill_when: asked all the time; once it is so, every process of the command gets SIGKILL.
    """
    with tempfile.TemporaryFile() as said:
        begun, before = time.perf_counter(), _cpu_of_children()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=os.environ | (environment or {})
        )
        tree = _Tree(process.pid)
        while process.poll() is None:
            alive = tree.look()
            if kill_when():
                _kill([*alive, *tree.look()])
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_EVERY_S)
        seconds = time.perf_counter() - begun
        _kill(tree.look())  # those that it left behind
        said.seek(0)
        text = said.read().decode(errors="replace")
    used = tree.used()
    used["cpu_seconds"] = max(used["cpu_seconds"], _cpu_of_children() - before)
    return Watched(process.returncode, seconds, tail=text[-_TAIL:], **used)


def _cpu_of_children() -> float:
    """Of all processes that ended and were waited for, by this one or by those."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _kill(processes: Sequence[int]) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
