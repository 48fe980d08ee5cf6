"""One shard of training records: images and captions -> TFRecords."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.extraction import Reading, extract, some_can_be_used
from pipelines.extractors import Extractor
from pipelines.rejects import ImageError, Reject
from pipelines.sharding import Written
from pipelines.sources import Item
from tfrecords_schema import record, shards
from tfrecords_schema.vocabulary import Vocabulary, tokenise


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

    def load(self) -> Extractor:
        """The network, with its weights."""
        return self.extractor.load()

    def some_can_be_used(self, items: list[Item]) -> bool:
        """See ShardMaker."""
        return some_can_be_used(items, self.extractor, self.reading)

    def make(
        self, extractor: Extractor, items: list[Item], handle: BinaryIO, vocabulary: str
    ) -> Iterator[Written | Reject]:
        """Writes one record for each image; `vocabulary` is the text of vocabulary.txt."""
        words = Vocabulary.loads(vocabulary)
        for outcome in extract(map(_with_worded_captions, items), extractor, self.reading):
            if isinstance(outcome, Reject):
                yield outcome
                continue
            captions = 0
            for item, pixels, feature in zip(outcome.items, outcome.pixels, outcome.features, strict=True):
                encoded = [words.encode(caption, self.max_caption_length) for caption in item.captions]
                values = {
                    "image/id": item.id,
                    "image/uri": item.uri,
                    "image/height": pixels.height,
                    "image/width": pixels.width,
                    "image/feature": feature,
                    "caption/text": item.captions,
                    "caption/ids": [ids for ids, _ in encoded],
                    "caption/length": [length for _, length in encoded],
                }
                shards.write_framed(handle, record.encode(values, self.dtype))
                captions += len(encoded)
            yield Written(len(outcome.items), captions)


def _with_worded_captions(item: Item) -> Item:
    """Without captions that hold no word: they would teach the decoder to say nothing."""
    kept = tuple(caption for caption in item.captions if tokenise(caption))
    if not kept and not item.problem:
        shown = ", ".join(map(repr, item.captions[:3]))
        return dataclasses.replace(item, problem=ImageError("caption", "NoWords", f"no caption holds a word: {shown}"))
    return dataclasses.replace(item, captions=kept)
