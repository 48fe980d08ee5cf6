"""What `pipelines.features` learns from, as its flags say: COCO's layout, or captions files and places of images."""

from __future__ import annotations

import dataclasses

from pipelines.settings.features import Data
from pipelines.sources import captions_files
from pipelines.sources.captioned_images import CaptionedImages, CaptionFile
from pipelines.sources.places import has_captions
from tfrecords_schema.errors import InputError, blaming, reading
from tfrecords_schema.shards import SPLITS
from tfrecords_schema.storage import files, finding, paths


def source_of(data: Data, rows_together: int) -> CaptionedImages:
    """The images and captions that flags ask for.

    Args:
      rows_together: as of `ImageSets`.

    Raises:
      InputError: the flags contradict each other, or do not say what to read.
    """
    found = _coco_files(data) if data.coco_dir else _captions_files(data)
    for file in found:
        if file.field is None:
            with blaming(file.flags[0]):
                captions_files.check(file.path)
    if data.val_fraction is not None:
        if data.val_captions or not 0 < data.val_fraction < 1:
            why = "--val_captions as well" if data.val_captions else data.val_fraction
            raise InputError(f"--val_fraction: expected a number between 0 and 1, and no --val_captions, found {why}")
        # It is taken from what would be for training; of COCO from what is there.
        held_out_of = ("train", "val") if data.coco_dir else ("train",)
        found = [dataclasses.replace(f, split=None) if f.split in held_out_of else f for f in found]
    return CaptionedImages(
        tuple(found),
        val_fraction=data.val_fraction,
        restval=None if data.restval == "leave_out" else data.restval,
        limit=data.limit,
        max_captions=data.max_captions,
        rows_together=rows_together,
    )


def _captions_files(data: Data) -> list[CaptionFile]:
    captions, images = data.by_split("captions"), data.by_split("images")
    found = []
    for split, given in captions.items():
        places = images[split] or images[None]
        flags = _flag(split, "captions"), _flag(split if images[split] else None, "images")
        for path in given:
            is_set = has_captions(path)
            field = (data.caption_field or "") if is_set else None
            found.append(CaptionFile(path, () if is_set else places, split, flags, field))
    for split in SPLITS:
        if images[split] and not captions[split]:
            raise InputError(f"{_flag(split, 'images')}: expected {_flag(split, 'captions')} beside it, found none")
    if not found:
        raise InputError("--coco_dir, --captions or --train_captions: expected one of them, found none")
    sets = [file for file in found if file.field is not None]
    if len(sets) == len(found) and any(images.values()):
        flag = next(_flag(split, "images") for split in images if images[split])
        raise InputError(f"{flag}: expected none, since {sets[0].path} contains its images; leave it out")
    if data.caption_field and not sets:
        told = "tar shards, Parquet with images or directories of samples in --captions"
        raise InputError(f"--caption_field: expected {told}, found none; leave it out")
    spelled = [paths.absolute(file.path) for file in found]
    if len(set(spelled)) < len(spelled):
        twice = next(path for path in spelled if spelled.count(path) > 1)
        raise InputError(
            f"--captions: expected each captions file once, found {twice} twice; its captions would count twice"
        )
    return found


def _flag(split: str | None, kind: str) -> str:
    return f"--{split}_{kind}" if split else f"--{kind}"


def _coco_files(data: Data) -> list[CaptionFile]:
    """COCO's own splits; or the images of one, where the other's are not there and a fraction is to be held out."""
    coco_dir, year = str(data.coco_dir), data.year
    for kind in ("captions", "images"):
        for split, given in data.by_split(kind).items():
            if given:
                flag = _flag(split, kind)
                raise InputError(f"{flag}: expected either --coco_dir, which has its splits, or {flag}, found both")
    if data.caption_field:
        raise InputError("--caption_field: expected it without --coco_dir, which has captions files; leave it out")
    if not finding.is_directory(coco_dir):
        raise InputError(f"--coco_dir: expected a directory, found none at {coco_dir}")
    with blaming("--coco_dir"), reading(coco_dir, "a directory in COCO's layout"):
        places = {split: _coco_images(coco_dir, f"{split}{year}") for split in ("train", "val")}
    there = {split: place for split, place in places.items() if place}
    names = " and ".join(f"{split}{year}" for split in places)
    flags = "--coco_dir and --year"
    if not there:
        raise InputError(f"{flags}: expected {names}, directories or zip files, found neither in {coco_dir}")
    if len(there) == 2 and data.val_fraction is not None:
        raise InputError(f"--val_fraction: expected a --coco_dir with one of {names}, found both in {coco_dir}")
    if len(there) == 1 and data.val_fraction is None:
        raise InputError(
            f"{flags}: expected {names}, directories or zip files, found only {next(iter(there))}{year} in "
            f"{coco_dir}; give --val_fraction 0.05 to hold out that share of its images for validation"
        )
    return [
        CaptionFile(
            paths.join(coco_dir, "annotations", f"captions_{split}{year}.json"), (place,), split, (flags, flags)
        )
        for split, place in there.items()
    ]


def _coco_images(coco_dir: str, name: str) -> str | None:
    """Where the images of a split are: unpacked, or in the zip file that COCO is distributed as; None for nowhere."""
    images = paths.join(coco_dir, name)
    archive = f"{images}.zip"
    if paths.is_local(images) and finding.is_directory(images):
        return images
    return archive if files.exists(archive) else images if finding.directory_exists(images) else None
