"""The weights that features are made with, inside a feature directory or an export: one file, or a SavedModel's files.

Their name holds the beginning of their digest, so that a name never gets other content.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile

from tfrecords_schema import machine
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests.features_info import CARRIED
from tfrecords_schema.storage import copies, files, finding, paths

_SAVED_MODEL = "saved_model.pb"


def digest_of(path: str) -> str:
    """SHA-256 of a local file; of a directory, of the names and contents of all files in it.

    Raises:
      InputError: something in the directory is no file: a pipe would be read for ever.
      OSError: it cannot be read.
    """
    if not os.path.isdir(path):
        with files.open_binary(path) as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]  # it has readinto
    digest = hashlib.sha256()
    for name in finding.names_below(path):
        file = os.path.join(path, name)
        if not os.path.isfile(file):
            raise InputError(f"{path}: expected only files in it, found {file}; delete it")
        digest.update(f"{name}\0{digest_of(file)}\0".encode())
    return digest.hexdigest()


def name_of(path: str, digest: str) -> str:
    """What weights are called below the directory that carries them.

    Of a file the ending is kept: Keras tells by it how the file is built.
    """
    endings = (".weights.h5", ".h5")
    ending = "" if os.path.isdir(path) else next((e for e in endings if path.endswith(e)), ".h5")
    return f"{CARRIED}/{digest[:16]}{ending}"


def keep(path: str, directory: str) -> tuple[str, str]:
    """Moves a local file of weights to the name that it has below a directory which carries it: (name, digest)."""
    digest = digest_of(path)
    name = name_of(path, digest)
    target = os.path.join(directory, name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.rename(path, target)
    return name, digest


def put(source: str, directory: str, name: str) -> None:
    """Copies local weights into an output; what is there already, and the same, is left.

    Of remote files only the size is compared: they have come whole, or have not got their names.

    Raises:
      InputError: a link stands where a directory of ours is to be.
      OSError: one cannot be read or written.
    """
    below = finding.names_below(source) if os.path.isdir(source) else [""]
    for part in sorted(
        below, key=lambda part: part == _SAVED_MODEL
    ):  # last, so that a SavedModel has all when it has it
        local, target = (os.path.join(source, part), f"{name}/{part}") if part else (source, name)
        if paths.is_remote(directory):
            if files.size(paths.join(directory, target)) != os.path.getsize(local):
                files.upload(local, paths.join(directory, target))
            continue
        _require_no_links(directory, target)
        there = os.path.join(directory, target)
        if os.path.isfile(there) and digest_of(there) == digest_of(local):
            continue
        with files.replacing(directory, target) as handle, files.open_binary(local) as given:
            shutil.copyfileobj(given, handle)


def _require_no_links(directory: str, name: str) -> None:
    while name := os.path.dirname(name):
        path = os.path.join(directory, name)
        if os.path.islink(path):
            raise InputError(
                f"--output: expected {path} to be a directory, found a link, which is not followed; remove it, "
                "or give another --output"
            )


def bring(source: str, target: str, digest: str, where: str, ways: str) -> None:
    """Copies weights, wherever they are, to a local path, where they appear whole and checked, or not at all.

    What has this path already came so, and is left.

    Args:
      where: the flag or directory that they belong to; begins a message.
      ways: what to do where they are not there; ends it.

    Raises:
      InputError: there are none, or others.
      OSError: nothing can be written.
    """
    if os.path.exists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    making = tempfile.mkdtemp(prefix=".weights-", dir=os.path.dirname(target))
    made = os.path.join(making, os.path.basename(source))
    try:
        with contextlib.suppress(FileNotFoundError):  # which is told of by `require`
            if source.endswith(".h5"):
                _copy(source, made)
            elif paths.is_remote(source):
                copies.fetch(source, finding.names_below(source), made)
            else:
                shutil.copytree(source, made, copy_function=_copy)
        require(made, digest, source, where, ways)
        try:
            os.replace(made, target)
        except OSError:
            if not os.path.isdir(target):  # else another process was quicker
                raise
    finally:
        files.delete(making)


def _copy(source: str, target: str) -> None:
    with files.open_binary(source) as given, open(target, "wb") as handle:
        shutil.copyfileobj(given, handle, 8 << 20)


def require(path: str, digest: str, shown: str, where: str, ways: str) -> None:
    """Raises InputError unless these local weights, which are shown as `shown`, are there and have this digest."""
    expected = f"{where}: {shown}: expected the weights of digest {digest[:12]}…"
    try:
        found = digest_of(path) if os.path.exists(path) else None
    except OSError as error:
        raise InputError(f"{expected}, found something unreadable: {files.reason(error)}; {ways}") from None
    if found != digest:
        raise InputError(f"{expected}, found {'none' if found is None else f'others, {found[:12]}…'}; {ways}")


def local_copy(source: str, digest: str, where: str, ways: str) -> str:
    """The path of carried weights on this machine: of remote ones, a copy for all its processes, by their digest.

    Raises InputError as `bring` does; of local ones the content is not looked at.
    """
    if paths.is_local(source):
        if not os.path.exists(source):
            require(source, digest, source, where, ways)
        return source
    target = os.path.join(machine.private_directory("copies"), f"weights-{os.path.basename(source)}")
    try:
        bring(source, target, digest, where, ways)
    except OSError as error:
        told = files.reason(error)
        raise InputError(f"{where}: {source}: expected weights that can be copied here, found: {told}") from None
    return target
