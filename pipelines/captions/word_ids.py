"""Words that captions begin with, and words that they never say, as ids of a model's vocabulary."""

from __future__ import annotations

import dataclasses

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


def word_ids(search: Search, vocabulary: Vocabulary) -> WordIds:
    """What a search asks for. Says on the screen how many of the forbidden words the model could say.

    Raises:
      InputError: the file cannot be read, a line is not one word, or a word of the prefix is unknown to the model.
    """
    prefix = _ids(search.prefix, vocabulary)
    unknown = [word for word, number in prefix if number == UNK]
    if unknown:
        raise InputError(
            f"--prefix: expected words of the model's vocabulary, found {shortened(unknown[0])!r}, which it has not"
        )
    if search.prefix and not prefix:
        raise InputError(f"--prefix: expected words, found none in {shortened(search.prefix)!r}")
    room = search.max_length - 2
    if len(prefix) > room:
        raise InputError(
            f"--prefix: expected at most {room} words, as --max_length {search.max_length} counts START and END, found "
            f"{len(prefix)}"
        )
    return WordIds(tuple(number for _, number in prefix), _forbidden(search.forbid_words, vocabulary))


def _ids(text: str, vocabulary: Vocabulary) -> list[tuple[str, int]]:
    words = tokenise(text)
    ids, length = vocabulary.encode(text, len(words) + 2)
    return list(zip(words, ids[1 : length - 1], strict=True))


def _forbidden(path: str | None, vocabulary: Vocabulary) -> tuple[int, ...]:
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
    print(f"forbidden words: {len(found):,} of the {lines:,} in {path} are in the model's vocabulary", flush=True)
    return tuple(sorted(found))
