"""Keeps two runs of this machine from writing to one directory."""

from __future__ import annotations

import contextlib
import fcntl

from tfrecords_schema.errors import InputError


def hold(path: str, busy: str) -> contextlib.AbstractContextManager:
    """Locks a local file, which is made; the operating system takes the lock back however the process ends.

    Raises:
      InputError: another process holds it; the message is `busy`.
      OSError: the file cannot be made.
    """
    handle = open(path, "a")  # noqa: SIM115 - the caller gives it to `with`
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise InputError(busy) from None
    except OSError:
        pass  # a filesystem without locks
    return handle
