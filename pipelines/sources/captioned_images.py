"""What `pipelines.features` learns from, as a source of Items: COCO's layout, captions files and places, or samples."""

from __future__ import annotations

import dataclasses
import posixpath
import sys
from collections.abc import Sequence
from typing import Any

from pipelines.listing.catalogue import Catalogue
from pipelines.listing.entries import escape, unescape
from pipelines.sources import captions_files, drafts
from pipelines.sources.drafts import quoted
from pipelines.sources.image_sets import ImageSets
from pipelines.sources.locations import Locations
from pipelines.sources.places import forget
from pipelines.sources.table_columns import Columns
from tfrecords_schema.captions_json import NO_CAPTION
from tfrecords_schema.errors import InputError, blaming
from tfrecords_schema.shards import is_validation

_IN_SEVERAL_SPLITS = """
    SELECT one.split, other.split, count(*)
    FROM entries AS one JOIN entries AS other ON one.id = other.id AND one.uri = other.uri AND one.split < other.split
    GROUP BY ALL ORDER BY ALL
"""
_LAST = "SELECT position FROM entries WHERE split = ? ORDER BY position LIMIT 1 OFFSET ?"
# An entry that names no image has its captions file for a URI.
_INSERT = """
    INSERT INTO entries BY NAME
    WITH rows AS (SELECT * REPLACE (coalesce(id, id_of(name)) AS id), {position} AS position FROM drafts),
    ours AS (
        SELECT * REPLACE (CASE split WHEN 'restval' THEN {restval} ELSE coalesce(split, {own}) END AS split) FROM rows
    )
    SELECT split, position, id, captions,
      CASE WHEN name IS NULL THEN $1 WHEN is_absolute(name) OR found.message IS NOT NULL THEN name
        ELSE coalesce(found.uri, $2 || name) END AS uri,
      coalesce(found.version, '') AS version,
      CASE WHEN coalesce(ours.message, found.message) IS NOT NULL THEN 'list' END AS stage,
      coalesce(error, CASE WHEN found.message IS NOT NULL THEN 'AmbiguousName' END) AS error,
      coalesce(ours.message, found.message) AS message
    FROM ours LEFT JOIN found USING (position) WHERE split IS NOT NULL
"""


_REPLACED = f"""
    REPLACE ({{own}} AS split, CASE WHEN error IS NULL AND len(captions) = 0 THEN 'list' ELSE stage END AS stage,
      CASE WHEN error IS NULL AND len(captions) = 0 THEN {quoted(NO_CAPTION.error)} ELSE error END AS error,
      CASE WHEN error IS NULL AND len(captions) = 0 THEN {quoted(NO_CAPTION.message)} ELSE message END AS message)
"""


@dataclasses.dataclass(frozen=True)
class CaptionFile:
    """A captions file of any kind that `captions_files` reads, and where its images are; or a place with both.

    Attributes:
      split: of all its images; None where the file itself tells, or a fraction of them is to be held out.
      places: directories, zip files and patterns; none for a table of paths, which are taken from its own directory.
      flags: those that path and places came with, for messages.
      field: of a place with images and captions, as `ImageSets` takes them: the ending, JSON field or column of the
        captions, empty for the default. None for a captions file.
    """

    path: str
    places: tuple[str, ...]
    split: str | None = None
    flags: tuple[str, str] = ("--captions", "--images")
    field: str | None = None


