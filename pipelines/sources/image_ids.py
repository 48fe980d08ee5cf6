"""Ids out of names: a name without its ending, but for names that only their endings tell apart."""

from __future__ import annotations

import array
import hashlib
import posixpath
from collections.abc import Iterable

import numpy as np


class NamedIds:
    """A name -> an id that no other of `names` has, in whatever order they come: `folder/cat` of `folder/cat.jpg`.

    Names that are the same without their endings keep them, `cat.jpg` beside `cat.png`; and so does one that would
    get the id of another of these, `cat.jpg.png`.
    """

    def __init__(self, names: Iterable[str]):
        hashes = array.array("Q")  # and not the names: there may be a hundred million
        for name in names:
            hashes.append(_hash(name))
            hashes.append(_hash(_stem(name)))
        pairs = np.array(hashes, np.uint64).reshape(-1, 2)
        pairs = pairs[np.unique(pairs[:, 0], return_index=True)[1]]  # each name once
        stems, times = np.unique(pairs[:, 1], return_counts=True)
        with_ending = pairs[pairs[:, 0] != pairs[:, 1]]
        self._shared = set(stems[times > 1].tolist())
        self._also_names = set(np.intersect1d(with_ending[:, 0], with_ending[:, 1]).tolist())

    def __call__(self, name: str) -> str:
        """The id of one of the names."""
        return name if self._keeps_ending(name) else _stem(name)

    def _keeps_ending(self, name: str) -> bool:
        stem = _stem(name)
        key = _hash(stem)
        return key in self._shared or (key in self._also_names and self._keeps_ending(stem))


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")
