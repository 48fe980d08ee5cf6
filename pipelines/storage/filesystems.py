"""Whether Beam reaches a place at all, asked before anything is read."""

from __future__ import annotations

from collections.abc import Iterable

from apache_beam.io.filesystems import FileSystems

from tfrecords_schema.errors import InputError


def require_filesystems(**places: str | Iterable[str] | None) -> None:
    """Raises InputError where Beam has no filesystem for a path of a flag."""
    for flag, given in places.items():
        for path in [given] if isinstance(given, str) else given or ():
            try:
                FileSystems.get_filesystem(path)
            except ValueError as error:
                told = (str(error).strip() or type(error).__name__).splitlines()[0]
                extra = "pip install 'apache-beam[gcp]' for gs://, 'apache-beam[aws]' for s3://"
                raise InputError(f"--{flag}: no filesystem for {path}: {told}; {extra}") from None
