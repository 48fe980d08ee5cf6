"""Which kinds of places the values of --images mean, by their endings and by what is there."""

from __future__ import annotations

import functools
import os
import posixpath
from collections.abc import Iterator

from pipelines.sources import tables
from pipelines.sources.image_files import FilePlace, has_image_ending
from pipelines.sources.image_lists import ImageList
from pipelines.sources.sample_places import SamplePlace, open_samples
from pipelines.sources.table_columns import Columns
from pipelines.storage import archives, parquet_cells, tars
from tfrecords_schema.errors import InputError, blaming
from tfrecords_schema.storage import braces, finding, paths

_ACCEPTED = (
    "a quoted pattern such as 'photos/**.jpg', a directory, a zip file, tar shards, an image file, a table "
    f"({', '.join(tables.ENDINGS)}) or a COCO .json"
)
Place = FilePlace | ImageList | SamplePlace


def open_places(images: tuple[str, ...], columns: Columns) -> list[Place]:
    """The places of all values of --images, in their order, each once.

    Raises:
      InputError: one is not there, is of no known kind, or is a table without the columns.
    """
    places: dict[str, Place] = {}
    for given in images:
        for kind, path, version in _meant(given):
            # A pattern of images may be the name of a directory too.
            places.setdefault(f"{kind} {paths.absolute(path)}", _place(kind, path, version, columns))
    return list(places.values())


def has_captions(given: str) -> bool:
    """Whether a value of --captions means images with their captions: tar shards, Parquet, a directory."""
    is_directory = finding.is_directory(given) if paths.is_local(given) else not posixpath.splitext(given)[1]
    return is_directory or tars.is_tar(given) or tars.is_packed(given) or given.lower().endswith(parquet_cells.ENDING)


def _place(kind: str, path: str, version: str, columns: Columns) -> Place:
    if kind == "list":
        return open_list(path, version, columns)
    if kind == "tar" or (kind == "directory" and columns.captions is not None):  # whose captions lie beside the images
        return SamplePlace(path, version, kind == "tar")
    return FilePlace(path, kind)


@functools.lru_cache(maxsize=4096)
def open_list(path: str, version: str, columns: Columns) -> ImageList:
    """A table or COCO JSON, with what was learned of it, once per process."""
    return ImageList(path, version, columns)


def _meant(given: str) -> Iterator[tuple[str, str, str]]:
    """(kind, path, version) of each place that a value means."""
    is_list = tables.is_table(given) or given.lower().endswith(".json")
    kind = "list" if is_list else "zip" if archives.is_archive(given) else "tar" if tars.is_tar(given) else ""
    if kind and not (paths.is_local(given) and os.path.isdir(given)):
        with blaming("--images"):
            found = braces.glob_versions(given)
        if not found:
            raise _nothing_at(given, paths.is_pattern(given) and not os.path.lexists(given))
        yield from ((kind, path, version) for path, version in found)
        return
    with blaming("--images"):
        expanded = braces.expand(given)
    for one in expanded:
        yield _other_place(one)


def _other_place(given: str) -> tuple[str, str, str]:
    """(kind, path, version) of a place that is neither a table nor an archive."""
    local = paths.is_local(given)
    there = os.path.lexists(given) if local else paths.is_pattern(given) and finding.is_directory(given)
    pattern = paths.is_pattern(given) and not there
    if there and finding.is_directory(given):
        return "directory", given, ""
    if tars.is_packed(given):
        raise InputError(
            f"--images: expected tar shards without compression, found {given!r}; unpack it to a .tar file first"
        )
    if pattern:
        return "pattern", given, ""
    if has_image_ending(given):
        if local and not there:
            raise _nothing_at(given, pattern)
        return "image", given, ""
    if not local and paths.has_filesystem(given):  # object stores have no directories to ask for
        return "directory", given, ""
    if there:
        raise InputError(f"--images: expected {_ACCEPTED}, found {given!r}, whose ending belongs to none of these")
    raise _nothing_at(given, pattern)


def _nothing_at(given: str, pattern: bool) -> InputError:
    if pattern:
        return InputError(f"--images: expected images, found no file that matches {given!r}")
    return InputError(f"--images: expected {_ACCEPTED}, found no file at {given!r}")


def forget() -> None:
    """Has every file be opened anew: what an earlier run in this process saw may have changed."""
    for cache in (archives.open_archive, parquet_cells.open_cells, open_list, open_samples):
        cache.cache_clear()
    tars.forget()
