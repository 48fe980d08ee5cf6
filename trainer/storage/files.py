"""Whole files, wherever they are: remote ones by remote.py, others by `tf.io.gfile`. All errors are Python's own."""

from __future__ import annotations

import contextlib
import io
import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from tfrecords_schema.errors import InputError
from tfrecords_schema.quiet import import_tensorflow
from tfrecords_schema.text import one_line
from trainer.storage import remote


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    tf = import_tensorflow()
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(error.message) from None


def open_binary(path: str) -> BinaryIO:
    """A file's bytes, all in memory, to read and seek in. Raises OSError."""
    if remote.is_remote(path):
        return io.BytesIO(remote.read(path))
    with _os_errors(), import_tensorflow().io.gfile.GFile(path, "rb") as file:
        return io.BytesIO(file.read())


def exists(path: str) -> bool:
    """Whether there is a file or directory of this name. Raises OSError where that cannot be told."""
    if remote.is_remote(path):
        return remote.exists(path)
    with _os_errors():
        return import_tensorflow().io.gfile.exists(path)


def is_directory(path: str) -> bool:
    """Whether a path is a directory. Raises OSError where that cannot be told."""
    if remote.is_remote(path):
        return remote.is_directory(path)
    return import_tensorflow().io.gfile.isdir(path)


def read_text(path: str) -> str | None:
    """All of a UTF-8 file; None where there is none. Raises OSError or ValueError."""
    return open_binary(path).read().decode("utf-8-sig") if exists(path) else None


def open_input(flag: str, path: str) -> BinaryIO:
    """A file that the user gave, as `open_binary` opens it. Raises InputError, naming the flag."""
    try:
        if exists(path):
            return open_binary(path)
    except OSError as error:
        raise InputError(f"{flag}: {path}: expected a file that can be read, found: {one_line(error)}") from None
    raise InputError(f"{flag}: expected a file, found none at {path}")


def read_input(flag: str, path: str) -> str:
    """All of a UTF-8 file that the user gave. Raises InputError, naming the flag."""
    try:
        return open_input(flag, path).read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{flag}: {path}: expected a file of UTF-8 text, found: {one_line(error)}") from None


def parse_json(text: str, where: str) -> Any:
    """The value. Raises InputError, beginning with `where`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: expected JSON, found what is none: {one_line(error)}") from None


def reason(error: Exception) -> str:
    """The first line of an error's message; TensorFlow's errors carry it without their own decoration."""
    return (str(getattr(error, "message", error)).strip() or type(error).__name__).splitlines()[0]


def make_directory(path: str) -> None:
    """Makes it, and those above it, where they are not there; object stores have none. Raises OSError."""
    if remote.is_remote(path):
        return
    with _os_errors():
        import_tensorflow().io.gfile.makedirs(path)


def replace(directory: str, contents: Mapping[str, bytes]) -> None:
    """Writes files, by name, over those that are there: all new ones are whole before the first has its name.

    Remote ones are replaced one after the other, each in one step.

    Raises:
      OSError: one could not be written; then nothing is replaced (remote: neither it nor those after it).
    """
    if remote.is_remote(directory):
        for name, content in contents.items():
            remote.write(posixpath.join(directory, name), content)
        return
    gfile = import_tensorflow().io.gfile
    temporary = {name: posixpath.join(directory, f".{name}.tmp") for name in contents}
    try:
        with _os_errors():
            for name, content in contents.items():
                with gfile.GFile(temporary[name], "wb") as file:
                    file.write(content)
            for name, path in temporary.items():
                gfile.rename(path, posixpath.join(directory, name), overwrite=True)
    finally:
        delete(*temporary.values())


def delete(*paths: str) -> None:
    """Deletes files; those that are not there, or cannot be deleted, are passed over."""
    for path in paths:
        with contextlib.suppress(OSError), _os_errors():
            if remote.is_remote(path):
                remote.delete(path)
                continue
            import_tensorflow().io.gfile.remove(path)
