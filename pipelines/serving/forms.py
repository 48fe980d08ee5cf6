"""From a request's body to the images in it: the file itself, several files of a form, or JSON. All of it in memory."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from pipelines.serving.admission import HeldBytes
from pipelines.serving.errors import GoneError, RequestError
from tfrecords_schema.text import shortened

JSON, FORM = "application/json", "multipart/form-data"
_FILE = "application/octet-stream"
_SHOWN = 3  # mistakes of a request that are told


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a request holds.

    Attributes:
      images: bytes of files, or URLs.
      options: those of its JSON; None for the other forms, which have theirs in the query.
    """

    images: list[bytes | str]
    options: Any = None


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 40  # files of a form never go to disk: the request as a whole is bounded


async def read(
    request: Request, schema: type[BaseModel], field: str, held: HeldBytes, most: int, upload_s: float
) -> Asked:
    """The images of a request.

    Args:
      schema, field: of its JSON, and which of its fields has the images.
      held: counts its bytes.
      most: bytes of it.
      upload_s: seconds that it may take to arrive.

    Raises:
      RequestError: 400, 408, 413, 415, 422 or 429.
      GoneError: the client went away.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind in (JSON, FORM, _FILE) or kind.startswith("image/")):
        raise RequestError(
            415, "media_type", f"expected Content-Type image/…, {FORM} or {JSON}, found {shortened(kind) or 'none'!r}"
        )
    if request.headers.get("content-length", "0").isdigit():
        _check_size(int(request.headers.get("content-length", "0")), most)
    body = _chunks(request, held, most)
    try:
        async with asyncio.timeout(upload_s):
            if kind == FORM:
                return Asked(await _files(request, body))
            whole = b"".join([chunk async for chunk in body])
    except TimeoutError:
        told = f"expected the whole request within {upload_s:g} seconds, found {held.size} bytes of it"
        raise RequestError(408, "upload_timeout", told) from None
    except ClientDisconnect:
        raise GoneError from None
    if kind == JSON:
        return await asyncio.to_thread(_parsed, whole, schema, field)
    return Asked([whole])


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise RequestError(413, "request_too_large", f"expected at most {most} bytes, found {size} or more")


async def _chunks(request: Request, held: HeldBytes, most: int) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream():
        _check_size(held.size + len(chunk), most)
        held.add(len(chunk))
        yield chunk


async def _files(request: Request, body: AsyncGenerator[bytes, None]) -> list[bytes | str]:
    try:
        form = await _InMemory(request.headers, body).parse()
    except (MultiPartException, KeyError, ValueError) as error:  # a boundary that is missing, headers that are none
        told = error.message if isinstance(error, MultiPartException) else "its boundary or headers are damaged"
        raise RequestError(400, "form", f"expected {FORM} with files, found something else: {told}") from None
    found: list[bytes | str] = []
    for name, part in form.multi_items():
        if isinstance(part, str):
            raise RequestError(
                422, "form", f"expected files, found the field {shortened(name)!r}; options go into the query"
            )
        found.append(await part.read())
        await part.close()
    return found


def _parsed(body: bytes, schema: type[BaseModel], field: str) -> Asked:
    try:
        made: Any = schema.model_validate_json(body)
    except ValidationError as error:
        raise RequestError(422, "json", told(error.errors())) from None
    options = made.options if hasattr(made, "options") else made.parameters
    images: list[bytes | str] = []
    for number, image in enumerate(getattr(made, field)):
        try:
            images.append(image.given())
        except ValueError as error:
            raise RequestError(422, "json", f"{field}.{number}.content: {error}") from None
    return Asked(images, options)


_HAVE_OPTIONS = (("query",), ("options",), ("parameters",))


def told(errors: Sequence[Any]) -> str:
    """What pydantic finds wrong with JSON or options, in a line, without what was given."""
    lines = [
        f"unknown option {shortened(one['loc'][-1])!r}"
        if one["type"] == "extra_forbidden" and one["loc"][:-1] in _HAVE_OPTIONS
        else f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
        for one in errors
    ]
    return shortened("; ".join(lines[:_SHOWN]), 600)