@dataclasses.dataclass(frozen=True)
class CaptionedImages:
    """The images of captions files.

    Attributes:
      rows_together: as of `ImageSets`.
      val_fraction: the share held out for validation of files without splits, by a hash of the id.
      restval: the split that Karpathy's `restval` images belong to; None leaves them out.
      limit: only so many images of each split, the first ones.
      max_captions: only so many captions of each image, the first ones.
    """

    files: tuple[CaptionFile, ...]
    val_fraction: float | None = None
    restval: str | None = "train"
    limit: int | None = None
    max_captions: int | None = None
    rows_together: int = 1000

    def metadata_fields(self) -> list[tuple[str, Any]]:
        """None: nothing but captions is carried along."""
        return []

    def list_into(self, catalogue: Catalogue) -> None:
        """Lists all images. An image is an id in a place, whose captions may stand apart.

        Raises:
          InputError: a file or a place is missing or of no known kind, has no images, or its splits do not fit.
        """
        forget()
        if fraction := self.val_fraction:
            catalogue.define("is_held_out", lambda ids: [is_validation(unescape(one), fraction) for one in ids])
        for place, file in enumerate(self.files):
            if file.field is None:
                self._list_file(catalogue, place, file)
        sets = [file for file in self.files if file.field is not None]
        for split in dict.fromkeys(file.split for file in sets):
            self._list_sets(catalogue, [file for file in sets if file.split == split])
        drafts.end(catalogue)
        catalogue.join_parts()
        self._cut(catalogue)
        for one, other, shared in catalogue.run(_IN_SEVERAL_SPLITS):
            print(f"WARNING: {shared:,} images are in both {one} and {other}.", file=sys.stderr, flush=True)
        catalogue.set_duplicates_aside()

    def describe(self) -> dict[str, Any]:
        """The options of the source that a later run is compared with."""
        fields = [file.field for file in self.files if file.field]
        return {
            "captions": [f"{file.split or 'own splits'}: {file.path}" for file in self.files],
            "images": [list(file.places) for file in self.files],
            "val_fraction": self.val_fraction,
            "restval": self.restval,
            "limit": self.limit,
            "max_captions": self.max_captions,
            **({"caption_field": fields[0]} if fields else {}),
        }

    def _cut(self, catalogue: Catalogue) -> None:
        """Leaves out what is more than was asked for; only now is known what belongs to one image, in which split."""
        if self.limit is not None:
            for split in catalogue.counts():
                for (position,) in catalogue.run(_LAST, split, self.limit):
                    catalogue.run("DELETE FROM entries WHERE split = ? AND position >= ?", split, position)
        if most := self.max_captions:
            catalogue.run(f"UPDATE entries SET captions = captions[1:{most}] WHERE len(captions) > {most}")

    def _list_sets(self, catalogue: Catalogue, given: Sequence[CaptionFile]) -> None:
        """Places with images and captions, of one split."""
        replaced = _REPLACED.format(own=self._own_split(given[0].split))
        flag = given[0].flags[0]
        (first,) = catalogue.run("SELECT coalesce(max(position) >> 40, -1) + 1 FROM entries")[0]
        columns = Columns(captions=given[0].field)
        places = tuple(file.path for file in given)
        try:
            ImageSets(places, (), columns, "", None, self.rows_together, first, replaced).list_into(catalogue)
        except InputError as error:
            raise InputError(str(error).replace("--images:", f"{flag}:", 1)) from None
        self._require_usable(catalogue, first, f"{flag}: {given[0].path}")

    def _own_split(self, split: str | None) -> str:
        """SQL of the split of images whose captions file, or place, tells none."""
        if self.val_fraction and not split:
            return "CASE WHEN is_held_out(id) THEN 'val' ELSE 'train' END"
        return quoted(split or "train")

    def _require_usable(self, catalogue: Catalogue, place: int, where: str) -> None:
        usable, message = catalogue.run(
            "SELECT count(*) FILTER (error IS NULL), arg_min(message, position) FROM entries "
            f"WHERE position >> 40 >= {place}"
        )[0]
        if not usable:
            found = f"none that could be used; the first: {unescape(message)}" if message else "none"
            raise InputError(f"{where}: expected images with captions, found {found}")

    def _list_file(self, catalogue: Catalogue, place: int, file: CaptionFile) -> None:
        if not file.places and not captions_files.is_table(file.path):
            raise InputError(f"{file.flags[1]}: expected the place of the images that {file.path} names, found none")
        with blaming(file.flags[1]):
            locations = Locations(catalogue, file.places or (posixpath.dirname(file.path) or ".",))
        drafts.begin(catalogue)
        with blaming(file.flags[0]):
            captions_files.list_file(catalogue, file.path, place)
            self._check_splits(catalogue, file)
        drafts.learn_schemes(catalogue)
        names = f"SELECT {drafts.POSITION} AS position, name, short FROM drafts WHERE NOT is_absolute(name)"
        locations.find(
            f"SELECT position, 0 AS rank, name FROM ({names}) "
            f"UNION ALL SELECT position, 1 AS rank, short FROM ({names}) WHERE short IS NOT NULL"
        )
        own = self._own_split(file.split)
        restval = "NULL" if self.restval is None else quoted(self.restval)
        catalogue.run(
            _INSERT.format(position=drafts.POSITION, own=own, restval=restval),
            *map(escape, (file.path, locations.fallback)),
        )
        self._require_usable(catalogue, place, f"{file.flags[0]}: {file.path}")

    def _check_splits(self, catalogue: Catalogue, file: CaptionFile) -> None:
        wants_none = file.split or self.val_fraction is not None
        if wants_none and catalogue.run("SELECT 1 FROM drafts WHERE split IS NOT NULL LIMIT 1"):
            way = "give it with --captions" if file.split else "leave out --val_fraction"
            raise InputError(f"expected captions without splits, found {file.path} with its own; {way}")
