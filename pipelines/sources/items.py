"""Where images and captions come from: each source counts and reads Items (id, uri, captions, split)."""

from __future__ import annotations

import array
import collections
import contextlib
import dataclasses
import hashlib
import itertools
import posixpath
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from pipelines.output.rejects import ImageError
from pipelines.sources import annotations
from pipelines.sources.listing import Listed
from pipelines.sources.locations import Locations, open_locations
from pipelines.storage import archives
from tfrecords_schema.errors import InputError
from tfrecords_schema.shards import is_validation


@dataclasses.dataclass(frozen=True)
class Item:
    """One listed image, or, where its captions do not stand together in a file, a part of it.

    Attributes:
      id: COCO's id in decimal, or the file's name without its ending.
      uri: where its bytes are.
      captions: as given; empty where a table of captions is what we are to make.
      problem: why the listing itself makes it unusable.
      split: what its shard's name begins with: train, val, test, or captions.
      version: changes when the file does; empty where no listing told.
      position: in the source, different for each part; puts the parts of one image in order.
      place: from 0 to 1, how far into its source it lies, where images that are stored together should be read
        together; None for one that may be read by itself, whose shard then follows from a hash of its id.
      metadata: values of its row in a table, to be carried along.
    """

    id: str
    uri: str
    captions: tuple[str, ...] = ()
    problem: ImageError | None = None
    split: str = "captions"
    version: str = ""
    position: int = 0
    place: float | None = None
    metadata: tuple[Any, ...] = ()


class Source(Protocol):
    """What lists images. Small and picklable: it travels in the pipeline graph, and a worker calls `read`."""

    def count(self) -> dict[str, int]:
        """How many images each split has, as `read` will give them; checks what can be checked. Raises InputError."""

    def read(self) -> Iterator[Item]:
        """The images in the source's order."""


@dataclasses.dataclass(frozen=True)
class CaptionFile:
    """A captions file of any kind that `annotations` reads, and where its images are.

    Attributes:
      split: of all its images; None where the file itself tells, or a fraction of them is to be held out.
      places: directories, zip files and patterns; none for a table of paths, which are taken from its own directory.
      flags: those that path and places came with, for messages.
    """

    path: str
    places: tuple[str, ...]
    split: str | None = None
    flags: tuple[str, str] = ("--captions", "--images")


@dataclasses.dataclass(frozen=True)
class CaptionedImages:
    """The images of captions files.

    Only these paths travel in the pipeline graph; a worker reads the files when the pipeline runs. `count` is for the
    launcher: it checks everything that can be checked without opening an image.

    Attributes:
      val_fraction: the share held out for validation of files without splits, by a hash of the id.
      restval: the split that Karpathy's `restval` images belong to; None leaves them out.
    """

    files: tuple[CaptionFile, ...]
    val_fraction: float | None = None
    restval: str | None = "train"

    def count(self) -> dict[str, int]:
        """How many images each split has. An image is an id in a place: parts of it count once.

        Raises:
          InputError: a file or a place is missing or of no known kind, has no images, or its splits do not fit.
        """
        archives.open_archive.cache_clear()  # what an earlier run in this process saw may have changed
        hashes: dict[str, array.array] = collections.defaultdict(lambda: array.array("Q"))
        for number, file in enumerate(self.files):
            usable, problem = 0, None
            for item in self._read(number, file):
                key = hashlib.blake2b(repr((item.id, item.uri)).encode("utf-8", "surrogatepass"), digest_size=8)
                hashes[item.split].append(int.from_bytes(key.digest(), "big"))
                usable += item.problem is None
                problem = problem or item.problem
            if not usable:
                found = f"none that could be used; the first: {problem.message}" if problem else "none"
                raise InputError(f"{file.flags[0]}: {file.path}: expected images with captions, found {found}")
        unique = {split: np.unique(np.frombuffer(hashes[split], np.uint64)) for split in sorted(hashes)}
        for one, other in itertools.combinations(unique, 2):
            if shared := len(np.intersect1d(unique[one], unique[other])):
                print(f"WARNING: {shared:,} images are in both {one} and {other}.", file=sys.stderr, flush=True)
        return {split: len(keys) for split, keys in unique.items()}

    def describe(self) -> dict[str, Any]:
        """As options that a later run is compared with."""
        return {
            "captions": [f"{file.split or 'own splits'}: {file.path}" for file in self.files],
            "images": [list(file.places) for file in self.files],
            "val_fraction": self.val_fraction,
            "restval": self.restval,
        }

    def read(self) -> Iterator[Item]:
        """Items in the order of the files."""
        for number, file in enumerate(self.files):
            yield from self._read(number, file)

    def _read(self, number: int, file: CaptionFile) -> Iterator[Item]:
        if not file.places and not annotations.is_table(file.path):
            raise InputError(f"{file.flags[1]}: expected where the images of {file.path} are, found nothing")
        with _blaming(file.flags[1]):
            locations = open_locations(file.places or (posixpath.dirname(file.path) or ".",))
        with _blaming(file.flags[0]):
            for position, listed in enumerate(annotations.read(file.path), start=number << 40):
                split = self._split(file, listed)
                if split is not None:
                    yield _locate(listed, locations, split, position, file.path)

    def _split(self, file: CaptionFile, listed: Listed) -> str | None:
        if listed.split is None:
            held_out = self.val_fraction is not None and is_validation(listed.id, self.val_fraction)
            return file.split or ("val" if held_out else "train")
        if file.split or self.val_fraction is not None:
            way = "give it with --captions" if file.split else "leave out --val_fraction"
            raise InputError(f"expected captions without splits, found {file.path} with its own; {way}")
        return self.restval if listed.split == "restval" else listed.split


@contextlib.contextmanager
def _blaming(flag: str) -> Iterator[None]:
    """Puts the flag in front of an InputError's message."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{flag}: {error}") from None


def _locate(listed: Listed, locations: Locations, split: str, position: int, where: str) -> Item:
    """The item of an entry; `where` is its captions file, which stands for the URI of one that names no image."""
    item = Item(listed.id, where, listed.captions, listed.problem, split, position=position)
    if not listed.names:
        return item
    found = locations.find(*listed.names)
    if isinstance(found, ImageError):
        return dataclasses.replace(item, uri=listed.names[0], problem=listed.problem or found)
    return dataclasses.replace(item, uri=found.uri, version=found.version)


def join_parts(items: list[Item]) -> list[Item]:
    """Items of a shard in any order -> one Item for each (id, uri), its parts' captions in the source's order."""
    parts: dict[tuple[str, str], list[Item]] = collections.defaultdict(list)
    for item in sorted(items, key=lambda i: i.position):
        parts[item.id, item.uri].append(item)
    return [_joined(group) for group in parts.values()]


def _joined(parts: list[Item]) -> Item:
    first = parts[0]
    if len(parts) == 1:
        return first
    problems = [part.problem for part in parts]
    return dataclasses.replace(
        first,
        captions=tuple(caption for part in parts for caption in part.captions),
        problem=None if None in problems else problems[0],  # one good part is enough
    )
