"""What is counted, in Prometheus' text format: requests, errors by reason, the queue, batches, times."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, exposition

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
CONTENT_TYPE = exposition.CONTENT_TYPE_LATEST


class Metrics:
    """The figures of one service.

    Attributes:
      requests: by outcome: ok, gone, or the code of what was refused.
      images: by outcome: ok, or stage/error as in a table of rejects.
      batches: how many images shared a forward pass.
      request_s: from the first byte to the answer, of requests for captions.
      stage_s: by stage: upload, decode (with waiting for a thread), wait (for a pass), model.
    """

    def __init__(self, queue: Callable[[], int], held: Callable[[], int]):
        """`queue` and `held` tell how many images and bytes there are when they are asked."""
        own = CollectorRegistry()
        self._registry = own
        self.requests = Counter("captioning_requests", "Requests for captions", ["outcome"], registry=own)
        self.images = Counter("captioning_images", "Images of requests", ["outcome"], registry=own)
        powers = [1 << power for power in range(8)]
        self.batches = Histogram("captioning_batch_images", "Images in a forward pass", buckets=powers, registry=own)
        self.request_s = Histogram("captioning_request_seconds", "Time of a request", buckets=_SECONDS, registry=own)
        self.stage_s = Histogram(
            "captioning_stage_seconds", "Time of a part", ["stage"], buckets=_SECONDS, registry=own
        )
        waiting = Gauge("captioning_queue_images", "Images accepted and not yet captioned", registry=own)
        waiting.set_function(queue)
        Gauge("captioning_held_bytes", "Bytes of requests in memory", registry=own).set_function(held)

    def text(self) -> bytes:
        """All figures, in Prometheus' text format."""
        return exposition.generate_latest(self._registry)
