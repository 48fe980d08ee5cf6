"""What a value of --images is: told by its ending, and by what lies there."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

from pipelines.sources import table_rows
from pipelines.sources.image_files import FilePlace, has_image_ending
from pipelines.sources.image_lists import ImageList
from pipelines.sources.image_tables import CocoImages, ImageTable
from pipelines.sources.table_columns import Columns
from pipelines.storage import archives, files
from tfrecords_schema.errors import InputError

_ACCEPTED = (
    "a quoted pattern such as 'photos/**.jpg', a directory, a zip file, an image file, a table "
    f"({', '.join(table_rows.ENDINGS)}) or a COCO .json"
)


def open_places(images: tuple[str, ...], columns: Columns) -> list[FilePlace | ImageList]:
    """The places of all values of --images, in their order, each once.

    Raises:
      InputError: one is not there, is of no known kind, or is a table without the columns.
    """
    places: dict[str, FilePlace | ImageList] = {}
    for given in images:
        for kind, path, version in _expanded(given):
            # A pattern of images may be the name of a directory too.
            place = FilePlace(path, kind) if kind != "list" else open_list(path, version, columns)
            places.setdefault(f"{kind} {files.absolute(path)}", place)
    return list(places.values())


@functools.lru_cache(maxsize=4096)
def open_list(path: str, version: str, columns: Columns) -> ImageList:
    """A table or COCO JSON, with what was learned of it, once per process."""
    kind = ImageTable if table_rows.is_table(path) else CocoImages
    return kind(path, version, columns)


def _expanded(given: str) -> Iterator[tuple[str, str, str]]:
    """(kind, path, version) of each place that a value means."""
    local = files.is_local(given)
    there = os.path.lexists(given) if local else files.is_pattern(given) and files.is_directory(given)
    pattern = files.is_pattern(given) and not there
    is_list = table_rows.is_table(given) or given.lower().endswith(".json")
    if there and files.is_directory(given):
        yield "directory", given, ""
    elif is_list or archives.is_archive(given):
        found = files.glob_versions(given)
        if not found:
            raise _nothing_at(given, pattern)
        for path, version in found:
            yield "list" if is_list else "zip", path, version
    elif pattern:
        yield "pattern", given, ""
    elif has_image_ending(given):
        if local and not there:
            raise _nothing_at(given, pattern)
        yield "image", given, ""
    elif not local and files.has_filesystem(given):  # object stores have no directories to ask for
        yield "directory", given, ""
    elif there:
        raise InputError(f"--images: expected {_ACCEPTED}, found {given!r}, whose ending is of none of them")
    else:
        raise _nothing_at(given, pattern)


def _nothing_at(given: str, pattern: bool) -> InputError:
    if pattern:
        return InputError(f"--images: expected images, found no file that matches {given!r}")
    return InputError(f"--images: expected {_ACCEPTED}, found no file at {given!r}")
