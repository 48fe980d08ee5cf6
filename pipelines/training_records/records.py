"""One shard of training records: images and captions -> TFRecords."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipelines.items import ImageError, Item, Reject
from pipelines.output.merging import EarlierShardError, in_order
from pipelines.output.sharding import ShardJob, Written
from pipelines.vision.extraction import extract
from pipelines.vision.extractors import Extractor
from pipelines.vision.reading import Reading, some_can_be_read
from tfrecords_schema import record, shards
from tfrecords_schema.quiet import import_tensorflow
from tfrecords_schema.storage import files
from tfrecords_schema.vocabulary import Vocabulary, tokenise

_BATCH = 100  # records between two signs of progress


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
    keeps_rows: bool = False

    def load(self) -> Extractor:
        """The network, with its weights."""
        return self.extractor.load()

    def follows_from(self, context: dict[str, Any]) -> str:
        """The words and their order, and not how often each was seen, which one more caption changes."""
        return Vocabulary.loads(context["vocabulary"]).digest

    def some_can_be_read(self, items: list[Item]) -> bool:
        """Whether any of these items, whose reading failed before, can be read by now."""
        return some_can_be_read(items)

    def make(self, job: ShardJob) -> Iterator[Written | Reject]:
        """Writes one record for each image; `job.context` has the text of vocabulary.txt."""
        import_tensorflow()  # quietly, before `record` does: where all is kept, no network has done it
        words = Vocabulary.loads(job.context["vocabulary"])
        items = []
        for item in map(_with_worded_captions, job.items):
            if item.problem:
                yield item.problem.of(item.id, item.uri)
            else:
                items.append(item)
        has_image = self.reading.keep is not None
        earlier = _Stored(job.earlier or "", self.extractor.shape, self.dtype, has_image)
        fresh = [item for item in items if item.position not in job.kept]
        for outcome in in_order(items, job.kept, self._extracted(job, fresh), _BATCH):
            if isinstance(outcome, Reject):
                yield outcome
                continue
            captions = cut = 0
            with job.clock.stage("write"):
                for item, computed in outcome:
                    (height, width), feature, jpeg = computed or earlier[job.kept[item.position]]
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
                    if has_image:
                        values[record.IMAGE] = jpeg
                    shards.write_framed(job.handle, record.encode(values, self.dtype, has_image))
                    captions += len(encoded)
                    cut += sum(map(self._is_cut, item.captions, lengths))
            yield Written([item.position for item, _ in outcome], captions, cut)

    def _is_cut(self, caption: str, length: int) -> bool:
        """Whether a caption, whose ids are `length`, has more words than there was room for."""
        return length == self.max_caption_length and len(tokenise(caption)) > length - 2

    def _extracted(self, job: ShardJob, items: list[Item]) -> Iterator[list[tuple[Item, _Featured]] | Reject]:
        for outcome in extract(items, self.extractor, job.load, self.reading, job.clock, self.dtype):
            if isinstance(outcome, Reject):
                yield outcome
            else:
                computed = zip(outcome.sizes, outcome.features, outcome.jpegs, strict=True)
                yield list(zip(outcome.items, computed, strict=True))


_Featured = tuple[tuple[int, int], np.ndarray, bytes | None]  # (height, width), the feature, the image as it is kept


class _Stored:
    """The records of an earlier shard by their place in it; read once where they are asked for in this order."""

    def __init__(self, path: str, shape: tuple[int, ...], dtype: str, has_image: bool):
        self._path, self._shape, self._dtype, self._has_image = path, shape, dtype, has_image
        self._records, self._next = self._read(), 0

    def _read(self) -> Iterator[bytes]:
        with files.open_binary(self._path) as handle:
            yield from shards.read_framed(handle)

    def __getitem__(self, row: int) -> _Featured:
        if row < self._next:
            self._records, self._next = self._read(), 0
        try:
            data = next(itertools.islice(self._records, row - self._next, None))
            values = record.decode(data, self._shape, self._dtype, has_image=self._has_image)
        except (OSError, StopIteration, KeyError, ValueError) as error:
            raise EarlierShardError(f"{self._path}: {error}") from None
        self._next = row + 1
        return (values["image/height"], values["image/width"]), values["image/feature"], values.get(record.IMAGE)


def _with_worded_captions(item: Item) -> Item:
    """Without captions that hold no word: they would teach the decoder to say nothing."""
    kept = tuple(caption for caption in item.captions if tokenise(caption))
    if not kept and not item.problem:
        shown = ", ".join(map(repr, item.captions[:3]))
        return dataclasses.replace(item, problem=ImageError("caption", "NoWords", f"no caption holds a word: {shown}"))
    return dataclasses.replace(item, captions=kept)
