"""Amazon's S3 and servers like it, by the client that s3fs makes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO

from tfrecords_schema.storage import faults, stores

_CONNECT_S, _READ_S = 2.5, 30  # without an answer
_PART_BYTES = 32 << 20
_PARTS = 10_000  # at most
_UPLOADING = 4  # parts of a file at a time
_CONNECTIONS = 64


class S3:
    """Finds credentials as Amazon's clients do; without any it asks as anybody may, for a public bucket."""

    def __init__(self) -> None:
        import aiobotocore.session
        import s3fs

        session = aiobotocore.session.AioSession()
        # Two thirds of a listing's time would go into dates, of which nobody asks for any.
        session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=lambda text: text)
        key = stores.flag("s3_access_key_id")
        self._anonymous = not key and stores.run(session.get_credentials) is None
        once = {"retries": {"total_max_attempts": 1}}
        limits = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "max_pool_connections": _CONNECTIONS}
        own = {"region_name": stores.flag("s3_region_name"), "verify": _verify(stores.flag("s3_verify"))}
        self._files = s3fs.S3FileSystem(
            anon=self._anonymous,
            key=key,
            secret=stores.flag("s3_secret_access_key"),
            token=stores.flag("s3_session_token"),
            endpoint_url=stores.flag("s3_endpoint_url"),
            use_ssl=not stores.flag("s3_disable_ssl"),
            session=session,
            client_kwargs={name: value for name, value in own.items() if value is not None},
            config_kwargs={**once, **limits},
            skip_instance_cache=True,
            use_listings_cache=False,
        )
        stores.run(self._files.set_session)

    async def _ask(self, bucket: str, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        client = await self._files.set_session()
        try:
            return await faults.patiently(lambda: ask(client), f"s3://{bucket}")
        except Exception as error:
            if self._anonymous and not faults.is_absent(error):
                error.args = (f"{faults.told(error)} (no credentials were found)",)
            raise

    async def has_bucket(self, bucket: str) -> bool:
        """As Store's."""
        try:
            async with faults.acquaintance(f"s3://{bucket}"):
                await self._ask(bucket, lambda client: client.head_bucket(Bucket=bucket))
        except Exception as error:
            if faults.is_absent(error):
                return False
            if faults.status(error) is None or faults.is_passing(error):
                raise
        return True

    async def read(self, bucket, name, start, stop, most):
        """As Store's."""

        async def read(client: Any) -> bytes:
            answer = await client.get_object(Bucket=bucket, Key=name, **stores.byte_range(start, stop))
            async with answer["Body"] as stream:
                if most is not None and answer["ContentLength"] > most:
                    stream.close()
                    raise faults.TooLargeError(answer["ContentLength"], most)
                return await stream.read()

        return await self._ask(bucket, read)

    async def entry(self, bucket, name):
        """As Store's."""
        answer = await self._ask(bucket, lambda client: client.head_object(Bucket=bucket, Key=name))
        return name, answer["ContentLength"], _version(answer)

    async def page(self, bucket, prefix, flat, token):
        """As Store's."""
        asked = {"Bucket": bucket, "Prefix": prefix}
        asked |= {} if flat else {"Delimiter": "/"}
        asked |= {"ContinuationToken": token} if token else {}
        answer = await self._ask(bucket, lambda client: client.list_objects_v2(**asked))
        found = [(one["Key"], one["Size"], _version(one)) for one in answer.get("Contents", ())]
        prefixes = [one["Prefix"] for one in answer.get("CommonPrefixes", ())]
        return found, prefixes, answer.get("NextContinuationToken")

    async def write(self, bucket, name, local):
        """As Store's: small files in one request, large ones in parts, which are put together or thrown away."""
        place = {"Bucket": bucket, "Key": name}
        with open(local, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _PART_BYTES:
                content = file.read()
                await self._ask(bucket, lambda client: client.put_object(**place, Body=content))
                return
            upload = await self._ask(bucket, lambda client: client.create_multipart_upload(**place))
            place["UploadId"] = upload["UploadId"]
            try:
                parts = await self._parts(place, file, size)
                listed = {"Parts": parts}
                await self._ask(
                    bucket, lambda client: client.complete_multipart_upload(**place, MultipartUpload=listed)
                )
            except BaseException:
                await self._ask(bucket, lambda client: client.abort_multipart_upload(**place))
                raise

    async def _parts(self, place: dict[str, str], file: BinaryIO, size: int) -> list[dict[str, Any]]:
        length = max(_PART_BYTES, -(-size // _PARTS))
        free = asyncio.Semaphore(_UPLOADING)

        async def send(number: int) -> dict[str, Any]:
            async with free:
                content = os.pread(file.fileno(), length, (number - 1) * length)
                sent = await self._ask(
                    place["Bucket"], lambda client: client.upload_part(**place, PartNumber=number, Body=content)
                )
                return {"PartNumber": number, "ETag": sent["ETag"]}

        return await asyncio.gather(*(send(number) for number in range(1, -(-size // length) + 1)))

    async def delete(self, bucket, name):
        """As Store's."""
        await self._ask(bucket, lambda client: client.delete_object(Bucket=bucket, Key=name))


def _version(answer: dict[str, Any]) -> str:
    return answer["ETag"].strip('"')


def _verify(given: Any) -> Any:
    """Whether to check certificates, or the path of those to check them by; None where nothing is said."""
    return {"true": True, "false": False}.get(str(given).lower(), given)
