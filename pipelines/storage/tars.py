"""Tar files read in place: a member's URI is `images.tar!/1536/folder/name.jpg`, the number being where it begins.

A tar file has no directory: only who has gone through all of it knows where a member is. So the listing does that once,
and says so in the URI. Members that are read one after the other, as the images of a run are, come out of large pieces
of a remote file, which are fetched once.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterator

from pipelines.items import ImageError
from pipelines.storage import ranges, tar_headers
from pipelines.storage.tar_headers import Member, TarError
from tfrecords_schema.storage import files, paths
from tfrecords_schema.storage.faults import Awaited

_ENDING = ".tar"
_PACKED = re.compile(r"(?i)\.(tar\.\w+|tgz|tbz2?|txz|tzst)$")
_URI = re.compile(rf"(?P<tar>.+{re.escape(_ENDING)})!/(?P<offset>\d{{1,18}})/(?P<name>.+)", re.IGNORECASE | re.DOTALL)
_FIRST_BYTES, _MOST_BYTES = 128 << 10, 4 << 20  # of a piece, which grow from the first to the last
_GAP = 64 << 10  # between two images that still follow each other: what lies there is read along
_HELD_BYTES = 16 << 20  # of the pieces of a file


def is_tar(path: str) -> bool:
    """Whether a path is to be taken for a tar file."""
    return path.lower().endswith(_ENDING)


def is_packed(path: str) -> bool:
    """Whether a path is to be taken for a tar file that is compressed as a whole, which cannot be read in place."""
    return bool(_PACKED.search(path))


def member_uri(tar: str, offset: int, name: str) -> str:
    """The URI of a member, which `parse_uri` takes apart."""
    return f"{tar}!/{offset}/{name}"


def parse_uri(uri: str) -> tuple[str, int, str] | None:
    """(tar file, where the member begins, its name) of a member's URI; None for any other."""
    match = _URI.fullmatch(uri)
    return match and (match["tar"], int(match["offset"]), match["name"])


def walk(path: str) -> Iterator[tuple[Member, Callable[[int], bytes]]]:
    """Each member of a file in its order, with a function that reads so many bytes of it, before the next one is taken.

    Goes forward, and past what is not read. Raises TarError where the file is damaged, and OSError.
    """
    with files.open_binary(path) as handle:
        total = handle.seek(0, 2)

        def read_at(start: int, count: int) -> bytes:
            handle.seek(start)
            return handle.read(count)

        for member in tar_headers.members(read_at, total):
            yield member, functools.partial(read_at, member.start)


def read(path: str, offset: int, name: str, admit: Callable[[int], None]) -> bytes:
    """A member's bytes. Raises ImageError, stage "read", OSError, and what `admit` does.

    Args:
      admit: is given the bytes that the member has, before they are read.
    """
    read_range = _forward(path).read if paths.is_remote(path) else functools.partial(ranges.read, path)
    try:
        member = tar_headers.member_at(lambda start, count: read_range(start, start + count), offset)
    except TarError as error:
        raise ImageError("read", "DamagedMember", f"{path}: {error}") from None
    if member is None or member.name != name:
        found = "the end" if member is None else repr(member.name)[:60]
        message = f"{path}: expected {name!r:.60} at byte {offset}, found {found}: it is another file by now"
        raise ImageError("read", "DamagedMember", message)
    if member.kind:
        raise ImageError("read", "Unreadable", f"{member.kind} in a tar file, not a file")
    admit(member.size)
    data = read_range(member.start, member.start + member.size)
    if len(data) < member.size:
        message = f"{path}: expected {member.size} bytes of {name!r:.60}, found {len(data)}"
        raise ImageError("read", "DamagedMember", message)
    return data


def forget() -> None:
    """Has every file be read anew."""
    _forward.cache_clear()
    ranges.forget()


@functools.lru_cache(maxsize=16)  # workers make as many shards beside each other
def _forward(path: str) -> _Forward:
    """What is held of a remote file, by all threads of this process."""
    return _Forward(path)


class _Piece(Awaited[bytes]):
    """Bytes from `start`, to `stop` or the file's end, which one thread fetches and others wait for."""

    def __init__(self, start: int, stop: int):
        super().__init__()
        self.start, self.stop = start, stop


class _Forward:
    """A remote file in pieces: small ones where images are far from each other, larger and larger ones where not."""

    def __init__(self, path: str):
        self._path = path
        self._pieces: list[_Piece] = []  # the newest stands last
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`, as `ranges.read` gives them."""
        found: list[bytes] = []
        while start < stop:
            piece, is_mine = self._piece(start, stop)
            if piece is None:
                found.append(ranges.read(self._path, start, stop))
                break
            if is_mine:
                self._fetch(piece)
            if piece.was_given_up():
                continue
            part = piece.result()[start - piece.start : stop - piece.start]
            if not part:  # the file ends here
                break
            found.append(part)
            start += len(part)
        return b"".join(found)

    def _piece(self, start: int, stop: int) -> tuple[_Piece | None, bool]:
        """(the piece that has the first byte, whether it is to be fetched); None for what no piece should hold."""
        with self._lock:
            for piece in reversed(self._pieces):
                if piece.start <= start < piece.stop:
                    return piece, False
            if stop - start > _MOST_BYTES:
                return None, False
            before = [piece for piece in self._pieces if 0 <= start - piece.stop <= _GAP]
            length = max((2 * (piece.stop - piece.start) for piece in before), default=_FIRST_BYTES)
            end = start + max(min(length, _MOST_BYTES), stop - start)
            end = min([end, *(piece.start for piece in self._pieces if piece.start > start)])
            piece = _Piece(start, end)
            self._pieces.append(piece)
            while sum(one.stop - one.start for one in self._pieces) > _HELD_BYTES:
                del self._pieces[0]
            return piece, True

    def _fetch(self, piece: _Piece) -> None:
        try:
            piece.set_result(ranges.read(self._path, piece.start, piece.stop))
        except BaseException as error:
            with self._lock:  # the next one asks anew
                self._pieces = [one for one in self._pieces if one is not piece]
            piece.set_exception(error)
