"""Where the files of an output are: a finished shard, its sidecar, what waits until everything is finished."""

from __future__ import annotations

import contextlib
import os

from tfrecords_schema.storage import files, paths

SIDECARS = ".shards"  # below an output: what each shard was made of, for as long as the shard is there


def waiting_name(directory: str, name: str) -> str:
    """Where a finished file waits until all are: nothing appears in a local directory before everything does.

    In an object store it has its own name at once, since there a rename would be a copy; readers trust the manifest.
    """
    return paths.join(files.WORK, "finished", name) if paths.is_local(directory) else name


def path_of(directory: str, name: str) -> str:
    """The path of a finished file, whether it still waits or not."""
    waiting = paths.join(directory, waiting_name(directory, name))
    return waiting if paths.is_local(directory) and os.path.exists(waiting) else paths.join(directory, name)


def is_in_place(directory: str, name: str) -> bool:
    """Whether a file has its own name, in a local directory, and so is as it was published."""
    path = path_of(directory, name)
    return paths.is_local(directory) and path == paths.join(directory, name) and os.path.exists(path)


def appear(directory: str, name: str) -> None:
    """Gives a file that waits its own name; one that has it already is left."""
    waiting = paths.join(directory, waiting_name(directory, name))
    if paths.is_local(directory):
        with contextlib.suppress(FileNotFoundError):
            target = paths.join(directory, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(waiting, target)
