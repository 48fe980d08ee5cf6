"""What a path is, told by its text alone: local or remote, absolute, a pattern; joined and spelled in one way."""

from __future__ import annotations

import os
import posixpath

from apache_beam.io.filesystems import FileSystems


def is_local(path: str) -> bool:
    """Whether this machine's own file functions can open the path."""
    return "://" not in path or FileSystems.get_scheme(path) in (None, "file")


def has_filesystem(path: str) -> bool:
    """Whether Beam can open the path, by its scheme."""
    try:
        FileSystems.get_filesystem(path)
    except ValueError:
        return False
    return True


def way_to_read(path: str) -> str:
    """What to do about a path that Beam cannot open."""
    scheme = path.partition("://")[0].lower()
    if scheme in ("http", "https"):
        way = "download first what is there (images, for example, with img2dataset), and give the directory"
        return f"web servers are not read yet: {way}"
    extra = {"gs": "gcp", "s3": "aws"}.get(scheme)
    return f"pip install 'apache-beam[{extra}]'" if extra else "expected a local path, gs://, s3:// or hdfs://"


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
    return os.path.abspath(path) if is_local(path) else path.rstrip("/")


def beside(path: str, name: str) -> str:
    """`/data/features-job` of `data/features` and "job"; a bucket has nothing beside it, and takes it in."""
    whole = absolute(path)
    return f"{whole}-{name}" if "/" in whole.partition("://")[2] or is_local(path) else join(whole, name)


def join(directory: str, *names: str) -> str:
    """A path below a directory, on any filesystem."""
    return os.path.join(directory, *names) if is_local(directory) else posixpath.join(directory, *names)
