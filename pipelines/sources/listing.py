"""What a captions file says of one image; and how every kind of captions file is opened."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import posixpath
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipelines.items import ImageError
from pipelines.storage import files

_LONE = re.compile("[\ud800-\udfff]")
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Listed:
    """One image as a captions file lists it; where its captions do not stand together, a part of it.

    Attributes:
      id: COCO's id in decimal, or the file's name without its ending.
      names: of the file, the likeliest first; empty where the file tells none.
      captions: as given.
      split: train, val, test or restval; None where the file has no splits.
      problem: why the listing itself makes it unusable.
    """

    id: str
    names: tuple[str, ...]
    captions: tuple[str, ...] = ()
    split: str | None = None
    problem: ImageError | None = None


def make_listed(image_id: str, names: tuple[str, ...], captions: Any, split: Any) -> Listed:
    """A Listed whose captions and split are checked."""
    texts = tuple(whole(caption) for caption in captions if isinstance(caption, str) and caption.strip())
    problem = None if texts else ImageError("list", "NoCaption", "no caption stands beside this image")
    if split is not None:
        known = _SPLITS.get(str(split).strip().lower(), "restval" if split == "restval" else None)
        if known is None:
            problem = ImageError("list", "NoSplit", f"expected a split of {', '.join(_SPLITS)}, found {split!r}")
        split = known or "train"
    return Listed(whole(image_id), tuple(map(whole, names)), texts, split, problem)


def normalised(name: str) -> str:
    """./a.jpg is a.jpg; a URI stays as it is."""
    return name if "://" in name else posixpath.normpath(name)


def whole(text: str) -> str:
    """JSON may hold halves of surrogate pairs, which no UTF-8 can; they become the replacement character."""
    return _LONE.sub("\ufffd", text)


def bad_row(number: int, expected: str) -> Listed:
    """A line that says nothing of any image."""
    return Listed(f"line {number}", (), problem=ImageError("list", "BadEntry", f"line {number}: {expected}"))


def open_binary(path: str) -> BinaryIO:
    """A captions file behind its byte order mark, as spreadsheets write one."""
    handle = files.open_binary(path)
    if handle.read(3) != b"\xef\xbb\xbf":
        handle.seek(0)
    return handle


@contextlib.contextmanager
def open_text(path: str, newline: str | None = None) -> Iterator[io.TextIOWrapper]:
    """A captions file as lines of UTF-8."""
    with open_binary(path) as handle, io.TextIOWrapper(handle, encoding="utf-8", newline=newline) as lines:
        yield lines
