"""A maker of shards without a network: a line of text for each image."""

from __future__ import annotations

from pipelines.items import ImageError, Reject
from pipelines.output.merging import in_order
from pipelines.output.sharding import Written
from tfrecords_schema.storage import files


class Lines:
    """Writes each image's id and captions.

    Attributes:
      bad: by the id of images that cannot be made, the stage that says so.
      made: the ids of those that were computed.
    """

    suffix, keeps_rows = ".txt", True

    def __init__(self, bad: dict[str, str] | None = None):
        self.bad, self.made = bad or {}, []

    def load(self):
        raise AssertionError("nothing to load")

    def follows_from(self, context):
        return context

    def some_can_be_read(self, items):
        return any(item.id not in self.bad for item in items)

    def make(self, job):
        earlier = files.read_bytes(job.earlier).decode().splitlines() if job.earlier else []
        for outcome in in_order(job.items, job.kept, self._computed(job), 3):
            if isinstance(outcome, Reject):
                yield outcome
                continue
            for item, line in outcome:
                job.handle.write(f"{line or earlier[job.kept[item.position]]}\n".encode())
            yield Written([item.position for item, _ in outcome], 0)

    def _computed(self, job):
        for item in job.items:
            if item.position not in job.kept:
                self.made.append(item.id)
                if item.id in self.bad:
                    yield ImageError(self.bad[item.id], "Bad", "bad").of(item.id, item.uri)
                else:
                    yield [(item, f"{item.id} {' '.join(item.captions)}")]
