"""Faults told apart: passing ones are tried again, here and nowhere else; the machine's are let through.

The clients' own retrying is switched off, so that the two are not multiplied.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter

READ_RETRIES = 9  # about a minute in all, of waiting
_FIRST_S, _LONGEST_S, _JITTER_S = 0.25, 16, 0.5
_ACQUAINTANCE_S = 1.5  # how long a store is asked again that has never answered: a misspelt address never will
_SILENCE_S = 4  # how long one that has never answered is listened to: it may be no store at all
_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT}
_STATUS = {408, 425, 429, 500, 502, 503, 504}
# By name: their modules need not be there. The clients' errors of connections, of bodies cut short, of time-outs.
_PASSING = {
    *("ClientConnectionError", "ClientPayloadError", "TimeoutError", "ConnectionError", "Timeout"),
    *("HTTPClientError", "ResponseParserError", "IncompleteReadError", "ChunkedEncodingError", "TransportError"),
    *("ServiceRequestError", "ServiceResponseError", "ChecksumError", "gaierror"),
}
_NEVER = {"SSLCertVerificationError", "ClientConnectorCertificateError", "SSLError", "InvalidURL"}
# Of these, those that say that nobody was there to be asked.
_ALONE = {
    "ClientConnectorError",
    "ConnectionTimeoutError",
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "gaierror",
    "UnansweredError",
}
_retries: contextvars.ContextVar[int | None] = contextvars.ContextVar("read_retries", default=None)
_answered: set[str] = set()
_silent: set[str] = set()
_Answer = TypeVar("_Answer")


class UnreachableError(OSError):
    """A passing fault that was there again each time: a rerun may succeed."""


class TooLargeError(OSError):
    """A file has more bytes than were to be read."""

    def __init__(self, size: int, most: int):
        super().__init__(f"{size} bytes, more than {most}")


@contextlib.contextmanager
def retries(count: int | None) -> Iterator[None]:
    """How often this thread tries again after a passing fault, within the block; None for the default."""
    token = _retries.set(count)
    try:
        yield
    finally:
        _retries.reset(token)


def _patience() -> int:
    """How often this thread tries again: what `retries` says, or the default."""
    count = _retries.get()
    return READ_RETRIES if count is None else count


class Awaited(Future[_Answer]):
    """What one thread, which makes this, asks a store for, and others wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._patience = _patience()

    def was_given_up(self) -> bool:
        """Waits; whether that thread ended in vain where this one, which tries more often, should ask by itself."""
        return isinstance(self.exception(), UnreachableError) and self._patience < _patience()


async def patiently(ask: Callable[[], Awaitable[_Answer]], place: str) -> _Answer:
    """The answer to a question, which is asked again, ever more slowly, after passing faults; raises the last one.

    A place that has never answered this process is asked for a moment only, and when that was in vain once a question:
    it is a wrong address more often than an outage, and somebody is waiting. Where `retries` says how often to ask,
    that is so only of a place that nobody can connect to.
    """
    count, most = _retries.get(), 1 + _patience()

    def is_enough(state: RetryCallState) -> bool:
        assert state.outcome
        if state.attempt_number >= most:
            return True
        if place in _answered or not (count is None or _is_alone(state.outcome.exception())):
            return False
        return place in _silent or (state.seconds_since_start or 0) >= _ACQUAINTANCE_S

    waiting = wait_exponential_jitter(_FIRST_S, _LONGEST_S, jitter=_JITTER_S)
    again = retry_if_exception(is_passing)
    try:
        async for attempt in AsyncRetrying(
            retry=again, stop=is_enough, wait=waiting, reraise=True, sleep=asyncio.sleep
        ):
            with attempt:
                answer = await ask()
    except Exception as error:
        if not is_passing(error):
            _answered.add(place)
        elif _is_alone(error):
            _silent.add(place)
        raise
    _answered.add(place)
    return answer


@contextlib.asynccontextmanager
async def acquaintance(place: str) -> AsyncIterator[None]:
    """A block in which a place is asked something small; ConnectionError if it never answered, and is silent now."""
    if place in _answered:
        yield
        return
    try:
        async with asyncio.timeout(_SILENCE_S) as limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise ConnectionError(f"no answer within {_SILENCE_S} seconds") from None
        raise


def is_passing(error: BaseException) -> bool:
    """Whether the same question may be answered a moment later."""
    if is_of_the_machine(error):
        return False
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return status(error) in _STATUS or bool(kinds & _PASSING and not kinds & _NEVER)


def _is_alone(error: BaseException | None) -> bool:
    return bool({kind.__name__ for kind in type(error).__mro__} & _ALONE)


def is_of_the_machine(error: BaseException) -> bool:
    """Whether this machine has come to an end of its memory, disk, descriptors or threads: nothing else is at fault."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or (isinstance(seen, OSError) and seen.errno in _MACHINE):
            return True
        if isinstance(seen, RuntimeError) and "can't start new thread" in str(seen):  # Python has no kind for it
            return True
        wrapped = getattr(seen, "kwargs", None)  # of botocore's errors
        seen = (wrapped.get("error") if isinstance(wrapped, dict) else None) or seen.__cause__ or seen.__context__
    return False


def is_absent(error: BaseException) -> bool:
    """Whether a store says that there is no such object (or no such bucket)."""
    return isinstance(error, FileNotFoundError) or status(error) == 404


def status(error: Any) -> int | None:
    """Of HTTP, where a client's error is an answer with one."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):  # botocore's; some of its errors have a response that is None
        return answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    found = next((getattr(error, name) for name in ("status", "status_code", "code") if hasattr(error, name)), None)
    return int(str(found)) if str(found).isdigit() else None


def told(error: Exception) -> str:
    """An error in one line: what the store said, without what its client adds."""
    text = " ".join(str(error).split())[:300]
    return text or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


def forget() -> None:
    """Has every place be asked as if for the first time."""
    _answered.clear()
    _silent.clear()
