"""Requests of any kind stay in memory: no file is opened for what they hold."""

import asyncio
import sys
import threading

import pytest
from starlette.requests import Request

from pipelines.serving import forms, schemas
from pipelines.serving.admission import Admission
from pipelines.serving.errors import RequestError
from tests.support.serving import form

_opened: list[str] = []
_watched = threading.local()


def _hook(event, arguments):
    if event == "open" and getattr(_watched, "on", False):
        _opened.append(str(arguments[0]))


sys.addaudithook(_hook)  # sees every file that Python opens; it cannot be taken away


def read(body: bytes, kind: str, admission: Admission, piece: int = 65536) -> forms.Asked:
    pieces = [body[start : start + piece] for start in range(0, len(body), piece)]

    async def receive():
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode())]}
    own, _ = schemas.requests(schemas.options(10))

    async def ask() -> forms.Asked:
        with admission.bytes_of() as held:
            found = await forms.read(Request(scope, receive), own, "images", held, 20_000_000, 10)
            assert admission.held == len(body)
            return found

    _watched.on = True
    try:
        return asyncio.run(ask())
    finally:
        _watched.on = False


@pytest.mark.parametrize("piece", [1000, 65536, 20_000_000])
def test_large_files_of_a_form_never_go_to_disk(piece):
    files = {"a.jpg": bytes(range(256)) * 20_000, "b.jpg": b"\r\n--" * 1_000_000}
    body, kind = form(files)
    _opened.clear()
    admission = Admission(1, 20_000_000)
    found = read(body, kind, admission, piece)
    assert found.images == list(files.values()) and found.options is None
    assert _opened == [] and admission.held == 0


def test_bytes_of_all_requests_together_are_bounded():
    admission = Admission(1, 3_000_000)
    with admission.bytes_of() as other:
        other.add(2_500_000)
        with pytest.raises(RequestError) as found:
            read(b"x" * 1_000_000, "image/jpeg", admission)
        assert (found.value.status, found.value.code) == (429, "memory_full") and admission.held == 2_500_000
    assert read(b"x" * 1_000_000, "image/jpeg", admission).images == [b"x" * 1_000_000]
