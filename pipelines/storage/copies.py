"""Copies of remote directories on this machine's disk, for what TensorFlow reads by itself."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile

from pipelines.storage import files, finding, paths


def local_copy(directory: str) -> str:
    """A local directory with the same files: itself where it is local, else one copy for all processes of this machine.

    The copy's name follows from the names, sizes and times of the files, so that one that changed is copied anew.
    """
    if paths.is_local(directory):
        return directory
    root, listing = directory.rstrip("/") + "/", _listing(directory)
    digest = hashlib.sha256(repr(listing).encode()).hexdigest()[:16]
    # Of this user alone: whoever may write to a directory that everybody shares must not choose our model.
    parent = os.path.join(tempfile.gettempdir(), f"captioning-copies-{os.getuid()}")
    os.makedirs(parent, mode=0o700, exist_ok=True)
    if os.stat(parent).st_uid != os.getuid():
        parent = tempfile.mkdtemp(prefix="captioning-copies-")
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
