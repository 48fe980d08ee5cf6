"""A job directory in an object store: training works in a local one, whose changes are sent after each checkpoint."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence

from tfrecords_schema import machine
from tfrecords_schema.errors import InputError, RunError
from tfrecords_schema.storage import copies, faults, files, finding, objects

_PUSHING = 4  # retries, some five seconds: devices are waiting


class Local:
    """A job directory of this machine, where there is nothing to send."""

    def __init__(self, directory: str):
        self.directory = directory

    def send(self) -> None:
        """Does nothing: the directory is already where it is kept."""

    def push(self) -> str:
        """Does nothing; there is never anything to tell."""
        return ""

    def finish(self) -> None:
        """Does nothing."""

    def told(self) -> contextlib.AbstractContextManager:
        """A context in which errors stay as they are."""
        return contextlib.nullcontext()


class Mirror:
    """A local directory with the files of a remote one, below some names.

    Whoever reads the remote directory at any time, and whoever goes on with it after any stop, finds checkpoints whole:
    files are sent in an order in which each comes after those that it stands for, an object's upload shows all of it
    or none, and what is gone here is deleted there at last.

    Args:
      directory: the local one; what is in it is deleted, unless it is further than the remote one.
      uri: the remote one.
      names: files and directories in it, in the order in which they are to be sent; the first tells runs apart.
    """

    def __init__(self, directory: str, uri: str, names: Sequence[str]):
        self.directory, self._uri, self._names = directory, uri, names
        self._sent: dict[str, tuple[int, int]] = {}  # by name: size and time of the local file
        self.has_unsent = False

    def fetch(self) -> None:
        """Makes the local directory as the remote one is, or keeps what an outage left there. Raises OSError."""
        found = []
        for name in self._names:
            place = posixpath.join(self._uri, name)
            below = [posixpath.join(name, file) for file in finding.names_below(place)]
            found += below or ([name] if files.size(place) is not None else [])
        if self._is_further_than(found):
            print(f"going on from {self.directory}, which an earlier run could not send to {self._uri}", flush=True)
            self._sent = dict.fromkeys(found, (-1, -1))  # all is sent anew: nobody knows what came to be there
            self.has_unsent = True
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory)
        copies.fetch(self._uri, found, self.directory)
        self._sent = self._state()

    def _is_further_than(self, remote: list[str]) -> bool:
        """Whether the local directory is of the remote one's run, and has a later checkpoint."""
        which = self._names[0]
        here = files.read_text(os.path.join(self.directory, which))
        if here is None or _saves(self._state()) <= _saves(remote):
            return False
        return here == files.read_text(posixpath.join(self._uri, which))

    def send(self) -> None:
        """Sends what changed, then deletes what is gone. Raises OSError."""
        self.has_unsent = True
        state = self._state()
        for name in sorted(state, key=self._order):
            if self._sent.get(name) != state[name]:
                files.upload(os.path.join(self.directory, name), posixpath.join(self._uri, name))
                self._sent[name] = state[name]
        for name in sorted(self._sent.keys() - state.keys(), key=self._order, reverse=True):
            objects.delete([posixpath.join(self._uri, name)])
            del self._sent[name]
        self.has_unsent = False

    def push(self) -> str:
        """Sends what changed, during training, which an outage must not end: the next push sends what this one left.

        Returns:
          What is to be told; empty where all went well.
        """
        had_unsent = self.has_unsent
        try:
            with faults.retries(_PUSHING):
                self.send()
        except OSError as error:
            return f"warning: {self._uri}: could not be written: {files.reason(error)}; the next checkpoint tries again"
        return f"{self._uri}: everything is written now" if had_unsent else ""

    def finish(self) -> None:
        """Sends what changed at the end of a run. Raises RunError."""
        try:
            self.send()
        except OSError as error:
            raise RunError(
                f"--job_dir: {self._uri}: could not be written: {files.reason(error)}; what is missing there is in "
                f"{self.directory}; run the same command on this machine to send it and continue"
            ) from None

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Errors name the remote directory, which the user gave, in place of the local one."""
        try:
            yield
        except (InputError, RunError) as error:
            raise type(error)(str(error).replace(self.directory, self._uri)) from error

    def _order(self, name: str) -> tuple[int, int, str]:
        """A checkpoint's data, then its index, then the file `checkpoint` that calls it the latest."""
        kind = 2 if posixpath.basename(name) == "checkpoint" else int(name.endswith(".index"))
        return self._names.index(name.split("/")[0]), kind, name

    def _state(self) -> dict[str, tuple[int, int]]:
        """Size and time of each file that is to be sent."""
        found = {}
        for folder, _, names in os.walk(self.directory):
            for path in (os.path.join(folder, name) for name in names):
                name = os.path.relpath(path, self.directory)
                if name.split("/")[0] in self._names:
                    status = os.stat(path)
                    found[name] = status.st_size, status.st_mtime_ns
        return found


def _saves(names: Iterable[str]) -> int:
    """How many checkpoints a run has written, by the numbers in the names of each phase's latest."""
    latest: dict[str, int] = {}
    for name in names:
        if found := re.fullmatch(r"(.+)/ckpt-(\d+)\.index", name):
            latest[found[1]] = max(latest.get(found[1], 0), int(found[2]))
    return sum(latest.values())


@contextlib.contextmanager
def mirrored(uri: str, names: Sequence[str], unusable: Callable[[Exception], InputError]) -> Iterator[Mirror]:
    """A Mirror with what the remote directory holds; locked against other runs of this machine.

    The local directory is deleted at the end, unless there is something in it that could not be sent.

    Raises:
      InputError: another run has it, or what `unusable` makes of the error of a directory that cannot be read.
    """
    uri = uri.rstrip("/")
    directory = os.path.join(copies.place(), "job-" + hashlib.sha256(uri.encode()).hexdigest()[:16])
    busy = f"--job_dir: another run is writing to {uri}; wait for it, or give another --job_dir"
    with machine.hold(directory + ".lock", busy):
        mirror = Mirror(directory, uri, names)
        try:
            mirror.fetch()
        except OSError as error:
            raise unusable(error) from None
        try:
            yield mirror
        finally:
            if not mirror.has_unsent:
                shutil.rmtree(directory, ignore_errors=True)
