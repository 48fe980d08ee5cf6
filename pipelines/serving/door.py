"""What every request passes: its id, the token, what is counted and logged of it, and faults of ours told as such."""

from __future__ import annotations

import datetime
import hmac
import json
import sys
import time
import traceback
import uuid
from collections.abc import Iterable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from pipelines.serving.errors import GoneError, RequestError
from pipelines.serving.metrics import Metrics


class Door:
    """An ASGI application around another.

    Args:
      token: that requests must have; "" for none.
      free: routes whose requests need no token.
      counted: routes whose requests are for captions: these are counted, and logged.
    """

    def __init__(self, app: Any, metrics: Metrics, token: str, free: Iterable[str], counted: Iterable[str]):
        self._app, self._metrics, self._token = app, metrics, token
        self._free, self._counted = frozenset(free), frozenset(counted)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes one request on."""
        started, size = time.monotonic(), 0
        request_id = uuid.uuid4().hex[:16]

        async def counting() -> Any:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            return message

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"], headers["X-Content-Type-Options"] = request_id, "nosniff"
                scope.setdefault("outcome", "ok" if message["status"] < 400 else "no_image")
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, counting, sending)
        except RequestError as error:
            scope["outcome"] = error.code
            await _refusal(error)(scope, counting, sending)
        except GoneError:
            scope["outcome"] = "gone"
        except Exception as error:
            scope["outcome"] = "fault"
            _tell_fault(request_id, error)
        finally:
            if scope.get("path") in self._counted:
                self._tell(request_id, size, time.monotonic() - started, scope.get("outcome", "gone"))

    def _check(self, scope: Any) -> None:
        if not self._token or scope["path"] in self._free:
            return
        given = Headers(scope=scope).get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            raise RequestError(401, "token", "expected the header Authorization: Bearer TOKEN, found none or another")

    def _tell(self, request_id: str, size: int, seconds: float, outcome: str) -> None:
        self._metrics.requests.labels(outcome).inc()
        self._metrics.request_s.observe(seconds)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = {"at": now, "id": request_id, "bytes": size, "ms": round(1000 * seconds, 1), "outcome": outcome}
        print(json.dumps(line), file=sys.stderr, flush=True)


def _refusal(error: RequestError) -> JSONResponse:
    return JSONResponse({"error": {"code": error.code, "message": error.message}}, error.status, error.headers())


def _tell_fault(request_id: str, error: Exception) -> None:
    """Where in the code it was, and not its message, which may have something of the request in it."""
    frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-4:]]
    line = {"id": request_id, "fault": type(error).__name__, "where": frames}
    print(json.dumps(line), file=sys.stderr, flush=True)
