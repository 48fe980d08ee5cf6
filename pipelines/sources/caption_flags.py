"""What the flags of `pipelines.features` say to learn from: COCO's layout, or captions files and places of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.sources.captioned_images import CaptionedImages, CaptionFile
from tfrecords_schema.errors import InputError, blaming, reading
from tfrecords_schema.shards import SPLITS
from tfrecords_schema.storage import files, finding, paths


def captioned_images(
    coco_dir: str | None,
    year: str,
    captions: Mapping[str | None, Sequence[str]],
    images: Mapping[str | None, Sequence[str]],
    val_fraction: float | None,
    restval: str,
    limit: int | None = None,
    max_captions: int | None = None,
) -> CaptionedImages:
    """The source of `pipelines.features`.

    Args:
      captions: captions files by split; those under None tell splits themselves, or have none.
      images: directories, zip files and patterns by split; those under None are for every split without its own.
      limit, max_captions: as those of CaptionedImages.

    Raises:
      InputError: the flags contradict each other, or do not say what to read.
    """
    given = [
        _flag(split, kind) for kind, by in (("captions", captions), ("images", images)) for split in by if by[split]
    ]
    wanted: dict[str, Any] = {"limit": limit, "max_captions": max_captions}
    if coco_dir:
        if given:
            raise InputError(f"{given[0]}: expected either --coco_dir, which has its splits, or {given[0]}, found both")
        return CaptionedImages(_coco_files(coco_dir, year, val_fraction), val_fraction, **wanted)
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
    _check_fraction(val_fraction, "val_captions" if captions.get("val") else None)
    if val_fraction is not None:  # it is taken from what would be for training
        found = [dataclasses.replace(f, split=None if f.split == "train" else f.split) for f in found]
    return CaptionedImages(tuple(found), val_fraction, None if restval == "leave_out" else restval, **wanted)


def _check_fraction(val_fraction: float | None, other: str | None = None) -> None:
    if val_fraction is not None and (other or not 0 < val_fraction < 1):
        why = f"--{other} as well" if other else val_fraction
        raise InputError(f"--val_fraction: expected a number between 0 and 1, and no --val_captions, found {why}")


def _flag(split: str | None, kind: str) -> str:
    return f"--{split}_{kind}" if split else f"--{kind}"


def _coco_files(coco_dir: str, year: str, val_fraction: float | None) -> tuple[CaptionFile, ...]:
    """COCO's own splits; or the images of one, where the other's are not there and a fraction is to be held out."""
    if not finding.is_directory(coco_dir):
        raise InputError(f"--coco_dir: expected a directory, found none at {coco_dir}")
    with blaming("--coco_dir"), reading(coco_dir, "a directory in COCO's layout"):
        places = {split: _coco_images(coco_dir, f"{split}{year}") for split in ("train", "val")}
    splits = [split for split, place in places.items() if place]
    names = " and ".join(f"{split}{year}" for split in places)
    if not splits:
        raise InputError(
            f"--coco_dir and --year: expected {names}, directories or zip files, found neither in {coco_dir}"
        )
    if len(splits) == 2 and val_fraction is not None:
        raise InputError(f"--val_fraction: expected a --coco_dir with one of {names}, found both in {coco_dir}")
    if len(splits) == 1 and val_fraction is None:
        raise InputError(
            f"--coco_dir and --year: expected {names}, directories or zip files, found only {splits[0]}{year} in "
            f"{coco_dir}; give --val_fraction 0.05 to hold out that share of its images for validation"
        )
    _check_fraction(val_fraction)
    flags = ("--coco_dir and --year", "--coco_dir and --year")
    return tuple(
        CaptionFile(
            paths.join(coco_dir, "annotations", f"captions_{split}{year}.json"),
            (place,),
            None if val_fraction else split,
            flags,
        )
        for split in splits
        if (place := places[split])
    )


def _coco_images(coco_dir: str, name: str) -> str | None:
    """Where the images of a split are: unpacked, or in the zip file that COCO is distributed as; None for nowhere."""
    images = paths.join(coco_dir, name)
    archive = f"{images}.zip"
    if paths.is_local(images) and finding.is_directory(images):
        return images
    return archive if files.exists(archive) else images if finding.directory_exists(images) else None
