"""One shard of training records: images and captions -> TFRecords."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipelines.items import ImageError, Item, Reject, printable
from pipelines.output.sharding import ShardJob, Written
from pipelines.vision.extraction import extract
from pipelines.vision.extractors import Extractor
from pipelines.vision.reading import Reading
from tfrecords_schema import record, shards
from tfrecords_schema.storage import files
from tfrecords_schema.vocabulary import Vocabulary, tokenise

_BATCH = 100  # records between two signs of progress, where features are kept


@dataclasses.dataclass(frozen=True)
class RecordMaker:
    """A `sharding.ShardMaker` of records.

    Attributes:
      extractor: not yet loaded.
      dtype: that features are stored in.
      max_caption_length: START and END counted.
    """

    extractor: Extractor
    reading: Reading
    dtype: str
    max_caption_length: int
    suffix: str = ".tfrecord"
    keeps_features: bool = True
    joins_parts: bool = True

    def load(self) -> Extractor:
        """The network, with its weights."""
        return self.extractor.load()

    def follows_from(self, context: dict[str, Any]) -> str:
        """The words and their order, and not how often each was seen, which one more caption changes."""
        return Vocabulary.loads(context["vocabulary"]).digest

    def make(self, job: ShardJob) -> Iterator[Written | Reject]:
        """Writes one record for each image; `job.context` has the text of vocabulary.txt."""
        words = Vocabulary.loads(job.context["vocabulary"])
        items = [_with_worded_captions(item) for item in job.items]
        if job.earlier and not self._has_features(job.earlier, job, items):
            job.earlier = None
        for outcome in self._earlier(job.earlier, job, items) if job.earlier else self._extracted(job, items):
            if isinstance(outcome, Reject):
                yield outcome
                continue
            captions = cut = 0
            with job.clock.stage("write"):
                for item, (height, width), feature in outcome:
                    encoded = [words.encode(caption, self.max_caption_length) for caption in item.captions]
                    lengths = [length for _, length in encoded]
                    values = {
                        "image/id": item.id,
                        "image/uri": item.uri,
                        "image/height": height,
                        "image/width": width,
                        "image/feature": feature,
                        "caption/text": item.captions,
                        "caption/ids": [ids for ids, _ in encoded],
                        "caption/length": lengths,
                    }
                    shards.write_framed(job.handle, record.encode(values, self.dtype))
                    captions += len(encoded)
                    cut += sum(map(self._is_cut, item.captions, lengths))
            yield Written(len(outcome), captions, cut)

    def _is_cut(self, caption: str, length: int) -> bool:
        """Whether a caption, whose ids are `length`, has more words than there was room for."""
        return length == self.max_caption_length and len(tokenise(caption)) > length - 2

    def _extracted(self, job: ShardJob, items: list[Item]) -> Iterator[list[_Featured] | Reject]:
        for outcome in extract(items, self.extractor, job.load, self.reading, job.clock, self.dtype):
            if isinstance(outcome, Reject):
                yield outcome
            else:
                yield list(zip(outcome.items, outcome.sizes, outcome.features, strict=True))

    def _earlier(self, path: str, job: ShardJob, items: list[Item]) -> Iterator[list[_Featured] | Reject]:
        """The features of an earlier shard, which has its records in the order of the items."""
        rejects = _by_image(job.earlier_rejects)
        with files.open_binary(path) as handle:
            stored = (record.decode(data, self.extractor.shape, self.dtype) for data in shards.read_framed(handle))
            batch: list[_Featured] = []
            for item in items:
                reject = item.problem.of(item.id, item.uri) if item.problem else rejects.get(_shown(item))
                if reject:
                    yield reject
                    continue
                values = next(found for found in stored if found["image/id"] == item.id)
                size = values["image/height"], values["image/width"]
                batch.append((item, size, values["image/feature"]))
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
            yield batch

    def _has_features(self, path: str, job: ShardJob, items: list[Item]) -> bool:
        """Whether the earlier shard can be read to its end, and lacks no image that is wanted now."""
        try:
            with files.open_binary(path) as handle:
                stored = {record.image_id(data) for data in shards.read_framed(handle)}
        except (OSError, ValueError):
            return False
        rejects = _by_image(job.earlier_rejects)
        return all(item.problem or item.id in stored or _shown(item) in rejects for item in items)


_Featured = tuple[Item, tuple[int, int], np.ndarray]  # with (height, width), and the feature


def _shown(item: Item) -> tuple[str, str]:
    return printable(item.id), printable(item.uri)


def _by_image(rejects: list[Reject]) -> dict[tuple[str, str], Reject]:
    """What could not be read, decoded or extracted; other rejects follow from the items themselves."""
    return {(r.image_id, r.image_uri): r for r in rejects if r.stage in ("read", "decode", "extract")}


def _with_worded_captions(item: Item) -> Item:
    """Without captions that hold no word: they would teach the decoder to say nothing."""
    kept = tuple(caption for caption in item.captions if tokenise(caption))
    if not kept and not item.problem:
        shown = ", ".join(map(repr, item.captions[:3]))
        return dataclasses.replace(item, problem=ImageError("caption", "NoWords", f"no caption holds a word: {shown}"))
    return dataclasses.replace(item, captions=kept)
