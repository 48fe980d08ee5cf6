"""What processes on one machine share: locks, and a directory for copies that belongs to one user."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile

from tfrecords_schema.errors import InputError


def hold(path: str, busy: str) -> contextlib.AbstractContextManager:
    """Locks a local file, which is made; the operating system takes the lock back however the process ends.

    Raises:
      InputError: another process holds it; the message is `busy`.
      OSError: the file cannot be made, or is a link, which would have it made elsewhere, or a pipe.
    """
    handle = open(path, "a", opener=open_itself)  # noqa: SIM115 - the caller gives it to `with`
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise InputError(busy) from None
    except OSError:
        pass  # a filesystem without locks
    return handle


def open_itself(path: str, flags: int) -> int:
    """An opener for `open` that makes a file, and refuses a link, or to wait for a pipe. Raises OSError."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def private_directory(name: str) -> str:
    """`captioning-NAME-UID` among the temporary files, which is made: the same one for all processes of this user.

    It is nobody else's: whoever may write to a directory that everybody shares must not choose our model.

    Raises:
      InputError: somebody else has made something of this name.
    """
    path = os.path.join(tempfile.gettempdir(), f"captioning-{name}-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode=0o700)
    if os.lstat(path).st_uid != os.getuid():  # of a link, whose it is and not where it leads
        raise InputError(f"{path}: expected a directory of this user, found another's; set TMPDIR to one of yours")
    return path
