"""Captioned images -> a web page of them, one picture, or a picture of each (`python -m pipelines.gallery`)."""

from __future__ import annotations

import functools
import os
import posixpath
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipelines import cli
from pipelines.settings.gallery import PAGE_IMAGES, SHEET_IMAGES, SORTS, GalleryConfig
from tfrecords_schema import command, command_line, ending
from tfrecords_schema.errors import InputError

if TYPE_CHECKING:
    from pipelines.pictures.choice import Chosen

ABOUT = {
    "prog": "python -m pipelines.gallery",
    "usage": "%(prog)s --captions DIR --output FILE.html [flags]\n"
    "       %(prog)s (--features DIR | --coco_dir DIR)\n"
    "                                   --output FILE.html [flags]",
    "description": "Show images with the captions that a model gave them or that people wrote: as a web page, as one "
    "picture, or as a picture of each image.",
    "examples": """
        python -m pipelines.gallery --captions demo/captions \\
          --output demo/gallery-2.html --contact_sheet demo/gallery-2.png
        python -m pipelines.gallery --coco_dir demo/coco --output demo/coco.html
    """,
}
_ENDINGS = {"output": ".html", "contact_sheet": ".png"}  # of the targets that are files


def main(argv: Sequence[str] | None = None) -> None:
    """The command `caption-gallery`."""
    with cli.command():
        run(command_line.parse(GalleryConfig, argv, **ABOUT))


def run(config: GalleryConfig) -> None:
    """Writes the page and the pictures that are asked for.

    Raises:
      InputError: there is nothing to show, no reference fits, or a file cannot be written.
    """
    targets = config.targets()
    from tfrecords_schema.storage.filesystems import require_filesystems

    require_filesystems(**command.places(config))
    for flag, path in targets.items():
        _check_target(flag, path)
    from tqdm import tqdm

    from pipelines.items import ImageError, printable
    from pipelines.pictures import of_each, thumbnails
    from pipelines.pictures.contact_sheet import ContactSheet
    from pipelines.pictures.gallery_page import Page
    from tfrecords_schema.storage import paths

    chosen = _chosen(config, config.n or (SHEET_IMAGES if [*targets] == ["contact_sheet"] else PAGE_IMAGES))
    rows = chosen.rows
    drawn: dict[str, Callable[[Any, Any], Any]] = {
        "captioned_images": of_each.captioned,
        "attention_pictures": of_each.looked_at,
    }
    drawn = {flag: draw for flag, draw in drawn.items() if flag in targets}
    made = dict.fromkeys(drawn, 0)
    has_people = any(chosen.said)
    sheet = ContactSheet(len(rows), config.columns, has_people) if config.contact_sheet else None
    unreadable = 0
    with Page() as page:
        progress = tqdm(thumbnails.read_all(chosen.places), total=len(rows), unit="image", disable=None, leave=False)
        for row, said, cider, image in zip(rows, chosen.said, chosen.cider, progress, strict=True):
            is_there = not isinstance(image, ImageError)
            unreadable += not is_there
            if config.output:
                page.add(row, image, said, cider)
            if sheet:
                sheet.add(row, image, said)
            for flag, draw in drawn.items():
                if is_there and (picture := draw(row, image)):
                    save_png = functools.partial(picture.save, format="PNG")
                    name = of_each.file_name(printable(row.get("image_id") or ""))
                    _write(flag, paths.join(targets[flag], name), save_png)
                    made[flag] += 1
        save: dict[str, Callable[[Any], None]] = {
            "output": lambda handle: page.save(handle, chosen.name, chosen.facts, chosen.options)
        }
        if sheet and config.contact_sheet:
            save["contact_sheet"] = functools.partial(sheet.save, path=config.contact_sheet)
        missing = f" ({unreadable} could not be read from here, and are grey)" if unreadable else ""
        for flag, path in targets.items():
            if flag in save:
                size = _write(flag, path, save[flag])
                print(f"{len(rows)} images with their captions in {path}, {size / 1e6:.1f} MB{missing}")
            else:
                print(f"{made[flag]} pictures in {path}")


def _chosen(config: GalleryConfig, n: int) -> Chosen:
    """What is shown. Raises InputError."""
    from pipelines.items import printable
    from pipelines.pictures import choice, data_sets
    from tfrecords_schema.storage import paths

    place = config.captions or config.features or config.coco_dir or ""
    if config.captions:
        found = choice.of_table(config.captions, n, config.sort, config.references, bool(config.attention_pictures))
        order = SORTS[config.sort]
    elif config.features:
        found, order = data_sets.of_features(config.features, n, config.split), "the first ones"
    else:
        from pipelines.output import start
        from pipelines.settings.features import Data
        from pipelines.training_records.source import source_of

        with start.listed(source_of(Data(coco_dir=config.coco_dir, year=config.year), 1)) as catalogue:
            total = sum(catalogue.counts().values())
            found, order = data_sets.of_items(catalogue.sample(n), total), "from all over the set"
    if not found.rows:
        raise InputError(f"{place}: expected captioned images, found none")
    name = printable(posixpath.basename(paths.absolute(place)))
    count, rejects = f"{len(found.rows):,} of {found.total:,}", found.rejects
    if rejects:
        count += f" captioned images; {rejects:,} {'was' if rejects == 1 else 'were'} rejected"
    return found._replace(name=name, facts={"Images": count, "Order": order})


def _check_target(flag: str, path: str) -> None:
    """Raises InputError where no such file or directory can be written, before anything is read."""
    from pipelines.pictures import contact_sheet
    from tfrecords_schema.storage import paths

    if flag not in _ENDINGS:
        if paths.is_local(path) and os.path.exists(path) and not os.path.isdir(path):
            raise _unwritable(flag, path, "no directory")
        return
    if paths.is_local(path) and os.path.isdir(path):
        raise _unwritable(flag, path, "a directory")
    if paths.is_local(path) and not os.path.isdir(os.path.dirname(paths.absolute(path))):
        raise _unwritable(flag, path, "no such directory")
    if flag == "output" and not path.lower().endswith((".html", ".htm")):
        raise _unwritable(flag, path, "another ending")
    if flag == "contact_sheet" and not contact_sheet.picture_format(path):
        raise _unwritable(flag, path, "no ending of a picture's name")


def _unwritable(flag: str, path: str, reason: object) -> InputError:
    kind = f"a {_ENDINGS[flag]} file to write" if flag in _ENDINGS else "a directory that can be written to"
    return InputError(f"--{flag}: expected {kind}, found {path}: {reason}")


def _write(flag: str, path: str, save: Callable[[Any], None]) -> int:
    """Replaces a file in one step; returns its size in bytes."""
    from tfrecords_schema.storage import files, paths

    directory, name = posixpath.split(path)
    try:
        if flag not in _ENDINGS and paths.is_local(path):
            os.makedirs(directory, exist_ok=True)
        with files.replacing(directory or ".", name, work="") as handle:
            save(handle)
    except (OSError, ValueError) as error:
        raise _unwritable(flag, path, error) from None
    return handle.tell()


program = ending.program(main)

if __name__ == "__main__":
    program()
