"""A store that only fsspec knows of: names below `shelf://` in a local directory, no directories."""

import os

import fsspec
from fsspec.implementations.local import LocalFileSystem

SHELF = "shelf://"


class ShelfFileSystem(LocalFileSystem):
    """Set `root` before use."""

    protocol = "shelf"
    root = ""

    def __init__(self, **kwargs):
        super().__init__(auto_mkdir=True, **kwargs)

    @classmethod
    def _strip_protocol(cls, path):
        name = str(path).removeprefix(f"{cls.protocol}://")
        return name if os.path.isabs(name) else os.path.abspath(os.path.join(cls.root, name))


fsspec.register_implementation("shelf", ShelfFileSystem, clobber=True)
