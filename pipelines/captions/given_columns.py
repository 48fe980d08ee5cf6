"""Columns of the input table beside the images: what captions begin with, and captions that are to be scored."""

from __future__ import annotations

import dataclasses
from typing import Any

from pipelines.captions.word_ids import prefix_ids
from pipelines.items import ImageError, Item
from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class GivenColumns:
    """The places of columns in Items' metadata; None for those that nobody asked for.

    Attributes:
      prefix: of texts that an image's captions begin with.
      score: of captions whose log probabilities are wanted.
    """

    prefix: int | None = None
    score: int | None = None

    def prefixes(
        self, items: list[Item], vocabulary: Vocabulary, max_length: int
    ) -> list[tuple[int, ...] | ImageError]:
        """Ids of each image's prefix, or why the image cannot have captions that begin so."""
        return [self._prefix(item, vocabulary, max_length) for item in items]

    def _prefix(self, item: Item, vocabulary: Vocabulary, max_length: int) -> tuple[int, ...] | ImageError:
        text = None if self.prefix is None else item.metadata[self.prefix]
        if not text:
            return ()
        try:
            return prefix_ids(text, vocabulary, max_length)
        except ValueError as error:
            return ImageError("caption", "BadPrefix", f"{error}, in the prefix {text[:100]!r}")

    def scored(self, items: list[Item]) -> list[str | None]:
        """The captions to be scored."""
        return [None if self.score is None else item.metadata[self.score] for item in items]


NO_GIVEN_COLUMNS = GivenColumns()


def with_columns(carried: tuple[str, ...], *given: str | None) -> tuple[str, ...]:
    """--metadata_columns with further columns, each NAME or NAME=NEW, unless they are carried already."""
    names = {one.partition("=")[0] for one in carried}
    return (*carried, *dict.fromkeys(one for one in given if one and one.partition("=")[0] not in names))


def place_of(flag: str, given: str | None, carried: tuple[str, ...], further: list[tuple[str, Any]]) -> int | None:
    """The place of a column among those that are carried along.

    Args:
      further: (name, Arrow type) of those.

    Raises:
      InputError: its values are no texts.
    """
    import pyarrow.types as types

    if given is None:
        return None
    name = given.partition("=")[0]
    place = [one.partition("=")[0] for one in carried].index(name)
    kind = further[place][1]
    if not (types.is_string(kind) or types.is_large_string(kind)):
        raise InputError(f"--{flag}: expected texts in the column {name!r}, found type {kind}")
    return place
