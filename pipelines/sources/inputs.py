"""From the flags that say what to learn from to a source: COCO's layout, or captions files and places of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pipelines.sources.items import CaptionedImages, CaptionFile
from pipelines.storage import files
from tfrecords_schema.errors import InputError
from tfrecords_schema.shards import SPLITS


def captioned_images(
    coco_dir: str | None,
    year: str,
    captions: dict[str | None, Sequence[str]],
    images: dict[str | None, Sequence[str]],
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
        if not files.is_directory(coco_dir):
            raise InputError(f"--coco_dir: expected a directory, found none at {coco_dir}")
        found = [_coco_split(coco_dir, split, year) for split in ("train", "val")]
        return CaptionedImages(tuple(found))
    found = []
    for split, paths in captions.items():
        places = tuple(images.get(split) or images.get(None) or ())
        where = _flag(split if images.get(split) else None, "images")
        found += [CaptionFile(path, places, split, (_flag(split, "captions"), where)) for path in paths]
    for split in SPLITS:
        if images.get(split) and not captions.get(split):
            flag = _flag(split, "images")
            raise InputError(f"{flag}: expected {_flag(split, 'captions')} beside it, found none")
    paths = [files.absolute(file.path) for file in found]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
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
    images = files.join(coco_dir, f"{split}{year}")
    archive = images + ".zip"
    unpacked = files.is_local(images) and files.is_directory(images)
    place = archive if not unpacked and files.exists(archive) else images
    path = files.join(coco_dir, "annotations", f"captions_{split}{year}.json")
    return CaptionFile(path, (place,), split, ("--coco_dir and --year", "--coco_dir and --year"))
