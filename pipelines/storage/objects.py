"""Objects of gs:// and s3://, by the clients that Beam makes: a request reads one, whole or a range, another writes it.

Beam's own handles make a client for each file and ask for its size before they read it, read 16 MiB where a kilobyte is
wanted, complete an upload that an exception broke off, and cannot write an empty object to S3.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Protocol

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.value_provider import RuntimeValueProvider

_BUFFER_BYTES = 1 << 20
_DELETING = 16  # threads
_GOOGLE_TIMEOUT_S = 20  # of the first question; Amazon's client asks three times and waits for a minute each time


class _Store(Protocol):
    """A client; `errors` are what it raises."""

    errors: tuple[type[Exception], ...]

    def is_absent(self, error: Exception) -> bool:
        """Whether it says that there is no such object."""

    def has_bucket(self, bucket: str, _: str) -> bool:
        """Whether there is such a bucket, for all that one is allowed to know."""

    def read(self, bucket: str, name: str, start: int, stop: int | None) -> bytes:
        """Bytes `start` to `stop`, or to the end."""

    def size(self, bucket: str, name: str) -> int:
        """In bytes."""

    def write(self, bucket: str, name: str, content: BinaryIO) -> None:
        """Replaces the object when all of the content is there, and not before."""

    def delete(self, bucket: str, name: str) -> None:
        """Also one that is not there."""


class _S3:
    def __init__(self, options: Any):
        from apache_beam.io.aws.clients.s3 import boto3_client
        from botocore.exceptions import BotoCoreError, ClientError

        # Not documented, but it alone knows what each of Beam's --s3_… flags means to boto3.
        self._client = boto3_client.Client(options).client
        self.errors: tuple[type[Exception], ...] = BotoCoreError, ClientError
        self._answer = ClientError

    def has_bucket(self, bucket, _):
        try:
            self._client.head_bucket(Bucket=bucket)
        except self._answer as error:  # which may be that one must not know
            return not self.is_absent(error)
        return True

    def read(self, bucket, name, start, stop):
        ranged = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"} if start or stop is not None else {}
        return self._client.get_object(Bucket=bucket, Key=name, **ranged)["Body"].read()

    def size(self, bucket, name):
        return self._client.head_object(Bucket=bucket, Key=name)["ContentLength"]

    def write(self, bucket, name, content):
        self._client.upload_fileobj(content, bucket, name)

    def delete(self, bucket, name):
        self._client.delete_object(Bucket=bucket, Key=name)

    @staticmethod
    def is_absent(error: Exception) -> bool:
        answer = getattr(error, "response", None) or {}  # some errors of connections have one that is None
        return answer.get("Error", {}).get("Code") in ("404", "NoSuchKey")


class _Google:
    def __init__(self, options: Any):
        from apache_beam.io.gcp.gcsio import create_storage_client
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        emulated = "STORAGE_EMULATOR_HOST" in os.environ  # it takes anybody, and Beam would look for credentials first
        self._client = create_storage_client(options, use_credentials=not emulated)
        self.errors: tuple[type[Exception], ...] = GoogleAPIError, GoogleAuthError

    def has_bucket(self, bucket, _):
        from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError, NotFound, RetryError
        from google.auth.exceptions import InvalidOperation
        from google.cloud.storage.retry import DEFAULT_RETRY

        retry = DEFAULT_RETRY.with_timeout(_GOOGLE_TIMEOUT_S)
        try:  # a listing: a public bucket allows that to everybody, and to ask for the bucket itself to nobody
            list(self._client.list_blobs(bucket, max_results=1, timeout=_GOOGLE_TIMEOUT_S, retry=retry))
        except RetryError as error:
            raise GoogleAPIError(str(error.cause)) from error  # which says what was tried, not only for how long
        except InvalidOperation:  # "no" to somebody without credentials
            return True
        except GoogleAPICallError as error:
            return not isinstance(error, NotFound)
        return True

    def _blob(self, bucket: str, name: str) -> Any:
        return self._client.bucket(bucket).blob(name)

    def read(self, bucket, name, start, stop):
        ranged = {"start": start, "end": None if stop is None else stop - 1} if start or stop is not None else {}
        return self._blob(bucket, name).download_as_bytes(raw_download=True, **ranged)

    def size(self, bucket, name):
        blob = self._blob(bucket, name)
        blob.reload()
        return blob.size

    def write(self, bucket, name, content):
        self._blob(bucket, name).upload_from_file(content, content_type="application/octet-stream")

    def delete(self, bucket, name):
        self._blob(bucket, name).delete()

    @staticmethod
    def is_absent(error: Exception) -> bool:
        from google.api_core.exceptions import NotFound

        return isinstance(error, NotFound) and "bucket does not exist" not in str(error)


_KINDS: dict[str, Callable[[Any], _Store]] = {"s3": _S3, "gs": _Google}


class _Idle:
    """Clients that no thread is using now, all made with the same options of Beam."""

    def __init__(self):
        self._options, self._clients = None, collections.defaultdict(list)

    @contextlib.contextmanager
    def taken(self, scheme: str, options: Any) -> Iterator[_Store]:
        """One for one thread, which the next one may have after it: to make one costs more than to read an image."""
        if options is not self._options:
            self._options, self._clients = options, collections.defaultdict(list)
        clients = self._clients[scheme]
        try:
            client = clients.pop()
        except IndexError:
            client = _make(scheme, options or PipelineOptions())
        try:
            yield client
        finally:
            clients.append(client)


def _make(scheme: str, options: Any) -> _Store:
    try:
        return _KINDS[scheme](options)
    except ImportError as error:
        raise OSError(f"{error}; pip install 'apache-beam[{'aws' if scheme == 's3' else 'gcp'}]'") from None
    except Exception as error:  # for a wrong profile, endpoint or key file, each of a kind of its own
        raise OSError(f"{type(error).__name__}: {error}") from None


_idle = _Idle()


def is_object(path: str) -> bool:
    """Whether a path is the URI of an object."""
    return path.partition("://")[0] in _KINDS and "://" in path


def _call(method: str, path: str, *arguments: Any) -> Any:
    """A client's method. Raises OSError for all its errors, FileNotFoundError for an object that is not there."""
    scheme, _, rest = path.partition("://")
    bucket, _, name = rest.partition("/")
    # As FileSystems.get_filesystem gives them to Beam's own clients; it has no public way to ask for them.
    options = FileSystems._pipeline_options or RuntimeValueProvider.runtime_options
    with _idle.taken(scheme, options) as client:
        try:
            return getattr(client, method)(bucket, name, *arguments)
        except client.errors as error:
            if client.is_absent(error):
                raise FileNotFoundError(errno.ENOENT, "no such object", path) from None
            raise OSError(f"{path}: {' '.join(str(error).split())[:300]}") from None


