"""The vocabulary, counted in the pipeline."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator

import apache_beam as beam

from pipelines.listing.table import Listing
from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import Vocabulary, count_words


class MakeVocabulary(beam.PTransform):
    """A listing -> the text of vocabulary.txt, one element: the words of the train split."""

    def __init__(self, listing: Listing, max_size: int, min_count: int):
        self.listing, self.max_size, self.min_count = listing, max_size, min_count

    def expand(self, pipeline):
        return (
            pipeline
            | "Files" >> beam.Create([number for split, number in self.listing.files() if split == "train"])
            | "SpreadFiles" >> beam.Reshuffle()
            | "Words" >> beam.FlatMap(words_of, self.listing)
            | "Count" >> beam.CombinePerKey(sum)
            | "GatherWords" >> beam.combiners.ToList()  # rare words too: UNK's count is the sum of theirs
            | "Rank" >> beam.Map(make_vocabulary, self.max_size, self.min_count)
        )


def words_of(number: int, listing: Listing) -> Iterator[tuple[str, int]]:
    """(word, how often it is said) of one of a listing's files."""
    counts: collections.Counter[str] = collections.Counter()
    for captions in listing.captions("train", number):
        counts.update(count_words(captions))
    yield from counts.items()


def make_vocabulary(counts: Iterable[tuple[str, int]], max_size: int, min_count: int) -> str:
    """The text of vocabulary.txt from (word, count) pairs."""
    vocabulary = Vocabulary.from_counts(dict(counts), max_size, min_count)
    if vocabulary.is_empty:
        raise InputError(f"--min_word_count {min_count}: no word of the train captions is seen that often")
    return vocabulary.dumps()
