"""Word embeddings that others trained: GloVe's text format, and word2vec's and fastText's, into a decoder's matrix."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import itertools
import math
import zlib
from collections.abc import Iterator

import numpy as np

from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import files
from tfrecords_schema.text import shortened
from tfrecords_schema.vocabulary import PAD, SPECIAL_WORDS, Vocabulary

FLAG = "--pretrained_embeddings"
_LONGEST_LINE = 4 << 20  # bytes; that of a vector of 65,536 numbers is shorter
_LARGEST = 1e15  # whose squares float32 can still add up


@dataclasses.dataclass(frozen=True)
class Coverage:
    """How much of a vocabulary a file of embeddings knows; special words are in neither count of words."""

    words_found: int
    words: int
    token_share: float  # of all tokens of the training captions, those left out of the vocabulary included

    def __str__(self) -> str:
        share = math.floor(1000 * self.token_share) / 10  # 100.0 % is all of them
        return f"{self.words_found:,} of {self.words:,} words ({share} % of training tokens) have pretrained embeddings"


def read_embeddings(path: str, vocabulary: Vocabulary, embedding_dim: int, seed: int) -> tuple[np.ndarray, Coverage]:
    """A matrix float32 `[V, E]` with the file's vector for each word that it has.

    The file has `word v1 … vE` lines (GloVe: https://nlp.stanford.edu/projects/glove), after a line `count E` or none
    (word2vec, fastText); a name in `.gz` is decompressed. It is read as a stream, and only the vocabulary's words are
    looked at closely. The first of two lines for a word counts. Words that the file lacks get normal noise with the
    mean and standard deviation that each number has over the words found; PAD gets zeros.

    Raises:
      InputError: there is no such file, it is something else, its vectors have another length, or it has none of the
        words.
    """
    matrix = np.zeros((len(vocabulary), embedding_dim), np.float32)
    ids = {word.encode(): i for i, word in enumerate(vocabulary.words) if i != PAD}
    found = np.zeros(len(vocabulary), bool)
    with _told(path), _open(path) as file:
        for number, line in _vector_lines(path, file, embedding_dim):
            # Quick first: nearly all lines of a file of two million end here.
            if line[: line.find(b" ")] not in ids:
                continue
            # From the right: GloVe's 840B file has words with spaces in them ("at name@domain.com 0.1 …").
            word, *numbers = line.rstrip().rsplit(b" ", embedding_dim)
            i = ids.get(word)
            if i is None or found[i]:
                continue
            vector = _numbers(numbers)
            if vector is None or len(vector) != embedding_dim:
                raise InputError(
                    f"{FLAG}: {path}: line {number}: expected a word and {embedding_dim} numbers, found {_start(line)}"
                )
            matrix[i], found[i] = vector, True
    real = found[len(SPECIAL_WORDS) :]
    if not real.any():
        raise InputError(
            f"{FLAG}: {path}: expected embeddings of the vocabulary's words, found none of its {len(real):,}; "
            "give a file of the captions' language, with words in lower case"
        )
    noise = np.random.default_rng(seed).normal(size=matrix.shape)
    missing = ~found
    matrix[missing] = matrix[found].mean(0) + matrix[found].std(0) * noise[missing]
    matrix[PAD] = 0
    counts = np.array(vocabulary.counts, np.float64)
    known = counts[len(SPECIAL_WORDS) :][real].sum()
    return matrix, Coverage(int(real.sum()), len(real), float(known / max(1.0, counts.sum())))


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """What goes wrong in reading a file, told in one line."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{FLAG}: expected a file of word embeddings, found no {path}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{FLAG}: {path}: expected a whole gzip file, found one that is cut short or damaged: {error}"
        ) from None
    except OSError as error:
        raise InputError(f"{FLAG}: expected a file that can be read, found {path}: {error}") from None


@contextlib.contextmanager
def _open(path: str):
    """A binary file, decompressed where its name says so."""
    with files.open_binary(path) as file:
        if path.endswith(".gz"):
            with gzip.GzipFile(fileobj=file) as lines:
                yield lines
        else:
            yield file


def _vector_lines(path: str, file, embedding_dim: int) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) without word2vec's first line; the first vector is checked to be one of `embedding_dim`."""
    lines = enumerate(_bounded(path, file), start=1)
    number, line = next(lines, (1, b""))
    fields = line.rstrip().split(b" ")
    if len(fields) == 2 and all(field.isdigit() for field in fields):
        number, line = next(lines, (2, b""))
        fields = line.rstrip().split(b" ")
    # As many numbers as stand at the end: the word may have spaces, or be a number itself.
    size = next((i for i, field in enumerate(reversed(fields[1:])) if _numbers([field]) is None), len(fields) - 1)
    if size < 1:
        what = f"{_start(line)} in line {number}" if line else "an empty file or a directory"
        raise InputError(
            f"{FLAG}: {path}: expected text, in each line a word and its numbers with a space before each, found "
            f"{what}; unpack a .zip first, and write word2vec's binary files as text"
        )
    if size != embedding_dim:
        raise InputError(
            f"{FLAG}: {path}: expected vectors of {embedding_dim} numbers, found {size}; give --embedding_dim {size}"
        )
    yield number, line
    yield from lines


def _bounded(path: str, file) -> Iterator[bytes]:
    """The lines of a file, none of which may be as long as memory."""
    for number in itertools.count(1):
        line = file.readline(_LONGEST_LINE)
        if len(line) == _LONGEST_LINE:
            raise InputError(
                f"{FLAG}: {path}: line {number}: expected a word and its numbers, found {_LONGEST_LINE:,} bytes "
                f"without an end of line, {_start(line[:99])}"
            )
        if not line:
            return
        yield line


def _numbers(fields: list[bytes]) -> list[float] | None:
    """Numbers that can be those of an embedding, or None."""
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        return None
    return numbers if all(abs(number) <= _LARGEST for number in numbers) else None


def _start(line: bytes) -> str:
    """The first characters of a line, on one line."""
    return repr(shortened(line.rstrip().decode(errors="replace")))