def require_bucket(path: str) -> None:
    """Raises OSError where nobody answers for an object's bucket, or there is none. "Forbidden" is an answer too.

    To be asked before Beam lists anything, which it would try again for some ten minutes in silence.
    """
    if not _call("has_bucket", path):
        raise FileNotFoundError(f"{path}: no such bucket")


def read(path: str, start: int = 0, stop: int | None = None) -> bytes:
    """An object's bytes `start` to `stop`, or to its end. Raises OSError."""
    return _call("read", path, start, stop)


def size(path: str) -> int:
    """An object's bytes. Raises OSError."""
    return _call("size", path)


def write(path: str, content: BinaryIO) -> None:
    """Replaces an object when all of the content is there, and not before. Raises OSError."""
    _call("write", path, content)


def delete(paths: Iterable[str]) -> None:
    """Deletes objects; those that are not there are passed over. Raises OSError."""

    def delete_one(path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            _call("delete", path)

    with ThreadPoolExecutor(_DELETING) as pool:
        list(pool.map(delete_one, paths))


def open_binary(path: str) -> BinaryIO:
    """A handle to read and seek in, which fetches what is read, a megabyte at least. Raises OSError."""
    return io.BufferedReader(_Reader(path), _BUFFER_BYTES)


class _Reader(io.RawIOBase):
    def __init__(self, path: str):
        self._path, self._size, self._position = path, size(path), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer) -> int:
        stop = min(self._size, self._position + len(buffer))
        if self._position >= stop:
            return 0
        data = read(self._path, self._position, stop)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
