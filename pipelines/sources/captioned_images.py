"""What `pipelines.features` learns from, as a source of Items: COCO's layout, or captions files and places."""

from __future__ import annotations

import dataclasses
import posixpath
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.items import ImageError, Item
from pipelines.listing.catalogue import Catalogue
from pipelines.sources import captions_files
from pipelines.sources.locations import Locations, open_locations
from pipelines.storage import archives, files, finding, paths
from tfrecords_schema.captions_json import Listed
from tfrecords_schema.errors import InputError, blaming
from tfrecords_schema.shards import SPLITS, is_validation

_IN_SEVERAL_SPLITS = """
    SELECT one.split, other.split, count(*)
    FROM entries AS one JOIN entries AS other ON one.id = other.id AND one.uri = other.uri AND one.split < other.split
    GROUP BY ALL ORDER BY ALL
"""


@dataclasses.dataclass(frozen=True)
class CaptionFile:
    """A captions file of any kind that `captions_files` reads, and where its images are.

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

    Attributes:
      val_fraction: the share held out for validation of files without splits, by a hash of the id.
      restval: the split that Karpathy's `restval` images belong to; None leaves them out.
    """

    files: tuple[CaptionFile, ...]
    val_fraction: float | None = None
    restval: str | None = "train"

    def list(self, catalogue: Catalogue) -> None:
        """Lists all images. An image is an id in a place, whose captions may stand apart.

        Raises:
          InputError: a file or a place is missing or of no known kind, has no images, or its splits do not fit.
        """
        archives.open_archive.cache_clear()  # what an earlier run in this process saw may have changed
        catalogue.add(self.read())
        catalogue.join_parts()
        for one, other, shared in catalogue.run(_IN_SEVERAL_SPLITS):
            print(f"WARNING: {shared:,} images are in both {one} and {other}.", file=sys.stderr, flush=True)
        catalogue.set_duplicates_aside()

    def describe(self) -> dict[str, Any]:
        """As options that a later run is compared with."""
        return {
            "captions": [f"{file.split or 'own splits'}: {file.path}" for file in self.files],
            "images": [list(file.places) for file in self.files],
            "val_fraction": self.val_fraction,
            "restval": self.restval,
        }

    def metadata_fields(self) -> list[tuple[str, Any]]:
        """None: nothing but captions is carried along."""
        return []

    def read(self) -> Iterator[Item]:
        """Items in the order of the files."""
        for number, file in enumerate(self.files):
            usable, problem = False, None
            for item in self._read(number, file):
                usable, problem = usable or not item.problem, problem or item.problem
                yield item
            if not usable:
                found = f"none that could be used; the first: {problem.message}" if problem else "none"
                raise InputError(f"{file.flags[0]}: {file.path}: expected images with captions, found {found}")

    def _read(self, number: int, file: CaptionFile) -> Iterator[Item]:
        if not file.places and not captions_files.is_table(file.path):
            raise InputError(f"{file.flags[1]}: expected where the images of {file.path} are, found nothing")
        with blaming(file.flags[1]):
            locations = open_locations(file.places or (posixpath.dirname(file.path) or ".",))
        with blaming(file.flags[0]):
            for position, listed in enumerate(captions_files.read(file.path), start=number << 40):
                split = self._split(file, listed)
                if split is not None:
                    yield _locate(listed, locations, split, position, file.path)

    def _split(self, file: CaptionFile, listed: Listed) -> str | None:
        if listed.split is None:
            held_out = self.val_fraction is not None and is_validation(str(listed.id), self.val_fraction)
            return file.split or ("val" if held_out else "train")
        if file.split or self.val_fraction is not None:
            way = "give it with --captions" if file.split else "leave out --val_fraction"
            raise InputError(f"expected captions without splits, found {file.path} with its own; {way}")
        return self.restval if listed.split == "restval" else listed.split


def _locate(listed: Listed, locations: Locations, split: str, position: int, where: str) -> Item:
    """The item of an entry; `where` is its captions file, which stands for the URI of one that names no image."""
    problem = ImageError("list", *listed.problem) if listed.problem else None
    item = Item(str(listed.id), where, listed.captions, problem, split, position=position)
    if not listed.names:
        return item
    found = locations.find(*listed.names)
    if isinstance(found, ImageError):
        return dataclasses.replace(item, uri=listed.names[0], problem=problem or found)
    return dataclasses.replace(item, uri=found.uri, version=found.version)


def captioned_images(
    coco_dir: str | None,
    year: str,
    captions: Mapping[str | None, Sequence[str]],
    images: Mapping[str | None, Sequence[str]],
    val_fraction: float | None,
    restval: str,
) -> CaptionedImages:
    """The source of `pipelines.features`.

    Args:
      captions: captions files by split; those under None tell splits themselves, or have none.
      images: directories, zip files and patterns by split; those under None are for every split without its own.

    Raises:
      InputError: the flags contradict each other, or do not say what to read.
    """
    given = [
        _flag(split, kind) for kind, by in (("captions", captions), ("images", images)) for split in by if by[split]
    ]
    if coco_dir:
        if given or val_fraction is not None:
            other = given[0] if given else "--val_fraction"
            raise InputError(f"{other}: expected either --coco_dir, which has its splits, or {other}, found both")
        if not finding.is_directory(coco_dir):
            raise InputError(f"--coco_dir: expected a directory, found none at {coco_dir}")
        found = [_coco_split(coco_dir, split, year) for split in ("train", "val")]
        return CaptionedImages(tuple(found))
    found = []
    for split, given_files in captions.items():
        places = tuple(images.get(split) or images.get(None) or ())
        where = _flag(split if images.get(split) else None, "images")
        found += [CaptionFile(path, places, split, (_flag(split, "captions"), where)) for path in given_files]
    for split in SPLITS:
        if images.get(split) and not captions.get(split):
            flag = _flag(split, "images")
            raise InputError(f"{flag}: expected {_flag(split, 'captions')} beside it, found none")
    spelled = [paths.absolute(file.path) for file in found]
    if len(set(spelled)) < len(spelled):
        twice = next(path for path in spelled if spelled.count(path) > 1)
        raise InputError(
            f"--captions: expected each captions file once, found {twice} twice; its captions would count twice"
        )
    if not found:
        raise InputError("--coco_dir, --captions or --train_captions: expected one of them, found none")
    if val_fraction is not None and (captions.get("val") or not 0 < val_fraction < 1):
        why = "--val_captions as well" if captions.get("val") else val_fraction
        raise InputError(f"--val_fraction: expected a number between 0 and 1, and no --val_captions, found {why}")
    if val_fraction is not None:  # it is taken from what would be for training
        found = [dataclasses.replace(f, split=None if f.split == "train" else f.split) for f in found]
    return CaptionedImages(tuple(found), val_fraction, None if restval == "leave_out" else restval)


def _flag(split: str | None, kind: str) -> str:
    return f"--{split}_{kind}" if split else f"--{kind}"


def _coco_split(coco_dir: str, split: str, year: str) -> CaptionFile:
    """One split of COCO's layout, its images unpacked or in the zip file that COCO is distributed as."""
    images = paths.join(coco_dir, f"{split}{year}")
    archive = images + ".zip"
    unpacked = paths.is_local(images) and finding.is_directory(images)
    place = archive if not unpacked and files.exists(archive) else images
    path = paths.join(coco_dir, "annotations", f"captions_{split}{year}.json")
    return CaptionFile(path, (place,), split, ("--coco_dir and --year", "--coco_dir and --year"))
