"""Copies of remote directories on this machine's disk, for what TensorFlow reads by itself."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile

from pipelines.storage import files, finding, paths
from tfrecords_schema import machine


def local_copy(directory: str) -> str:
    """A local directory with the same files: itself where it is local, else one copy for all processes of this machine.

    The copy's name follows from the names, sizes and times of the files, so that one that changed is copied anew.

    Raises:
      InputError: the directory for copies is somebody else's.
    """
    if paths.is_local(directory):
        return directory
    root, listing = directory.rstrip("/") + "/", _listing(directory)
    digest = hashlib.sha256(repr(listing).encode()).hexdigest()[:16]
    parent = machine.private_directory("copies")
    target = os.path.join(parent, digest)
    if not os.path.isdir(target):
        making = tempfile.mkdtemp(dir=parent)
        for file, *_ in listing:
            path = os.path.join(making, file.removeprefix(root))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with files.open_binary(file) as source, open(path, "wb") as handle:
                shutil.copyfileobj(source, handle)
        if _listing(directory) != listing:  # it was replaced meanwhile, and what we have is of both
            shutil.rmtree(making)
            return local_copy(directory)
        try:
            os.rename(making, target)
        except OSError:  # another process was quicker
            shutil.rmtree(making)
    return target


def _listing(directory: str) -> list[tuple[str, int, float]]:
    return sorted((m.path, m.size_in_bytes, m.last_updated_in_seconds) for m in finding.below(directory))
