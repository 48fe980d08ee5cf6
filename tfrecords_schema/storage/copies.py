"""Copies of remote directories on this machine's disk, for what TensorFlow reads by itself."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import posixpath
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from tfrecords_schema import machine
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import ShardInfo
from tfrecords_schema.storage import files, finding, paths

_THREADS = 8  # object stores answer slowly


def place() -> str:
    """The directory for the trainer's copies, of this user alone. Raises InputError."""
    return machine.private_directory("trainer")


def local_copy(directory: str, but: str = "") -> str:
    """A local directory with the same files: itself where it is local, else one copy for all processes of this machine.

    Without the folder of the name `but`, if that is given. The copy's name follows from the names and versions of the
    files, so that one that changed is copied anew.

    Raises:
      InputError: the directory for copies is somebody else's.
    """
    if paths.is_local(directory):
        return directory
    root, listed = directory.rstrip("/") + "/", _listed(directory, but)
    digest = hashlib.sha256(repr(listed).encode()).hexdigest()[:16]
    parent = machine.private_directory("copies")
    target = os.path.join(parent, digest)
    if not os.path.isdir(target):
        making = tempfile.mkdtemp(dir=parent)
        try:
            fetch(directory, [path.removeprefix(root) for path, _ in listed], making)
        except BaseException:
            shutil.rmtree(making)
            raise
        if _listed(directory, but) != listed:  # it was replaced meanwhile, and what we have is of both
            shutil.rmtree(making)
            return local_copy(directory, but)
        try:
            os.rename(making, target)
        except OSError:  # another process was quicker
            shutil.rmtree(making)
    return target


def _listed(directory: str, but: str) -> list[tuple[str, str]]:
    without = paths.join(directory.rstrip("/"), but, "")
    return [entry for entry in finding.versions_below(directory) if not (but and entry[0].startswith(without))]


def feature_directory(
    directory: str, texts: dict[str, str], shards: list[ShardInfo], check: Callable[[], None] = lambda: None
) -> str:
    """A local copy of a remote feature directory, each shard checked against its recorded size and digest.

    Its name follows from its content, so that a second run finds it, and a killed one goes on with the shards that are
    missing: a shard has its name when it is whole and checked.

    Args:
      texts: the small files by name.
      check: called now and then; may raise to stop.

    Raises:
      InputError: a shard is not there or not what is recorded, or the disk is too small.
    """
    target = os.path.join(place(), "features-" + _digest(*texts.values()))
    os.makedirs(target, exist_ok=True)
    missing = [shard for shard in shards if not _is_there(os.path.join(target, shard.name), shard)]
    needed, free = sum(shard.bytes for shard in missing), shutil.disk_usage(target).free
    if needed > free:
        raise InputError(
            f"--data: {directory}: expected {_gb(needed)} of disk for a copy of it, found {_gb(free)} in {target}; set "
            "TMPDIR to a directory of a larger disk"
        )
    if missing:
        print(f"copying {len(missing)} shards, {_gb(needed)}, from {directory} to {target}", flush=True)
        _parallel([functools.partial(_fetch, directory, target, shard) for shard in missing], check, "shards")
    for name, text in texts.items():
        files.write_text(target, name, text)
    return target


@contextlib.contextmanager
def temporary(directory: str, but: str = "") -> Iterator[str]:
    """A local directory with the same files while this is entered; itself where it is local. Raises OSError.

    A folder of the name `but` is left out of a copy.
    """
    if paths.is_local(directory):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="captioning-") as target:
        names = finding.names_below(directory)
        fetch(directory, [name for name in names if not (but and name.startswith(f"{but}/"))], target)
        yield target


def fetch(directory: str, names: list[str], target: str) -> None:
    """Copies files of a remote directory, by name, into a local one.

    Raises:
      InputError: a name, which in an object store may hold any text, leads out of the local directory.
      OSError: one cannot be copied.
    """
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise InputError(
                f"{directory}: expected names of files inside it, found {name[:200]!r}, which leads outside; delete it"
            )
    for name in names:
        os.makedirs(os.path.dirname(os.path.join(target, name)), exist_ok=True)
    _parallel(
        [
            functools.partial(files.download, posixpath.join(directory, name), os.path.join(target, name))
            for name in names
        ]
    )


def _fetch(directory: str, target: str, shard: ShardInfo) -> None:
    source, path = posixpath.join(directory, shard.name), os.path.join(target, shard.name)
    temporary = f"{path}.{uuid.uuid4().hex}.part"  # containers that share a disk have the same process numbers
    try:
        files.download(source, temporary)
        if not _is_there(temporary, shard):
            found = os.path.getsize(temporary)
            raise InputError(f"{source}: expected {shard.bytes} bytes, found {found}; make the features again")
        with open(temporary, "rb") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != shard.sha256:
                raise InputError(
                    f"{source}: expected the SHA-256 that features_info.json records, found another; copy the shard "
                    "again, or make the features again"
                )
        os.replace(temporary, path)
    except FileNotFoundError:
        raise InputError(f"{source}: expected {shard.bytes} bytes, found no file; make the features again") from None
    except OSError as error:
        raise InputError(f"--data: {source}: expected a shard that can be copied here: {files.reason(error)}") from None
    finally:
        files.delete(temporary)


def _parallel(tasks: list[Callable[[], None]], check: Callable[[], None] = lambda: None, what: str = "") -> None:
    """Calls all; the first error ends it. Tells how far it is, every tenth part, if `what` says of what."""
    with ThreadPoolExecutor(_THREADS) as pool:
        pending = [pool.submit(task) for task in tasks]
        try:
            for count, future in enumerate(as_completed(pending), start=1):
                check()
                future.result()
                if what and count * 10 // len(tasks) > (count - 1) * 10 // len(tasks):
                    print(f"copied {count}/{len(tasks)} {what}", flush=True)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _is_there(path: str, shard: ShardInfo) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) == shard.bytes


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8")).hexdigest()[:16]


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
