"""What a path is, told by its text alone: local or remote, absolute, a pattern; joined and spelled in one way."""

from __future__ import annotations

import os
import posixpath

S3, GOOGLE, AZURE, HDFS, WEB = ("s3", "s3a"), ("gs", "gcs"), ("abfs", "abfss", "az"), ("hdfs",), ("http", "https")
_KNOWN = (*S3, *GOOGLE, *AZURE, *HDFS, *WEB)


def scheme(path: str) -> str:
    """`s3` of `s3://bucket/name`; empty for a path of this machine."""
    found, separator, _ = path.partition("://")
    return found.lower() if separator and found.lower() != "file" else ""


def is_local(path: str) -> bool:
    """Whether this machine's own file functions can open the path."""
    return not scheme(path)


def is_remote(path: str) -> bool:
    """Whether a path is the URI of a file that is not on this machine."""
    return not is_local(path)


def is_web(path: str) -> bool:
    """Whether a path is what a browser opens: a single file, to be read only."""
    return scheme(path) in WEB


def has_filesystem(path: str) -> bool:
    """Whether the path can be opened, by its scheme."""
    import fsspec

    return is_local(path) or scheme(path) in _KNOWN or scheme(path) in fsspec.registry


def way_to_read(path: str) -> str:
    """What to do about a path that cannot be opened, or not as a directory."""
    if is_web(path):
        way = "list the images in a table, or download them first and give the directory"
        return f"web servers are read file by file: {way}"
    extra = {**dict.fromkeys(S3, "aws"), **dict.fromkeys(GOOGLE, "gcp"), **dict.fromkeys(AZURE, "azure")}
    known = extra.get(scheme(path))
    return (
        f"pip install 'batch-image-captioning[{known}]'"
        if known
        else "expected a local path, gs://, s3://, abfs:// or hdfs://"
    )


def is_absolute(path: str) -> bool:
    """Whether a path means the same file wherever it stands."""
    return not is_local(path) or os.path.isabs(path)


def is_file(path: str) -> bool:
    """Whether a path is a local file."""
    return is_local(path) and os.path.isfile(path)


def is_pattern(path: str) -> bool:
    """Whether a path has characters that a glob pattern is made of; a name may have them too."""
    return any(character in path for character in "*?[")


def absolute(path: str) -> str:
    """One spelling for each file, however it was given."""
    return os.path.abspath(path.removeprefix("file://")) if is_local(path) else path.rstrip("/")


def normalised(name: str) -> str:
    """One spelling for each name in a list of files: ./a.jpg is a.jpg; a URI stays as it is."""
    return name if "://" in name else posixpath.normpath(name)


def join(directory: str, *names: str) -> str:
    """A path below a directory, wherever it is."""
    return os.path.join(directory, *names) if is_local(directory) else posixpath.join(directory, *names)
