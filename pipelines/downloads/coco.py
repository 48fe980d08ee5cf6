"""COCO as it is published: which zip files a year's splits are in, and what of them is to be unpacked.

https://cocodataset.org/#download lists them. Images are read inside their zip files, which stay as they are; captions
files are unpacked to where `--coco_dir` looks for them.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

from pipelines.items import ImageError
from pipelines.storage import archives
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import files
from tfrecords_schema.text import one_line

TEST_IMAGES = "annotations/image_info_test{year}.json"
_CAPTIONS = "annotations/captions_{split}{year}.json"
_MOST_CAPTION_BYTES = 1 << 30  # of a captions file, which is unpacked in memory; the largest has 0.1 GB


class Published(NamedTuple):
    """A zip file.

    Attributes:
      place: on the server, below its address.
      members: of these the files that are to be unpacked; none of images.
    """

    place: str
    members: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the zip file on this disk."""
        return os.path.basename(self.place)

    def missing(self, directory: str) -> list[str]:
        """The members of the zip file that are not unpacked yet."""
        return [member for member in self.members if not os.path.exists(os.path.join(directory, member))]

    def is_done(self, directory: str) -> bool:
        """Whether all that is wanted of it is here: its members, or, where none are to be unpacked, itself."""
        if self.members:
            return not self.missing(directory)
        return os.path.exists(os.path.join(directory, self.name))


def published(year: str, splits: Sequence[str]) -> list[Published]:
    """The zip files of a year's splits, train, val or test; test images have no captions, but a list."""
    captions = [_CAPTIONS.format(split=split, year=year) for split in ("train", "val") if split in splits]
    found = [Published(f"annotations/annotations_trainval{year}.zip", tuple(captions))] if captions else []
    if "test" in splits:
        found.append(Published(f"annotations/image_info_test{year}.zip", (TEST_IMAGES.format(year=year),)))
    return [*found, *(Published(f"zips/{split}{year}.zip") for split in ("val", "train", "test") if split in splits)]


def require_zip(path: str, blamed: str, way: str) -> None:
    """Raises InputError where a zip file's directory cannot be read; tells what was found, and what to do."""
    try:
        archives.Archive(path)
    except (OSError, zipfile.BadZipFile) as error:
        with files.open_binary(path) as handle:
            begins = handle.read(40)
        shown = begins.decode("utf-8", "replace")
        size = os.path.getsize(path)
        raise InputError(
            f"{blamed}: expected a zip file, found {size:,} bytes that begin with {shown!r} ({one_line(error)}); {way}"
        ) from None


def unpack(directory: str, archive: Published) -> None:
    """Writes those members that are missing. Raises InputError where they cannot be unpacked, or OSError."""
    path = os.path.join(directory, archive.name)
    archives.open_archive.cache_clear()  # an earlier file of this name may be open still
    for member in archive.missing(directory):
        try:
            content = archives.open_archive(path).read(member, lambda size: _admit(path, size))
        except ImageError as error:
            raise InputError(f"{path}: expected {member} in it, found {error.error}: {error.message}") from None
        folder, name = os.path.split(os.path.join(directory, member))
        files.make_directory(folder)
        files.replace(folder, {name: content})


def _admit(path: str, size: int) -> None:
    if size > _MOST_CAPTION_BYTES:
        raise InputError(f"{path}: expected captions files of at most {_MOST_CAPTION_BYTES:,} bytes, found {size:,}")
