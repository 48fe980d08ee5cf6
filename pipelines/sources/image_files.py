"""Files given as images: patterns, directories, zip files and single images; what is in them, and their ids."""

from __future__ import annotations

import collections
import dataclasses
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator

from pipelines.items import ImageError, Item
from pipelines.storage import archives
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import finding, paths

# Of the formats that `images` decodes, as Pillow knows them. Other files of a directory or zip file are passed over.
_ENDINGS = (
    r"jpe?g|jpe|jfif|mpo|a?png|webp|gif|tiff?|bmp|dib|avifs?|jp2|j2k|j2c|jpc|jpf|jpx|p[pgbn]m|pfm|tga|icb|vda|vst|ico|"
    r"pcx|sgi|rgba?|bw"
)
_IS_IMAGE = re.compile(rf".*\.({_ENDINGS})", re.IGNORECASE | re.DOTALL)


def has_image_ending(path: str) -> bool:
    """Whether a file's name tells that it is an image."""
    return bool(_IS_IMAGE.fullmatch(posixpath.basename(path)))


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """A file or zip member that is to be tried as an image.

    Attributes:
      uri: to read it from.
      path: absolute, one spelling for each file. A zip file stands in it for a directory of its name: `a/x.zip!/b.jpg`
        is `/…/a/x/b.jpg`.
      version: size, and time or checksum; empty where no listing tells.
    """

    uri: str
    path: str
    version: str
    problem: ImageError | None = None


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a place holds: its images, and how many other files it has by their ending."""

    images: list[ImageFile]
    passed_over: collections.Counter[str]


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

    def list(self, excluding: str = "") -> Listing:
        """Lists the place; `excluding` is a directory whose files are passed over without counting them.

        Raises:
          InputError: nothing in it is an image, or it is no zip file.
        """
        listing = self._list_archive() if self.kind == "zip" else self._list_files(excluding)
        if not listing.images:
            raise InputError(f"--images: expected images, found {self._nothing(listing)}")
        return listing

    def items(
        self, listing: Listing, id_of: Callable[[str], str], seen: set[str], positions: Iterator[int], width: int
    ) -> Iterator[Item]:
        """An Item for each image that is not among those `seen`, which it adds to.

        Args:
          id_of: from an image's path to its id.
          positions: in the source.
          width: how many columns of tables are carried along, which files have none of.
        """
        for file in listing.images:
            if file.path not in seen:
                seen.add(file.path)
                yield Item(
                    id_of(file.path),
                    file.uri,
                    problem=file.problem,
                    version=file.version,
                    position=next(positions),
                    metadata=(None,) * width,
                )

    def note(self, listing: Listing) -> str | None:
        """One line on the files that were passed over."""
        count = listing.passed_over.total()
        if not count:
            return None
        files_have, were = ("file in {} has", "was") if count == 1 else ("files in {} have", "were")
        every = self._every() if self.kind == "directory" else ""
        where = files_have.format(self.given)
        return f"{count:,} {where} no image's ending ({_endings(listing)}) and {were} passed over{every}"

    def _nothing(self, listing: Listing) -> str:
        if self.kind == "pattern":
            return f"no file that matches {self.given!r}"
        if not listing.passed_over:
            return f"none in {self.given}, which has no files"
        way = self._every()
        if ".parquet" in listing.passed_over:
            way = f"; {paths.join(self.given, '*.parquet')!r} takes tables"
        way = way if self.kind == "directory" else ""
        return f"only other files in {self.given} ({_endings(listing)}){way}"

    def _every(self) -> str:
        return f"; {paths.join(self.given, '**')!r} takes every file"

    def _list_files(self, excluding: str) -> Listing:
        below = self.kind == "directory"
        found = finding.versions_below(self.given) if below else finding.glob_versions(self.given)
        outside = paths.absolute(excluding) + "/" if excluding else None
        images: list[ImageFile] = []
        passed_over: collections.Counter[str] = collections.Counter()
        for uri, version in found:
            path = paths.absolute(uri)
            if outside and path.startswith(outside):
                continue
            if below and not has_image_ending(path):
                passed_over[_ending(path)] += 1
            else:
                images.append(ImageFile(uri, path, version))
        return Listing(images, passed_over)

    def _list_archive(self) -> Listing:
        try:
            archive = archives.open_archive(self.given)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"--images: expected a zip file, found none at {self.given}: {error}") from None
        images: list[ImageFile] = []
        passed_over: collections.Counter[str] = collections.Counter()
        for name in sorted(archive.names()):
            if name.startswith("__MACOSX/"):  # what macOS adds for each file: its icon and where it was downloaded
                continue
            if has_image_ending(name):
                problem = archive.ambiguity(name)
                uri = archives.member_uri(self.given, name)
                images.append(ImageFile(uri, f"{self.root()}/{name}", archive.version(name), problem))
            else:
                passed_over[_ending(name)] += 1
        return Listing(images, passed_over)


def _ending(path: str) -> str:
    return posixpath.splitext(path)[1].lower() or "none"


def _endings(listing: Listing) -> str:
    most = [ending for ending, _ in listing.passed_over.most_common(4)]
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


def name_below(directory: str, path: str) -> str:
    """The path below a directory, of which `NamedIds` makes an id: a file's name, or `folder/name`."""
    name = path[len(directory) :] if path.startswith(directory + "/") else path
    return name.lstrip("/")
