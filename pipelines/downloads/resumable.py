"""One file from a web server to this disk: killed at any byte, the same call goes on from there.

What has come of `train2017.zip` is in `train2017.zip.part`, and `train2017.zip.part.json` says of which file it is. The
name appears when the file is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http
import json
import os
import stat
import urllib.error
from collections.abc import Callable
from typing import BinaryIO

from pipelines.downloads import web
from pipelines.downloads.progress import Progress
from pipelines.downloads.web import CutError, Remote
from tfrecords_schema import machine
from tfrecords_schema.errors import InputError, RunError
from tfrecords_schema.manifests import typed_json
from tfrecords_schema.storage import faults, files

_CHUNK_BYTES = 1 << 20
_ENOUGH_BYTES = 1 << 16  # of an answer that was cut: with so many new ones, the next question is the first again
_KEPT = "what has arrived is kept; run the same command to continue"


class Download:
    """A file on its way.

    Attributes:
      remote: as the server described it last.
      have: how many of its bytes are here.

    Raises:
      InputError: what lies in its place is not ours.
      OSError: the disk.
    """

    def __init__(self, remote: Remote, path: str):
        self.path, self._part, self._told = path, f"{path}.part", f"{path}.part.json"
        self.remote, self.have = remote, self._size()
        self._best = self.have
        told = self._read_told()
        if self.have and told is None:
            raise InputError(
                f"--output: {self._part}: expected {os.path.basename(self._told)} beside it, which says what it is "
                "part of, found none; delete it, or give another --output"
            )
        if told != remote or not remote.validator or self.have > remote.bytes:
            if self.have:
                with self._open() as handle:
                    self._begin(handle, remote)
            else:
                self._tell(remote)

    def run(self, progress: Progress, check: Callable[[str], None]) -> None:
        """Brings what is missing; passing faults are tried again, ever more slowly.

        Args:
          check: is given the path of all bytes, and raises InputError where they are not what was wanted: they are
            deleted.

        Raises:
          RunError: it could not be brought; what has come is kept.
        """
        place = web.place_of(self.remote.url)
        with self._open() as handle, faults.retries(faults.READ_RETRIES):
            while self.have < self.remote.bytes:
                try:
                    asyncio.run(faults.patiently(lambda: self._bring(handle, progress), place))
                except OSError as error:
                    raise RunError(
                        f"{self.remote.url}: expected {self.remote.bytes:,} bytes, found {self.have:,} of them, then: "
                        f"{faults.told(error)}; {_KEPT}"
                    ) from None
            os.fsync(handle.fileno())
        try:
            check(self._part)
        except InputError:
            files.delete(self._part, self._told)
            raise
        os.replace(self._part, self.path)
        files.delete(self._told)

    async def _bring(self, handle: BinaryIO, progress: Progress) -> None:
        """Fetches as many bytes as come in one answer. Raises OSError where it was cut, unless it brought enough."""
        before = self._best
        try:
            self._receive(handle, progress)
        except OSError as error:
            if not faults.is_passing(error) or self.have - before < _ENOUGH_BYTES:
                raise
        finally:
            self._best = max(before, self.have)

    def _receive(self, handle: BinaryIO, progress: Progress) -> None:
        going_on = self.have > 0 and self.remote.validator
        headers = {"Range": f"bytes={self.have}-", "If-Range": self.remote.validator} if going_on else {}
        try:
            answer = web.ask("GET", self.remote.url, headers)
        except urllib.error.HTTPError as error:
            if not headers or error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            self._anew(handle, progress, self.remote)
            raise CutError("the server has fewer bytes than are here") from None
        with answer:
            part = web.part_of(answer)
            if part is None:
                self._anew(handle, progress, web.described(self.remote.url, answer))
            elif part != (self.have, self.remote.bytes):
                self._anew(handle, progress, self.remote)
                raise CutError("the server sent another part than it was asked for")
            while missing := self.remote.bytes - self.have:
                data = web.some_of(answer, min(_CHUNK_BYTES, missing))
                if not data:
                    raise CutError(f"the answer ended {missing:,} bytes before its end")
                self._write(handle, data)
                progress.came(len(data))

    def _anew(self, handle: BinaryIO, progress: Progress, remote: Remote) -> None:
        if self.have:
            progress.say(
                f"{os.path.basename(self.path)}: the server cannot continue where the download stopped; starting again"
            )
        progress.came(-self.have)
        progress.expect(remote.bytes - self.remote.bytes)
        self._begin(handle, remote)

    def _begin(self, handle: BinaryIO, remote: Remote) -> None:
        """In this order, so that no byte of one file is ever taken for one of another."""
        handle.truncate(0)
        self.have = 0
        self._tell(remote)

    def _write(self, handle: BinaryIO, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                count = handle.write(left)
                left, self.have = left[count:], self.have + count
        except OSError as error:
            missing = self.remote.bytes - self.have
            raise RunError(
                f"--output: {self._part}: expected room for {missing:,} more bytes, found: {error.strerror}; {_KEPT}"
            ) from None

    def _open(self) -> BinaryIO:
        return open(self._part, "ab", buffering=0, opener=machine.open_itself)

    def _size(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(self._part)
            if not stat.S_ISREG(found.st_mode):
                raise InputError(
                    f"--output: {self._part}: expected a file that an earlier download wrote, found a link or "
                    "something else; delete it"
                )
            return found.st_size
        return 0

    def _tell(self, remote: Remote) -> None:
        self.remote = remote
        directory, name = os.path.split(self._told)
        files.replace(directory, {name: json.dumps(dataclasses.asdict(remote)).encode()})

    def _read_told(self) -> Remote | None:
        """None where there is none; one that no server gives where it is damaged."""
        try:
            text = files.read_text(self._told)
            return None if text is None else typed_json.decode(text, Remote, self._told)
        except ValueError:
            return Remote("", 0, "")
