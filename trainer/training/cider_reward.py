"""CIDEr-D of drawn captions, the reward of self-critical training (Rennie et al. 2017, arXiv 1612.00563)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tfrecords_schema.vocabulary import PAD

ORDERS = 4  # n-grams of one to four words
SIGMA = 6.0  # of the gaussian penalty for another length than the reference's, in words

# 2**64 / golden ratio, odd: successive products spread over all 64 bits (Knuth, TAOCP volume 3, 6.4).
_MIX = np.uint64(0x9E3779B97F4A7C15)


class _Order(NamedTuple):
    """What is known of the references' n-grams of one n. Codes and keys are fingerprints, see `_mix`."""

    codes: np.ndarray  # uint64 [G], rising: the n-grams of more than one image
    idf: np.ndarray  # float64 [G]: log(images / images that hold it)
    keys: np.ndarray  # uint64 [E], rising: (n-gram, image), as often as references of the image hold it
    reference: np.ndarray  # int32 [E]: which one
    times: np.ndarray  # int32 [E]: how often it does
    norm: np.ndarray  # float64 [R]: of a reference's tf-idf vector; 1 where that is 0


class CiderReward:
    """CIDEr-D (Vedantam et al. 2015, https://arxiv.org/abs/1411.5726) against the training captions, times 10.

    The numbers are pycocoevalcap's, document frequencies over `references` included: counts clipped to the reference's,
    and a length penalty on the number of bigrams. END is a word like any other, here as in its references: only then
    does a caption gain by ending where people end theirs (without it, self-critical captions stop at "with a").

    Everything is held in sorted arrays of 64-bit fingerprints, 3.3 kB for an image with five captions, and searched for
    a whole batch at once.
    """

    def __init__(self, references: Sequence[Sequence[Sequence[int]]]):
        """`references[image]` are the image's captions as ids, without START and PAD, with END."""
        captions = [caption for image in references for caption in image]
        self._captions = np.array([len(image) for image in references], np.int64)  # [images]
        self._length = np.array([len(caption) for caption in captions], np.int32)  # [R]
        self._log_images = np.log(max(1.0, len(references)))
        image_of = np.repeat(np.arange(len(references), dtype=np.uint64), self._captions)  # [R]
        # A PAD after each caption, so that n-grams across two of them are told apart from real ones.
        ids = np.fromiter(itertools.chain.from_iterable((*caption, PAD) for caption in captions), np.uint64)
        rows = np.repeat(np.arange(len(captions), dtype=np.int32), self._length + 1)
        self._orders = [self._order(*_counted(*occurrences), image_of) for occurrences in _ngrams(ids, rows)]

    def _order(self, codes, rows, counts, image_of) -> _Order:
        """Counted n-grams of all references -> the tables."""
        keys = _mix(codes, image_of[rows])
        by_key = np.argsort(keys)
        keys, rows, counts, codes = keys[by_key], rows[by_key], counts[by_key], codes[by_key]
        new = np.diff(keys, prepend=~keys[:1]) != 0  # one entry for each (n-gram, image)
        known, images = np.unique(codes[new], return_counts=True)
        shared = images > 1  # all others have the idf of n-grams never seen, as pycocoevalcap counts
        # A last code that none exceeds spares every search a test for the end.
        known = np.append(known[shared], ~np.uint64(0))
        idf = np.append(self._log_images - np.log(images[shared]), self._log_images)
        norm = _norm(rows, counts * _idf(known, idf, codes), len(image_of))
        return _Order(known, idf, keys, rows, counts, norm)

    def reward(self, images: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """How well captions fit their images: 0 to 10, where 10 is the one reference itself.

        Args:
          images: int `[N]`, places in `references`.
          ids: int32 `[N, T]`, without START; PAD after END, or no END where a caption never came to it.

        Returns:
          float32 `[N]`; 0 for images without references.
        """
        images, ids = np.asarray(images), np.asarray(ids)
        size, _ = ids.shape
        padded = np.pad(ids, ((0, 0), (0, 1)), constant_values=PAD)
        length = np.count_nonzero(ids != PAD, axis=1)  # [N]
        ngrams = _ngrams(padded.astype(np.uint64).ravel(), np.repeat(np.arange(size), padded.shape[1]))
        scores = np.zeros(size)
        for table, occurrences in zip(self._orders, ngrams, strict=True):
            codes, rows, counts = _counted(*occurrences)  # [M], one for each n-gram of each caption
            idf = _idf(table.codes, table.idf, codes)
            norm = _norm(rows, counts * idf, size)
            keys = _mix(codes, images[rows].astype(np.uint64))
            by_key = np.argsort(keys)  # rising keys pass through the cache in order: a search in a third of the time
            keys, rows, counts, idf = keys[by_key], rows[by_key], counts[by_key], idf[by_key]
            first, end = (np.searchsorted(table.keys, keys, side) for side in ("left", "right"))
            # [H]: a hit is an n-gram of a caption in one of its image's references.
            hits = end - first
            gram = np.repeat(np.arange(len(hits)), hits)
            entry = np.arange(len(gram)) + np.repeat(first - np.cumsum(hits) + hits, hits)
            row, reference, in_reference = rows[gram], table.reference[entry], table.times[entry]
            product = np.minimum(counts[gram], in_reference) * in_reference * idf[gram] ** 2
            cosine = product / (norm[row] * table.norm[reference])
            # Lengths are numbers of bigrams, as in pycocoevalcap.
            apart = np.maximum(length[row] - 1, 0) - np.maximum(self._length[reference] - 1, 0)
            scores += np.bincount(row, cosine * np.exp(-(apart**2) / (2 * SIGMA**2)), size)
        return (10 / ORDERS * scores / np.maximum(1, self._captions[images])).astype(np.float32)


def _mix(codes: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Fingerprint (modulo 2**64) of what `codes` stand for with one more element.

    Among all of COCO's n-grams two have the same one with a probability of about one in 100,000, and would then be
    counted as one; exact integers have no room for four words of a vocabulary of more than 65,535.
    """
    return (codes + last) * _MIX


def _ngrams(ids: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids of captions `[L]`, PAD after each, and whose each is -> (codes, rows) of all n-grams, for each n."""
    codes, real = np.zeros_like(ids), np.ones(len(ids), bool)
    for n in range(ORDERS):
        last = ids[n:]
        codes, real = _mix(codes[: len(last)], last), real[: len(last)] & (last != PAD)
        yield codes[real], rows[: len(last)][real]


def _counted(codes: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every (n-gram, caption) once, in no order: (codes, rows, how often it was there)."""
    _, first, counts = np.unique(_mix(codes, rows.astype(np.uint64)), return_index=True, return_counts=True)
    return codes[first], rows[first], counts.astype(np.int32)


def _idf(known: np.ndarray, idf: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Weights of n-grams, by a table of known ones; those that are not in it weigh as its last."""
    at = np.searchsorted(known, codes)
    return np.where(known[at] == codes, idf[at], idf[-1])


def _norm(rows: np.ndarray, vectors: np.ndarray, size: int) -> np.ndarray:
    """Length of each caption's vector, `[size]`. 1 for 0, where every product is 0 too."""
    norm = np.sqrt(np.bincount(rows, vectors**2, size))
    return np.where(norm == 0, 1, norm)
