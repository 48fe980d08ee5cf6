"""Words that captions begin with, and words that they never say, as ids of a model's vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from pipelines.settings.search import Search
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import files
from tfrecords_schema.text import shortened
from tfrecords_schema.vocabulary import UNK, Vocabulary, tokenise


@dataclasses.dataclass(frozen=True)
class WordIds:
    """Ids of words.

    Attributes:
      prefix: that every caption begins with.
      forbidden: that none says.
    """

    prefix: tuple[int, ...] = ()
    forbidden: tuple[int, ...] = ()


NO_WORDS = WordIds()


def word_ids(search: Search, vocabulary: Vocabulary, tell: Callable[[str], Any] = lambda line: None) -> WordIds:
    """What a search asks for.

    Args:
      tell: is given a line of how many of the forbidden words the model could say.

    Raises:
      InputError: the file cannot be read, a line is not one word, or a word of the prefix is unknown to the model.
    """
    prefix: tuple[int, ...] = ()
    if search.prefix:
        try:
            prefix = prefix_ids(search.prefix, vocabulary, search.max_length)
        except ValueError as error:
            raise InputError(f"--prefix: {error}") from None
    unknown = vocabulary.further_unknown if search.forbid_unk else ()
    return WordIds(prefix, (*_forbidden(search.forbid_words, vocabulary, tell), *unknown))


def prefix_ids(text: str, vocabulary: Vocabulary, max_length: int) -> tuple[int, ...]:
    """The ids of a caption's first words.

    Args:
      max_length: of the caption, START and END counted.

    Raises:
      ValueError: it has no words, too many, or one that the model does not know.
    """
    words = _ids(text, vocabulary)
    if not words:
        raise ValueError(f"expected words, found none in {shortened(text)!r}")
    unknown = [word for word, number in words if number == UNK]
    if unknown:
        raise ValueError(f"expected words of the model's vocabulary, found {shortened(unknown[0])!r}, which it has not")
    if len(words) > max_length - 2:
        raise ValueError(
            f"expected at most {max_length - 2} words, as --max_length {max_length} counts START and END, found "
            f"{len(words)}"
        )
    return tuple(number for _, number in words)


def _ids(text: str, vocabulary: Vocabulary) -> list[tuple[str, int]]:
    words = tokenise(text)
    ids, length = vocabulary.encode(text, len(words) + 2)
    return list(zip(words, ids[1 : length - 1], strict=True))


def _forbidden(path: str | None, vocabulary: Vocabulary, tell: Callable[[str], Any]) -> tuple[int, ...]:
    if path is None:
        return ()
    found, lines = set(), 0
    for number, line in enumerate(files.read_input("--forbid_words", path).splitlines(), start=1):
        if not line.strip():
            continue
        pairs = _ids(line, vocabulary)
        if len(pairs) != 1:
            raise InputError(
                f"--forbid_words: {path}: line {number}: expected one word, found {shortened(line.strip())!r}"
            )
        lines += 1
        found.add(pairs[0][1])
    found.discard(UNK)
    tell(f"forbidden words: {len(found):,} of the {lines:,} in {path} are in the model's vocabulary")
    return tuple(sorted(found))
