"""Azure's storage, HDFS, and whatever else fsspec has been told of, by what all its filesystems have in common."""

from __future__ import annotations

import asyncio
import functools
import posixpath
import uuid
from typing import Any

from tfrecords_schema.storage import faults, paths, stores

_MARKS = ("etag", "ETag", "mtime", "last_modified", "modified", "created")  # what changes with the content


class Other:
    """A filesystem of fsspec's; the bucket is what stands before the path: a container, a name node."""

    def __init__(self, scheme: str, bucket: str) -> None:
        import fsspec

        self._root = f"{scheme}://{bucket}"
        self._has_containers = scheme in paths.AZURE
        self._renames = scheme in paths.HDFS  # elsewhere a name appears with all of its content
        made = {"skip_instance_cache": True, "use_listings_cache": False}
        self._files, _ = fsspec.core.url_to_fs(f"{self._root}/", **made, **_flags(scheme, bucket))

    async def _ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        """In a thread of its own, since some of these filesystems know no coroutines."""
        ask = functools.partial(getattr(self._files, method), *arguments, **named)
        return await faults.patiently(lambda: asyncio.to_thread(ask), self._root)

    def _path(self, name: str) -> str:
        return self._files._strip_protocol(f"{self._root}/{name}")

    def _entry(self, name: str, info: dict[str, Any]) -> stores.Entry:
        return name, info["size"], str(next((info[mark] for mark in _MARKS if info.get(mark)), ""))

    async def has_bucket(self, bucket: str) -> bool:
        """As Store's. But for Azure's storage, what stands first may be a directory, which is made as needed."""
        return await self._ask("exists", self._path("")) or not self._has_containers

    async def read(self, bucket, name, start, stop, most):
        """As Store's."""
        if most is not None:
            size = (await self.entry(bucket, name))[1]
            if min(size, size if stop is None else stop) - start > most:
                raise faults.TooLargeError(size, most)
        return await self._ask("cat_file", self._path(name), **({"start": start, "end": stop} if start or stop else {}))

    async def entry(self, bucket, name):
        """As Store's."""
        info = await self._ask("info", self._path(name))
        if info["type"] != "file":
            raise FileNotFoundError(name)
        return self._entry(name, info)

    async def page(self, bucket, prefix, flat, token):
        """As Store's, in one page; a prefix that ends inside a name is looked for in its directory."""
        directory = prefix.rpartition("/")[0]
        found = await self._ask("find", self._path(directory), detail=True)
        root = len(self._path(directory).rstrip("/")) + 1
        named = ((posixpath.join(directory, path[root:]), info) for path, info in found.items() if path[root:])
        return [self._entry(name, info) for name, info in named if name.startswith(prefix)], [], None

    async def write(self, bucket, name, local):
        """As Store's."""
        target = self._path(name)
        if not self._renames:
            await self._ask("put_file", local, target)
            return
        folder, _, last = target.rpartition("/")
        temporary = f"{folder}/.{last}.{uuid.uuid4().hex}.tmp"
        await self._ask("makedirs", folder, exist_ok=True)
        await self._ask("put_file", local, temporary)
        await self._ask("mv", temporary, target)

    async def delete(self, bucket, name):
        """As Store's; also a directory, which some of these have."""
        if self._has_containers:
            await self._ask("rm_file", self._path(name))
        else:
            await self._ask("rm", self._path(name), recursive=True)


def _flags(scheme: str, bucket: str) -> dict[str, Any]:
    """Beam's flags in fsspec's words; by themselves the clients take what the environment says."""
    if scheme in paths.AZURE:
        names = {"azure_connection_string": "connection_string"}
    else:
        names = {"hdfs_user": "user"} | ({} if bucket else {"hdfs_host": "host", "hdfs_port": "port"})
        names = names if scheme in paths.HDFS else {}
    return {ours: value for beams, ours in names.items() if (value := stores.flag(beams))}
