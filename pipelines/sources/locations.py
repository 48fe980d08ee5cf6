"""Where images lie: a directory, a glob pattern or a zip file; from a name in a captions file to a URI."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import zipfile
from collections.abc import Iterable

from pipelines.items import ImageError
from pipelines.storage import archives
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import files, finding, paths


@dataclasses.dataclass(frozen=True)
class Found:
    """An image's file.

    Attributes:
      uri: to read it from.
      version: changes when its content does, as far as a listing tells: size and time of a file, CRC of a zip member.
        Empty where nothing was listed.
    """

    uri: str
    version: str = ""


def open_locations(places: Iterable[str]) -> Locations:
    """Lists what has to be listed.

    Raises:
      InputError: a place is not there, or is no place for images.
    """
    places = [found for place in places for found in _expanded(place)]
    return Locations([_open(place, alone=len(places) == 1) for place in places])


def _expanded(place: str) -> list[str]:
    """The zip files that a pattern of them finds; any other place is itself."""
    if archives.is_archive(place) and paths.is_pattern(place) and not files.exists(place):
        return finding.glob(place) or [place]
    return [place]


class Locations:
    """Several places, where one image should be in exactly one."""

    def __init__(self, places: list[_Directory | _Index]):
        self._places = places

    def find(self, *names: str) -> Found | ImageError:
        """The file of an image under the first of its names that is anywhere."""
        if paths.is_absolute(names[0]):
            return Found(names[0], finding.version(names[0]) if paths.is_local(names[0]) else "")
        for name in names:
            hits = [hit for place in self._places for hit in place.find(name)]
            found = list({(paths.absolute(hit.uri), hit.version): hit for hit in hits}.values())
            if len(found) == 1:
                return found[0]
            if found:
                where = ", ".join(hit.uri for hit in found[:3])
                return ImageError("list", "AmbiguousName", f"{len(found)} files have the name {name}: {where}")
        return Found(self._places[0].uri(names[0]))  # reading it will say that it is absent


def _open(place: str, alone: bool) -> _Directory | _Index:
    if archives.is_archive(place):
        return _open_archive(place)
    if paths.is_pattern(place) and not finding.is_directory(place):
        found = finding.glob_versions(place)
        if not found:
            raise InputError(f"expected a directory, a zip file or a pattern, found no file matches {place!r}")
        return _Index(place, {path: Found(path, version) for path, version in found})
    if not finding.is_directory(place):
        raise InputError(f"expected a directory, a zip file or a pattern, found none at {place}")
    if not alone and not paths.is_local(place):  # which of the places has an image, only listings can tell
        return _Index(place, {path: Found(path, version) for path, version in finding.versions_below(place)})
    return _Directory(place)


def _open_archive(path: str) -> _Index:
    try:
        archive = archives.open_archive(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"expected a zip file, found none at {path}: {error}") from None
    members = {name: Found(archives.member_uri(path, name), archive.version(name)) for name in archive.names()}
    return _Index(path + "!", members, archive.repeated)


class _Directory:
    """Not listed: a name is joined to it. A remote one is not even asked whether the file is there."""

    def __init__(self, path: str):
        self._path = path

    def uri(self, name: str) -> str:
        return paths.join(self._path, name)

    def find(self, name: str) -> list[Found]:
        path = self.uri(name)
        if not paths.is_local(self._path):
            return [Found(path)]
        return [Found(path, finding.version(path))] if os.path.lexists(path) else []


class _Index:
    """The files of a listing by their last name. A name with folders fits a path that ends in it."""

    def __init__(self, root: str, paths: dict[str, Found], repeated: Iterable[str] = ()):
        self._root, self._repeated = root, frozenset(repeated)
        self._paths: dict[str, list[tuple[str, Found]]] = {}
        for path, found in paths.items():
            self._paths.setdefault(posixpath.basename(path), []).append((path, found))

    def uri(self, name: str) -> str:
        return f"{self._root}/{name}"

    def find(self, name: str) -> list[Found]:
        hits = []
        for path, found in self._paths.get(posixpath.basename(name), ()):
            if path == name or path.endswith("/" + name):
                hits.append(found)
                if path in self._repeated:
                    hits.append(Found(found.uri, "another member of this name"))
        return hits
