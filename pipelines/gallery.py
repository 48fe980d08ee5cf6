"""A caption table -> a web page of its images with their captions, or one picture (`python -m pipelines.gallery`)."""

from __future__ import annotations

import functools
import os
import posixpath
from collections.abc import Callable, Sequence
from typing import Any

from pipelines import cli
from pipelines.settings.gallery import PAGE_IMAGES, SHEET_IMAGES, SORTS, GalleryConfig
from tfrecords_schema import command
from tfrecords_schema.errors import InputError

ABOUT = {"prog": "python -m pipelines.gallery", "description": "Show captioned images with their captions."}


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-gallery`."""
    with cli.command():
        run(command.parse(GalleryConfig, argv, **ABOUT))


def run(config: GalleryConfig) -> None:
    """Writes the page, the picture or both.

    Raises:
      InputError: there is no complete caption table, no reference fits, or a file cannot be written.
    """
    captions, targets, references = config.captions, config.targets(), config.references
    n = config.n or (PAGE_IMAGES if config.output else SHEET_IMAGES)
    from tfrecords_schema.storage.filesystems import require_filesystems

    require_filesystems(**command.places(config))
    for flag, path in targets.items():
        _check_file(flag, path)
    from tqdm import tqdm

    from pipelines.items import ImageError, printable
    from pipelines.pictures import choice, thumbnails
    from pipelines.pictures.contact_sheet import ContactSheet
    from pipelines.pictures.gallery_page import Page
    from tfrecords_schema.storage import paths

    said = choice.find_references(captions, references) if references else {}
    cider = choice.score(captions, said)
    if config.sort == "worst" and not cider:
        raise InputError("--sort worst: expected references of two images or more, to weigh words by; found one")
    chosen, total = choice.choose(captions, n, config.sort, cider)
    rows = choice.fetch(captions, chosen)
    if not rows:
        raise InputError(f"--captions: {captions} holds no captioned image")
    sheet = ContactSheet(len(rows), config.columns) if config.contact_sheet else None
    unreadable = 0
    with Page() as page:
        read = thumbnails.read_all([row["image_uri"] for row in rows])
        progress = tqdm(read, total=len(rows), unit="image", disable=None, leave=False)
        for number, row, image in zip(chosen, rows, progress, strict=True):
            unreadable += isinstance(image, ImageError)
            if config.output:
                page.add(row, image, said.get(number, ()), cider.get(number))
            if sheet:
                sheet.add(row, image)
        name = printable(posixpath.basename(paths.absolute(captions)))
        counts = {"Images": f"{len(rows)} of {total}", "Order": SORTS[config.sort]}
        save: dict[str, Callable[[Any], None]] = {
            "output": lambda handle: page.save(handle, name, counts, _options(captions))
        }
        if sheet and config.contact_sheet:
            save["contact_sheet"] = functools.partial(sheet.save, path=config.contact_sheet)
        missing = f" ({unreadable} could not be read from here, and are grey)" if unreadable else ""
        for flag, path in targets.items():
            size = _write(flag, path, save[flag])
            print(f"{len(rows)} images with their captions in {path}, {size / 1e6:.1f} MB{missing}")


def _check_file(flag: str, path: str) -> None:
    """Raises InputError where no such file can be written, before anything is read."""
    from pipelines.pictures import contact_sheet
    from tfrecords_schema.storage import paths

    if paths.is_local(path) and os.path.isdir(path):
        raise _unwritable(flag, path, "a directory")
    if paths.is_local(path) and not os.path.isdir(os.path.dirname(paths.absolute(path))):
        raise _unwritable(flag, path, "no such directory")
    if flag == "output" and not path.lower().endswith((".html", ".htm")):
        raise _unwritable(flag, path, "another ending")
    if flag == "contact_sheet" and not contact_sheet.picture_format(path):
        raise _unwritable(flag, path, "no ending of a picture's name")


def _unwritable(flag: str, path: str, reason: object) -> InputError:
    kind = {"output": ".html", "contact_sheet": ".png"}[flag]
    return InputError(f"--{flag}: expected a {kind} file to write, found {path}: {reason}")


def _options(captions: str) -> dict[str, Any]:
    """What the captions were made with, by report.json."""
    from tfrecords_schema.manifests import caption_table
    from tfrecords_schema.storage import files

    return caption_table.read_report(captions, files.read_text).options


def _write(flag: str, path: str, save: Callable[[Any], None]) -> int:
    """Replaces a file in one step; returns its size in bytes."""
    from tfrecords_schema.storage import files

    directory, name = posixpath.split(path)
    try:
        with files.replacing(directory or ".", name, work="") as handle:
            save(handle)
    except (OSError, ValueError) as error:
        raise _unwritable(flag, path, error) from None
    return handle.tell()


if __name__ == "__main__":
    main()
