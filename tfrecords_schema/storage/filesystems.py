"""Whether a place is reached at all, asked before anything is read."""

from __future__ import annotations

from collections.abc import Iterable

from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import objects, paths


def require_filesystems(**places: str | Iterable[str] | None) -> None:
    """Raises InputError where a path of a flag has a scheme that nobody knows, or nobody answers for its bucket."""
    answered = set()
    for flag, given in places.items():
        for path in [given] if isinstance(given, str) else given or ():
            if paths.is_local(path):
                continue
            if paths.is_web(path) or not paths.has_filesystem(path):
                raise InputError(f"--{flag}: no filesystem for {path}; {paths.way_to_read(path)}")
            bucket = "/".join(path.split("/")[:3])
            if bucket not in answered:
                _require_bucket(flag, bucket)
                answered.add(bucket)


def _require_bucket(flag: str, bucket: str) -> None:
    scheme = paths.scheme(bucket)
    if scheme not in paths.HDFS and not bucket.partition("://")[2]:
        raise InputError(f"--{flag}: expected {scheme}://BUCKET/NAME, found no bucket's name")
    try:
        objects.require_bucket(bucket)
    except (OSError, ValueError) as error:  # the latter for what can be no bucket's name
        said = " ".join(str(error).removeprefix(f"{bucket}: ").split())
        raise InputError(f"--{flag}: expected a bucket that answers, found {bucket}: {said}") from None
