"""A filesystem of Beam's without directories, like object stores: names below `shelf://` in a local directory."""

import os
import shutil

from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

SHELF = "shelf://"


class ShelfFileSystem(FileSystem):
    """Beam finds it among the classes that exist. Set `root` before use."""

    root = ""

    @classmethod
    def scheme(cls):
        return "shelf"

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name.removeprefix(SHELF))

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path):
        raise BeamIOError("there are no directories")

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                found = SHELF + os.path.relpath(path, self.root)
                if found.startswith(dir_or_prefix):
                    yield FileMetadata(found, os.path.getsize(path), os.path.getmtime(path))

    def create(self, path, mime_type="", compression_type=""):
        os.makedirs(os.path.dirname(self._path(path)), exist_ok=True)
        return open(self._path(path), "wb")

    def open(self, path, mime_type="", compression_type=""):
        return open(self._path(path), "rb")

    def copy(self, source_file_names, destination_file_names):
        for source, destination in zip(source_file_names, destination_file_names, strict=True):
            os.makedirs(os.path.dirname(self._path(destination)), exist_ok=True)
            shutil.copy(self._path(source), self._path(destination))

    def rename(self, source_file_names, destination_file_names):
        self.copy(source_file_names, destination_file_names)
        self.delete(source_file_names)

    def exists(self, path):
        return os.path.isfile(self._path(path))

    def size(self, path):
        return os.path.getsize(self._path(path))

    def last_updated(self, path):
        return os.path.getmtime(self._path(path))

    def metadata(self, path):
        return FileMetadata(path, self.size(path), self.last_updated(path))

    def checksum(self, path):
        return str(self.size(path))

    def delete(self, paths):
        for path in paths:
            os.remove(self._path(path))
