"""The vocabulary, counted in the pipeline."""

from __future__ import annotations

from collections.abc import Iterable

import apache_beam as beam

from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import Vocabulary, count_words


class MakeVocabulary(beam.PTransform):
    """Items -> the text of vocabulary.txt, one element: the words of the train split."""

    def __init__(self, max_size: int, min_count: int):
        self.max_size, self.min_count = max_size, min_count

    def expand(self, items):
        return (
            items
            | "Train" >> beam.Filter(lambda item: item.split == "train")
            | "Words" >> beam.FlatMap(lambda item: count_words(item.captions).items())
            | "Count" >> beam.CombinePerKey(sum)
            | "Gather" >> beam.combiners.ToList()  # rare words too: UNK's count is the sum of theirs
            | "Rank" >> beam.Map(make_vocabulary, self.max_size, self.min_count)
        )


def make_vocabulary(counts: Iterable[tuple[str, int]], max_size: int, min_count: int) -> str:
    """The text of vocabulary.txt from (word, count) pairs."""
    vocabulary = Vocabulary.from_counts(dict(counts), max_size, min_count)
    if vocabulary.is_empty:
        raise InputError(f"--min_word_count {min_count}: no word of the train captions is seen that often")
    return vocabulary.dumps()
