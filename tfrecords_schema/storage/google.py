"""Google's Cloud Storage, by gcsfs."""

from __future__ import annotations

import os
import urllib.request
from typing import Any

import gcsfs.core
import google.auth
import yarl
from google.auth.exceptions import DefaultCredentialsError

from tfrecords_schema.storage import faults, stores

_SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"
_METADATA_S = 1
_CONNECT_S, _READ_S = 2.5, 30  # without an answer


class _Files(gcsfs.core.GCSFileSystem):
    """With our patience in place of gcsfs' own, which would ask six times for each time of ours."""

    _ask_once = gcsfs.core.GCSFileSystem._request.__wrapped__

    async def _request(self, *arguments: Any, **named: Any) -> Any:
        return await faults.patiently(lambda: self._ask_once(*arguments, **named), "gs://")

    def _format_path(self, path: str, names: Any) -> yarl.URL:
        """As it is quoted: a URL of its own making would take back what it finds needless, of `&` for example."""
        return yarl.URL(super()._format_path(path, names), encoded=True)


class Google:
    """Finds credentials as Google's clients do; without any it asks as anybody may, for a public bucket."""

    def __init__(self) -> None:
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
        self._files = _Files(
            token=_credentials() or "anon",
            requests_timeout=limits,
            skip_instance_cache=True,
            use_listings_cache=False,
        )

    async def _call(self, method: str, path: str, *names: str, **parameters: Any) -> Any:
        return await self._files._call(method, path, *names, json_out=method == "GET", **parameters)

    async def has_bucket(self, bucket: str) -> bool:
        """As Store's: by a listing, which a public bucket allows to everybody, and to ask for itself to nobody."""
        try:
            async with faults.acquaintance("gs://"):
                await self._call("GET", "b/{}/o", bucket, maxResults=1)
        except Exception as error:
            if faults.is_absent(error):
                return False
            if faults.is_passing(error) or not (faults.status(error) or str(error).startswith("Forbidden")):
                raise
        return True

    async def read(self, bucket, name, start, stop, most):
        """As Store's; as it is stored, also where it is stored compressed."""

        async def read() -> bytes:
            headers = self._files._get_headers({"Accept-Encoding": "gzip", **stores.byte_range(start, stop)})
            session = await self._files._set_session()
            url = yarl.URL(self._files.url(f"{bucket}/{name}"), encoded=True)
            timeout = self._files.requests_timeout
            async with session.get(url, headers=headers, timeout=timeout, auto_decompress=False) as answer:
                if answer.status >= 400:
                    gcsfs.core.validate_response(answer.status, await answer.read(), name)
                return await stores.body(answer, most)

        return await faults.patiently(read, "gs://")

    async def entry(self, bucket, name):
        """As Store's."""
        return _entry(await self._call("GET", "b/{}/o/{}", bucket, name))

    async def page(self, bucket, prefix, flat, token):
        """As Store's."""
        asked = {"prefix": prefix or None, "delimiter": None if flat else "/", "pageToken": token, "maxResults": 1000}
        answer = await self._call("GET", "b/{}/o", bucket, **asked)
        found = [_entry(one) for one in answer.get("items", ())]
        return found, answer.get("prefixes", []), answer.get("nextPageToken")

    async def write(self, bucket, name, local):
        """As Store's."""
        await self._files._put_file(local, f"{bucket}/{name}", content_type="application/octet-stream")

    async def delete(self, bucket, name):
        """As Store's."""
        await self._call("DELETE", "b/{}/o/{}", bucket, name)


def _entry(item: dict[str, Any]) -> stores.Entry:
    return item["name"], int(item["size"]), item.get("md5Hash") or item.get("generation") or item["updated"]


def _credentials() -> Any:
    """Google's, or None: with an emulator, with Beam's --no_auth, and where there are none.

    A machine of Google's is looked for here, for a second: Google's own library does that for ten.
    """
    if os.environ.get("STORAGE_EMULATOR_HOST") or stores.flag("no_auth"):
        return None
    if not _on_google():
        os.environ["NO_GCE_CHECK"] = "true"
    try:
        return google.auth.default(scopes=[_SCOPE])[0]
    except DefaultCredentialsError:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):  # they were given, and are wrong
            raise
        return None


def _on_google() -> bool:
    if os.environ.get("NO_GCE_CHECK", "").lower() == "true":
        return False
    host = os.environ.get("GCE_METADATA_HOST") or "169.254.169.254"
    request = urllib.request.Request(f"http://{host}", headers={"Metadata-Flavor": "Google"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=_METADATA_S) as answer:
            return answer.headers.get("Metadata-Flavor") == "Google"
    except OSError:
        return False
