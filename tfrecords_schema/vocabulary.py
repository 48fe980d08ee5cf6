"""Words and their ids: normalise, tokenise, encode, decode, load, save.

Ids are PAD=0, START=1, END=2, UNK=3, then words by falling count, ties in alphabetical order.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from tfrecords_schema.errors import InputError

PAD, START, END, UNK = range(4)
SPECIAL_WORDS = ("<pad>", "<start>", "<end>", "<unk>")

# im2txt's word_counts.txt: its own START and END, no line for PAD, UNK not listed.
_IM2TXT_SPECIAL_WORDS = ("<S>", "</S>", "<UNK>")
_COUNT = re.compile("[0-9]{1,18}")
_APOSTROPHES = "’ʼ＇"


class _WordCharacters(dict):
    """`str.translate` table: letters, marks and digits of any script stay, everything else becomes a space."""

    def __missing__(self, code_point: int) -> str:
        character = chr(code_point)
        if character in _APOSTROPHES:
            kept = "'"
        elif character in "'-" or unicodedata.category(character)[0] in "LMN":
            kept = character
        else:
            kept = " "
        self[code_point] = kept
        return kept


_WORD_CHARACTERS = _WordCharacters()


def normalise(text: str) -> str:
    """Lower-case words with single spaces between them.

    Unicode NFKC, lower case, punctuation dropped except an apostrophe or a hyphen inside a word ("o'clock", "t-shirt").
    A pure function, and idempotent: `normalise(normalise(x)) == normalise(x)`.
    """
    # Lower-casing can undo the normal form (a capital I with a dot above), and NFKC can make capitals (a squared A).
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower()).lower()
    text = re.sub("['-]{2,}", " ", text.translate(_WORD_CHARACTERS))
    return " ".join(filter(None, (word.strip("'-") for word in text.split())))


def tokenise(text: str) -> list[str]:
    """The words of `normalise(text)`."""
    return normalise(text).split()


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """An immutable two-way table of words and ids.

    Attributes:
      words: every word, the special ones first; a word's place is its id. UNK may be there again, behind the words: a
        model of others has places for more words than it learned.
      counts: how often each word was seen in the training captions; for UNK, how many tokens were left out.
    """

    words: tuple[str, ...]
    counts: tuple[int, ...]

    def __post_init__(self):
        if self.words[: len(SPECIAL_WORDS)] != SPECIAL_WORDS:
            raise InputError(f"vocabulary: expected the first words {SPECIAL_WORDS}, found {self.words[:4]}")
        if len(self.words) != len(self.counts):
            raise InputError(f"vocabulary: {len(self.words)} words but {len(self.counts)} counts")
        if len(set(self.words)) + len(self.further_unknown) != len(self.words):
            raise InputError("vocabulary: a word is listed twice")

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], max_size: int | None = None, min_count: int = 1) -> Vocabulary:
        """The words seen at least `min_count` times, at most `max_size` ids in all (the four special ones included)."""
        ranked = sorted(counts.items(), key=lambda word_count: (-word_count[1], word_count[0]))
        kept = [(word, count) for word, count in ranked if count >= min_count]
        if max_size is not None:
            kept = kept[: max(0, max_size - len(SPECIAL_WORDS))]
        left_out = sum(counts.values()) - sum(count for _, count in kept)
        return cls(
            words=(*SPECIAL_WORDS, *(word for word, _ in kept)),
            counts=(0, 0, 0, left_out, *(count for _, count in kept)),
        )

    def __len__(self) -> int:
        return len(self.words)

    @property
    def is_empty(self) -> bool:
        """Whether there are only the special words."""
        return len(self) == len(SPECIAL_WORDS)

    @property
    def further_unknown(self) -> tuple[int, ...]:
        """Ids other than UNK that mean the same."""
        return tuple(i for i, word in enumerate(self.words) if word == SPECIAL_WORDS[UNK] and i != UNK)

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """The id of each word."""
        return {word: i for i, word in reversed(list(enumerate(self.words)))}  # of UNK's the first

    def encode(self, text: str, max_length: int) -> tuple[list[int], int]:
        """START, the words' ids, END, then PAD up to `max_length`.

        Returns:
          (ids `[max_length]`, length): the length counts START and END. A caption of more than `max_length - 2` words
          keeps its first ones, and END.
        """
        words = tokenise(text)[: max_length - 2]
        ids = [START, *(self.ids.get(word, UNK) for word in words), END]
        return ids + [PAD] * (max_length - len(ids)), len(ids)

    def words_of(self, ids: Iterable[int]) -> list[str]:
        """The words up to END, without START and PAD."""
        return [self.words[i] for i in itertools.takewhile(lambda i: i != END, ids) if i not in (PAD, START)]

    def decode(self, ids: Iterable[int]) -> str:
        """The words up to END as one line; START and PAD are never shown."""
        return " ".join(self.words_of(ids))

    def dumps(self) -> str:
        """The text of `vocabulary.txt`: a `word count` pair a line; the line number, from 0, is the id."""
        return "".join(f"{word} {count}\n" for word, count in zip(self.words, self.counts, strict=True))

    @classmethod
    def loads(cls, text: str, where: str = "vocabulary.txt") -> Vocabulary:
        """Reads what `dumps` wrote, or im2txt's `word_counts.txt` (its words then get our ids).

        Raises:
          InputError: naming `where` and the line.
        """
        pairs = _pairs(text, where)
        if any(word in _IM2TXT_SPECIAL_WORDS for word, _ in pairs[:3]):
            words = [pair for pair in pairs if pair[0] not in _IM2TXT_SPECIAL_WORDS]
            pairs = [*((special, 0) for special in SPECIAL_WORDS), *words]
        return cls._of_pairs(pairs, where)

    @classmethod
    def of_im2txt(cls, text: str, rows: int, where: str) -> tuple[Vocabulary, list[int]]:
        """A model of im2txt's words, by our ids, and where it has them.

        im2txt's id of a word is its line in `word_counts.txt`, from 0; UNK, where it is not listed, comes behind the
        last; what a model has rows for behind that, it reads as UNK too.

        Args:
          rows: that the model has, one for each of its ids.

        Returns:
          (vocabulary, the model's row of each of our ids, -1 of PAD, which it has not).

        Raises:
          InputError: naming `where` and the line; or there are no START and END, or more words than rows.
        """
        pairs = _pairs(text, where)
        places = {word: row for row, (word, _) in enumerate(pairs)}
        start, end, unknown = (places.get(word, len(pairs)) for word in _IM2TXT_SPECIAL_WORDS)
        if len(pairs) in (start, end):
            missing = _IM2TXT_SPECIAL_WORDS[0 if start == len(pairs) else 1]
            raise InputError(f"{where}: expected word_counts.txt of im2txt, with a line for {missing}, found none")
        listed = max(len(pairs), unknown + 1)
        if listed > rows:
            raise InputError(
                f"{where}: expected at most {rows:,} words, <UNK> counted, as the model has, found {listed:,}; give "
                "the word_counts.txt that it was trained with"
            )
        special = (start, end, unknown)
        words = [row for row in range(len(pairs)) if row not in special]
        further = list(range(listed, rows))
        pairs = [*((special, 0) for special in SPECIAL_WORDS), *(pairs[row] for row in words)]
        pairs += [(SPECIAL_WORDS[UNK], 0)] * len(further)
        return cls._of_pairs(pairs, where), [-1, *special, *words, *further]

    @classmethod
    def _of_pairs(cls, pairs: Sequence[tuple[str, int]], where: str) -> Vocabulary:
        try:
            return cls(tuple(word for word, _ in pairs), tuple(count for _, count in pairs))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the words in order, in hexadecimal: equal exactly where ids mean the same words."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()


def _pairs(text: str, where: str) -> list[tuple[str, int]]:
    """(word, count) of each line. Raises InputError as `Vocabulary.loads`."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        word, _, count = line.rpartition(" ")
        if not word or not _COUNT.fullmatch(count):
            raise InputError(f"{where}: line {number}: expected `word count`, found {line[:100]!r}")
        found.append((_unquoted(word), int(count)))
    if not found:
        raise InputError(f"{where}: expected `word count` lines, found an empty file")
    return found


def _unquoted(word: str) -> str:
    """A word that im2txt's script, run by Python 3, has written as the bytes `b'word'`."""
    if not re.fullmatch("""b(['"]).+\\1""", word):
        return word
    with contextlib.suppress(SyntaxError, ValueError):
        return ast.literal_eval(word).decode("utf-8")
    return word


def count_words(captions: Sequence[str]) -> dict[str, int]:
    """How often each word stands in the captions."""
    counts: dict[str, int] = {}
    for caption in captions:
        for word in tokenise(caption):
            counts[word] = counts.get(word, 0) + 1
    return counts
