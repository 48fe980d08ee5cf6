"""The clients of stores, made by fsspec: once per process and place, with the user's flags.

fsspec's own caches are not used: what is listed or read is what is there now.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from tfrecords_schema.storage import faults, paths, stores

_clients: dict[tuple[str, str], stores.Store] = {}
_making = threading.Lock()


def use_flags(flags: Mapping[str, Any]) -> None:
    """Has clients made by Beam's flags for stores (`s3_endpoint_url`, `no_auth` and others) from now on."""
    stores.FLAGS.clear()
    stores.FLAGS.update(flags)
    forget()


def forget() -> None:
    """Has all clients made anew. Another process, forked from this one, begins with that: connections are no heirs."""
    global _making
    _clients.clear()
    faults.forget()
    _making = threading.Lock()


os.register_at_fork(after_in_child=forget)


def _make(scheme: str, bucket: str) -> stores.Store:
    if scheme in paths.S3:
        from tfrecords_schema.storage.s3 import S3

        return S3()
    if scheme in paths.GOOGLE:
        from tfrecords_schema.storage.google import Google

        return Google()
    if scheme in paths.WEB:
        from tfrecords_schema.storage.web import Web

        return Web(scheme)
    from tfrecords_schema.storage.other import Other

    return Other(scheme, bucket)


def store(scheme: str, bucket: str) -> stores.Store:
    """The client for a bucket. Raises OSError where it cannot be made: no package, a wrong profile, endpoint or key."""
    key = (scheme, "") if scheme in (*paths.S3, *paths.GOOGLE, *paths.WEB) else (scheme, bucket)
    with _making:
        if key not in _clients:
            try:
                _clients[key] = _make(scheme, bucket)
            except ImportError as error:
                raise OSError(f"{error}; {paths.way_to_read(f'{scheme}://')}") from None
            except Exception as error:  # each client has kinds of its own
                if faults.is_of_the_machine(error):
                    raise
                raise OSError(f"{type(error).__name__}: {faults.told(error)}") from None
        return _clients[key]
