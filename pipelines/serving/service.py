"""One captioning service: loads the model, reads images in threads, and has them captioned."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pipelines.captions import exports, image_captioner
from pipelines.captions.captioner import Captioner
from pipelines.captions.captioning import Captioned
from pipelines.clock import StageClock
from pipelines.items import ImageError, Reject
from pipelines.serving import urls
from pipelines.serving.admission import Admission
from pipelines.serving.batching import Batcher
from pipelines.serving.errors import RequestError
from pipelines.serving.metrics import Metrics
from pipelines.settings.serve import ServeConfig
from pipelines.vision import devices, reading
from tfrecords_schema.errors import InputError

_MOST_HELD = 8  # requests of the largest size, of which all bodies together may have the bytes
Outcome = Captioned | Reject


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is known of a request's images, in their order, and seconds since they were given."""

    outcomes: list[Outcome]
    decode_s: float
    caption_s: float


class Service:
    """Captions images of many requests.

    Attributes:
      fetcher: of images by URL; None where there are to be none.
      captioner: None until `load` has been called.
      is_ready: warmed up, and not at its end.
    """

    def __init__(self, config: ServeConfig):
        self.config, limits = config, config.limits
        self.admission = Admission(limits.max_queue, _MOST_HELD * limits.max_request_mb * 1_000_000)
        self.metrics = Metrics(lambda: self.admission.images, lambda: self.admission.held)
        self.fetcher = urls.Fetcher(limits.max_request_mb * 1_000_000, limits.upload_s) if config.allow_urls else None
        self.captioner: image_captioner.ImageCaptioner | None = None
        self.is_ready = False
        self._batcher: Batcher | None = None
        self._pool = ThreadPoolExecutor(devices.cores(), thread_name_prefix="decode")
        self._decoding = threading.BoundedSemaphore(devices.cores())

    def load(self) -> None:
        """Loads the model and warms it up, so that no request waits for what only a first call takes.

        Raises:
          InputError: as `image_captioner.load`.
        """
        config, batching = self.config, self.config.batching
        captioner = image_captioner.load(
            config.model,
            batch_size=batching.max_batch,
            max_pixels=config.limits.max_pixels,
            capitalise=config.capitalise,
            **vars(config.network),
            **vars(config.search),
        )
        batcher = Batcher(captioner.captioning, batching.max_batch, batching.max_wait_ms / 1000, self.metrics)
        grey = np.full([captioner.captioning.features.extractor.size] * 2, 128, np.uint8)  # type: ignore[attr-defined]
        sizes = [1 << power for power in range(batching.max_batch.bit_length())]
        for size in {*sizes, batching.max_batch}:  # each has work of its own to do, once
            captioner.caption([image_captioner.as_item(grey, place) for place in range(size)])
        self.captioner, self._batcher, self.is_ready = captioner, batcher, True

    def close(self) -> None:
        """Takes no more, and ends its threads once they have nothing to do."""
        self.is_ready = False
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._batcher:
            self._batcher.close()

    def loaded(self) -> image_captioner.ImageCaptioner:
        """What captions. Raises RequestError 503 while it is not ready."""
        if self.captioner is None or not self.is_ready:
            raise RequestError(503, "not_ready", "the model is still being loaded, or the service is shutting down", 2)
        return self.captioner

    def asking(self, options: Any) -> Captioner:
        """What captions as a request's options say. Raises RequestError where they do not fit."""
        captioner = self.loaded()
        if options.attention and not exports.has_attention(captioner.info):
            raise RequestError(422, "options", "attention: expected a model with attention, found one without")
        try:
            return captioner.asking(**options.search())
        except InputError as error:
            raise RequestError(422, "options", str(error).removeprefix("--")) from None

    async def caption(self, images: Sequence[bytes | Callable[[], Any]], asked: Captioner) -> Answer:
        """What becomes of images.

        Args:
          images: bytes of files; or functions that bring them, coroutines of bytes or an ImageError.
          asked: as `asking` gives it.

        Raises:
          RequestError: the queue is full.
        """
        with self.admission.taking(len(images)):
            started, decoded = time.monotonic(), [time.monotonic()]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._caption(one, asked, decoded)) for one in images]
            outcomes = [task.result() for task in tasks]
        for name, count in collections.Counter(map(_name, outcomes)).items():
            self.metrics.images.labels(name).inc(count)
        return Answer(outcomes, max(decoded) - started, time.monotonic() - started)

    async def _caption(self, image: Any, asked: Captioner, decoded: list[float]) -> Outcome:
        if callable(image):
            image = await image()
        if isinstance(image, ImageError):
            return image.of("", "")
        pixels, item = await asyncio.get_running_loop().run_in_executor(self._pool, self._read, image)
        decoded.append(time.monotonic())
        if isinstance(pixels, ImageError):
            return pixels.of("", "")
        assert self._batcher
        return await asyncio.wrap_future(self._batcher.submit(item, pixels, asked))

    def _read(self, image: bytes) -> tuple[Any, Any]:
        """(pixels or an ImageError, the Item)."""
        started = time.monotonic()
        item, features = image_captioner.as_item(image), self.loaded().captioning.features
        pixels = reading.load(item, features.extractor.size, features.reading, self._decoding, StageClock())  # type: ignore[attr-defined]
        self.metrics.stage_s.labels("decode").observe(time.monotonic() - started)
        return pixels, dataclasses.replace(item, given=None)  # the file itself is held no longer


def _name(outcome: Outcome) -> str:
    return f"{outcome.stage}/{outcome.error}" if isinstance(outcome, Reject) else "ok"
