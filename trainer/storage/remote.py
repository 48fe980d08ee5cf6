"""Files in object stores and on HDFS, by pyarrow's clients. Names are URIs; errors are Python's own, of one line."""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import mmap
import os
import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

_RETRY = datetime.timedelta(seconds=60)  # Google's client would otherwise try for a quarter of an hour
_OBJECT_STORES = ("s3", "gcs", "abfs")  # an object has its name when its upload is complete, and not before
_CHUNK = 1 << 20
_READS = 10  # of an object that is replaced while it is read


def is_remote(path: str) -> bool:
    """Whether a path is the URI of a file that is not on this machine."""
    return "://" in path and not path.startswith("file://")


@functools.cache
def _client(scheme: str, authority: str) -> tuple[FileSystem, str]:
    """The client for a bucket or a name node, with what goes before a path there; it may be used by many threads."""
    from pyarrow import fs

    # Python's client knows the first name of the emulator's address, the C++ one the second.
    emulator = os.environ.get("STORAGE_EMULATOR_HOST") or os.environ.get("CLOUD_STORAGE_EMULATOR_ENDPOINT")
    if scheme in ("gs", "gcs"):
        if not emulator:
            return fs.GcsFileSystem(retry_time_limit=_RETRY), authority
        protocol, _, host = emulator.rpartition("://")
        place = {"scheme": protocol or "http", "endpoint_override": host.rstrip("/")}
        return fs.GcsFileSystem(anonymous=True, retry_time_limit=_RETRY, **place), authority
    return fs.FileSystem.from_uri(f"{scheme}://{authority}/")  # honours AWS_ENDPOINT_URL, and asks for the region


def _open(uri: str) -> tuple[FileSystem, str]:
    scheme, _, rest = uri.partition("://")
    authority, _, path = rest.partition("/")
    client, before = _client(scheme, authority)
    return client, f"{before.rstrip('/')}/{path}".rstrip("/")


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(_short(error)) from None
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's are of these
        raise OSError(_short(error)) from None


def _short(error: Exception) -> str:
    """What the server said, without what its client adds."""
    text = " ".join(str(error).split())
    google = re.search(r"google::cloud::Status\((\w+): .*?last message of (.*?)(?: error_info=|\. Detail|$)", text)
    if google:
        said = re.sub("Could not create a OAuth2 access token.* error message was: ", "no token: ", google[2])
        return f"{google[1]}: {said}"[:300]
    return re.sub(r" \(Request ID: .*?\)", "", text)[:300]


def size(uri: str) -> int | None:
    """Bytes of a file; None where there is none. Raises OSError."""
    with _os_errors():
        client, path = _open(uri)
        found = client.get_file_info(path)
    return found.size if found.is_file else None


def exists(uri: str) -> bool:
    """Whether there is a file of this name, or any that begins with it and a slash. Raises OSError."""
    from pyarrow import fs

    with _os_errors():
        client, path = _open(uri)
        return client.get_file_info(path).type != fs.FileType.NotFound


def is_directory(uri: str) -> bool:
    """Whether there are files below the name. Raises OSError."""
    from pyarrow import fs

    with _os_errors():
        client, path = _open(uri)
        return client.get_file_info(path).type == fs.FileType.Directory


def names(directory: str) -> list[str]:
    """Of all files below, relative to it; none where it does not exist. Raises OSError."""
    from pyarrow import fs

    with _os_errors():
        client, path = _open(directory)
        found = client.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
    return sorted(info.path[len(path) + 1 :] for info in found if info.is_file)


def open_stream(uri: str) -> BinaryIO:
    """A handle to read from the beginning on, as the bytes are: a name in .gz is not unpacked. Raises OSError."""
    with _os_errors():
        client, path = _open(uri)
        return io.BufferedReader(client.open_input_stream(path, compression=None), _CHUNK)


def read(uri: str) -> bytes:
    """All of a file, by one request for its bytes: of several, each might see another version. Raises OSError."""
    with _os_errors():
        client, path = _open(uri)
        for _ in range(_READS):
            with _open_whole(client, path) as handle:
                content = handle.readall()
            listed = client.get_file_info(path).size
            if listed == len(content):  # else it was replaced, and this may be a part of it
                return content
        found = f"{len(content)}: it is replaced again and again, or compressed in the store"
        raise OSError(f"{uri}: expected its {listed} bytes, found {found}")


def _open_whole(client: FileSystem, path: str) -> NativeFile:
    """A handle that asks once for all the bytes.

    That is a file with S3, whose streams ask for one range after the other, and a stream with Google, whose files ask
    when they are first touched, and hold Python's global lock until they are answered.
    """
    if client.type_name == "gcs":
        return client.open_input_stream(path, compression=None)
    return client.open_input_file(path)


def download(uri: str, path: str) -> None:
    """Copies a remote file to a local one. Raises OSError."""
    with _os_errors(), open_stream(uri) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)


def upload(path: str, uri: str) -> None:
    """Copies a local file to a remote one, which is replaced in one step. Raises OSError."""
    with open(path, "rb") as file:
        if not os.path.getsize(path):
            return write(uri, b"")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            write(uri, content)


def write(uri: str, content: bytes | mmap.mmap) -> None:
    """Writes a file, which is replaced in one step. Raises OSError.

    An object has its name when its upload is complete. Elsewhere another name is written to, and renamed.
    """
    with _os_errors():
        client, path = _open(uri)
        if client.type_name in _OBJECT_STORES:
            _put(client, path, content)
            return
        folder, _, name = path.rpartition("/")
        client.create_dir(folder, recursive=True)
        temporary = f"{folder}/.{name}.tmp"
        _put(client, temporary, content)
        client.move(temporary, path)


def _put(client: FileSystem, path: str, content: bytes | mmap.mmap) -> None:
    """Without `with`: it would complete the upload after an error too."""
    stream = client.open_output_stream(path, compression=None)
    stream.write(content)
    stream.close()


def delete(uri: str) -> None:
    """Deletes a file; one that is not there is passed over. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), _os_errors():
        client, path = _open(uri)
        client.delete_file(path)
