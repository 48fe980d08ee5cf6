"""Files given as images: patterns, directories, zip files and single images; what is in them, and their ids."""

from __future__ import annotations

import collections
import dataclasses
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.listing.entries import escape, texts
from pipelines.sources import drafts
from pipelines.sources.locations import absolutes, chunks, open_archive
from pipelines.storage import archives
from tfrecords_schema.errors import InputError, blaming
from tfrecords_schema.shards import shard_of
from tfrecords_schema.storage import finding, paths
from tfrecords_schema.text import on_screen

# Of the formats that `images` decodes, as Pillow knows them. Other files of a directory or zip file are passed over.
_ENDINGS = (
    r"jpe?g|jpe|jfif|mpo|a?png|webp|gif|tiff?|bmp|dib|avifs?|jp2|j2k|j2c|jpc|jpf|jpx|p[pgbn]m|pfm|tga|icb|vda|vst|ico|"
    r"pcx|sgi|rgba?|bw"
)
_IS_IMAGE = rf"(?i)\.({_ENDINGS})$"


def has_image_ending(path: str) -> bool:
    """Whether a file's name tells that it is an image."""
    return bool(re.search(rf"{_IS_IMAGE[:-1]}\Z", path))


@dataclasses.dataclass(frozen=True)
class FilePlace:
    """A value of --images that means files.

    Attributes:
      given: as on the command line.
      kind: "pattern", "directory", "zip" or "image".
    """

    given: str
    kind: str

    def root(self) -> str:
        """The absolute directory that paths of this place are below; see `ImageFile.path` for zip files."""
        if self.kind == "pattern":
            fixed = re.split(r"[*?\[]", self.given, maxsplit=1)[0]
            return paths.absolute(posixpath.dirname(fixed))
        if self.kind == "image":
            return posixpath.dirname(paths.absolute(self.given))
        return paths.absolute(self.given if self.kind == "directory" else posixpath.splitext(self.given)[0])

    def drafts(self, place: int, excluding: str, together: int) -> Iterator[pa.Table]:
        """The images of this place. The name of one is its absolute path, in one spelling.

        A zip file stands in it for a directory of its name: `a/x.zip!/b.jpg` is `/…/a/x/b.jpg`. Says on the screen how
        many other files there are.

        Args:
          excluding: a directory whose files are passed over without counting them.
          together: so many that stand one behind the other in a zip file make a run.

        Raises:
          InputError: nothing in it is an image, or it is no zip file.
        """
        number, passed_over = 0, collections.Counter[str]()
        for found in self._archive(together) if self.kind == "zip" else self._files(excluding):
            if self.kind in ("directory", "zip"):
                is_image = pc.match_substring_regex(found["name"], _IS_IMAGE)
                passed_over.update(map(_ending, found["name"].filter(pc.invert(is_image)).to_pylist()))
                found = {name: column.filter(is_image) for name, column in found.items()}
            count = len(found["name"])
            yield drafts.batch(place, range(number, number + count), found)
            number += count
        if not number:
            raise InputError(f"--images: expected images, found {self._nothing(passed_over)}")
        if count := passed_over.total():
            files_have, were = ("file in {} has", "was") if count == 1 else ("files in {} have", "were")
            every = self._every() if self.kind == "directory" else ""
            where, endings = files_have.format(self.given), _endings(passed_over)
            note = f"{count:,} {where} no image's ending ({endings}) and {were} skipped{every}"
            print(on_screen(note), file=sys.stderr, flush=True)

    def _nothing(self, passed_over: collections.Counter[str]) -> str:
        if self.kind == "pattern":
            return f"no file that matches {self.given!r}"
        if not passed_over:
            return f"none in {self.given}, which has no files"
        way = self._every()
        for ending, what in ((".parquet", "tables"), (".tar", "tar shards")):
            if ending in passed_over:
                way = f"; {paths.join(self.given, f'*{ending}')!r} takes {what}"
        way = way if self.kind == "directory" else ""
        return f"only other files in {self.given} ({_endings(passed_over)}){way}"

    def _every(self) -> str:
        return f"; {paths.join(self.given, '**')!r} takes every file"

    def _files(self, excluding: str) -> Iterator[dict[str, pa.Array]]:
        below = self.kind == "directory"
        outside = paths.absolute(excluding) + "/" if excluding else None
        with blaming("--images"):
            for uris, versions in chunks(finding.streamed(self.given, below)):
                columns = map(texts, (absolutes(uris), uris, versions))
                found = dict(zip(("name", "uri", "version"), columns, strict=True))
                if outside:
                    is_outside = pc.invert(pc.starts_with(found["name"], escape(outside)))
                    found = {name: column.filter(is_outside) for name, column in found.items()}
                yield found

    def _archive(self, together: int) -> Iterator[dict[str, pa.Array]]:
        with blaming("--images"):
            archive = open_archive(self.given)
        # Runs by the file's own order, which members that are added to it later do not change. In one shard lie members
        # of few files then: else each worker would read the directories of all of them.
        first = shard_of(self.root(), 1 << 32)
        run_of = {name: first + number // together for number, name in enumerate(archive.names())}
        # Beside each file macOS puts its icon, and where it was downloaded. Hidden ones are skipped as of a directory.
        names = [n for n in sorted(run_of) if not (n.startswith("__MACOSX/") or finding.is_hidden(n))]
        for members, versions in chunks((name, archive.version(name)) for name in names):
            problems = [archive.ambiguity(name) for name in members]
            yield {
                "run": pa.array([run_of[name] for name in members], pa.uint64()),
                "name": texts([f"{self.root()}/{name}" for name in members]),
                "uri": texts([archives.member_uri(self.given, name) for name in members]),
                "version": texts(versions),
                "error": texts([problem.error if problem else None for problem in problems]),
                "message": texts([problem.message if problem else None for problem in problems]),
            }


def _ending(path: str) -> str:
    return posixpath.splitext(path)[1].lower() or "none"


def _endings(passed_over: collections.Counter[str]) -> str:
    most = [ending for ending, _ in passed_over.most_common(4)]
    return ", ".join(most[:3]) + (", …" if len(most) > 3 else "")


def common_directory(paths: Iterable[str]) -> str:
    """The deepest directory, absolute, that all of these directories are or lie in; empty where there is none."""
    common: list[str] | None = None
    for path in paths:
        parts = path.rstrip("/").split("/")
        if common is None:
            common = parts
        while common != parts[: len(common)]:
            common = common[:-1]
    return "/".join(common or [])


def name_below(directory: str) -> str:
    """SQL: what of the path `name` lies below a directory, to make an id of: a file's name, or `folder/name`."""
    inside = drafts.quoted(escape(f"{directory}/"))
    return f"ltrim(CASE WHEN starts_with(name, {inside}) THEN substr(name, length({inside})) ELSE name END, '/')"
