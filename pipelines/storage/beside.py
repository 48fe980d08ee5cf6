"""Several streams at the same time, where each waits for a store."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_END = object()


def beside(sources: Sequence[Callable[[], Iterator[_Item]]], threads: int) -> Iterator[_Item]:
    """What several sources give, in no order: threads go through them beside each other, no faster than it is taken."""
    ready: queue.Queue[Any] = queue.Queue(2 * threads)
    stopped = threading.Event()

    def go_through(source: Callable[[], Iterator[_Item]]) -> None:
        try:
            for one in source() if not stopped.is_set() else ():
                ready.put(one)
                if stopped.is_set():
                    break
        except BaseException as error:
            ready.put(error)
        ready.put(_END)

    running = len(sources)
    with ThreadPoolExecutor(threads, thread_name_prefix="walk") as pool:
        for source in sources:
            pool.submit(contextvars.copy_context().run, go_through, source)
        try:
            while running:
                one = ready.get()
                running -= one is _END
                if isinstance(one, BaseException):
                    raise one
                if one is not _END:
                    yield one
        finally:
            stopped.set()
            while running:
                running -= ready.get() is _END
