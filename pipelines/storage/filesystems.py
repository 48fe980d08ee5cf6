"""Whether Beam reaches a place at all, asked before anything is read."""

from __future__ import annotations

from collections.abc import Iterable

from apache_beam.io.filesystems import FileSystems

from pipelines.storage import objects, paths
from tfrecords_schema.errors import InputError


def require_filesystems(**places: str | Iterable[str] | None) -> None:
    """Raises InputError where Beam has no filesystem for a path of a flag, or nobody answers for its bucket."""
    answered = set()
    for flag, given in places.items():
        for path in [given] if isinstance(given, str) else given or ():
            try:
                FileSystems.get_filesystem(path)
            except ValueError:
                raise InputError(f"--{flag}: no filesystem for {path}; {paths.way_to_read(path)}") from None
            bucket = "/".join(path.split("/")[:3])
            if objects.is_object(path) and bucket not in answered:
                _require_bucket(flag, bucket)
                answered.add(bucket)


def _require_bucket(flag: str, bucket: str) -> None:
    if not bucket.partition("://")[2]:
        raise InputError(f"--{flag}: expected {bucket.partition(':')[0]}://BUCKET/NAME, found no bucket's name")
    try:
        objects.require_bucket(bucket)
    except (OSError, ValueError) as error:  # the latter for what can be no bucket's name
        told = " ".join(str(error).removeprefix(f"{bucket}: ").split())
        raise InputError(f"--{flag}: expected a bucket that answers, found {bucket}: {told}") from None
