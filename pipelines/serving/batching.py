"""Micro-batches: images of several clients share forward passes, and those with the same options a search."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from concurrent.futures import Future
from typing import Any

from pipelines.captions.captioner import Captioner
from pipelines.captions.captioning import Captioned, Captioning, ExtractedFeatures
from pipelines.clock import StageClock
from pipelines.items import Item, Reject
from pipelines.serving.metrics import Metrics
from pipelines.vision import devices
from pipelines.vision.extraction import FeatureBatch, forward
from pipelines.vision.images import Pixels


@dataclasses.dataclass(frozen=True)
class _Waiting:
    """A decoded image.

    Attributes:
      captioner: asked as its request says.
      since: when it came, by time.monotonic.
      found: what will be known of it.
    """

    item: Item
    pixels: Pixels
    captioner: Captioner
    since: float
    found: Future[Captioned | Reject]


class Batcher:
    """Takes decoded images from any thread, and captions them in a few threads of its own, the lanes.

    Several passes run at a time, as in the batch job: while one searches, which is many small steps, another computes
    features. An image whose future was cancelled before its pass costs nothing.
    """

    def __init__(self, captioning: Captioning, max_batch: int, max_wait_s: float, metrics: Metrics):
        """`captioning` is loaded, and its features are those of images."""
        assert isinstance(captioning.features, ExtractedFeatures)
        self._captioning, self._features = captioning, captioning.features
        self._max_batch, self._max_wait_s, self._metrics = max_batch, max_wait_s, metrics
        self._queue: collections.deque[_Waiting] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        for number in range(devices.cpu_in_flight()):
            threading.Thread(target=self._lane, name=f"lane-{number}", daemon=True).start()

    def submit(self, item: Item, pixels: Pixels, captioner: Captioner) -> Future[Captioned | Reject]:
        """What becomes of an image: its captions, or why it has none."""
        found: Future[Captioned | Reject] = Future()
        with self._changed:
            self._queue.append(_Waiting(item, pixels, captioner, time.monotonic(), found))
            self._changed.notify_all()
        return found

    def close(self) -> None:
        """Ends the lanes once the queue is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _lane(self) -> None:
        while (batch := self._next()) is not None:
            if batch:
                self._caption(batch)

    def _next(self) -> list[_Waiting] | None:
        """Up to `max_batch` images once there are so many, or the first has waited long enough; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            while self._queue and len(self._queue) < self._max_batch and not self._closed:
                left = self._queue[0].since + self._max_wait_s - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            if not self._queue:  # another lane has taken them
                return None if self._closed else []
            taken = [self._queue.popleft() for _ in range(min(self._max_batch, len(self._queue)))]
        return [one for one in taken if one.found.set_running_or_notify_cancel()]

    def _caption(self, batch: list[_Waiting]) -> None:
        started = time.monotonic()
        self._metrics.batches.observe(len(batch))
        for one in batch:
            self._metrics.stage_s.labels("wait").observe(started - one.since)
        try:
            self._run(batch)
        except BaseException as error:  # of the pass; those whose search failed have been told already
            for one in batch:
                if not one.found.done():
                    one.found.set_exception(error)
        self._metrics.stage_s.labels("model").observe(time.monotonic() - started)

    def _run(self, batch: list[_Waiting]) -> None:
        # Under their places in this batch, since two requests may send the same image.
        numbered = [dataclasses.replace(one.item, position=row, uri=str(row)) for row, one in enumerate(batch)]
        pairs = list(zip(numbered, [one.pixels for one in batch], strict=True))
        features, rejects = forward(pairs, self._features.extractor, StageClock(), self._features.dtype)
        for reject in rejects:
            batch[int(reject.image_uri)].found.set_result(reject)
        for rows in _by_search([batch[item.position] for item in features.items]):
            part = FeatureBatch(
                [features.items[row] for row in rows], [features.sizes[row] for row in rows], features.features[rows]
            )
            asked = [batch[item.position] for item in part.items]
            try:
                made = self._captioning.captioned(part, asked[0].captioner)
            except Exception as error:
                for one in asked:
                    one.found.set_exception(error)
                continue
            for one, (_, outcome) in zip(asked, made, strict=True):
                one.found.set_result(outcome)


def _by_search(batch: list[_Waiting]) -> list[list[int]]:
    """The rows of images whose requests ask the same."""
    found: dict[Any, list[int]] = collections.defaultdict(list)
    for row, one in enumerate(batch):
        found[one.captioner.search, one.captioner.words].append(row)
    return list(found.values())
