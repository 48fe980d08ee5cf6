"""Captions files -> what they list: COCO, Karpathy, Flickr8k, CSV and JSONL, told apart by their content.

All are streamed: of the largest only the captions are ever in memory, and of those that list one image's captions
together not even these.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
import json
import posixpath
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import ijson

from pipelines import files
from pipelines.rejects import ImageError
from tfrecords_schema.errors import InputError

_LONE = re.compile("[\ud800-\udfff]")
_TOKEN = re.compile(r"^(?P<name>.+)#\d+\t(?P<caption>.*)$")
_EXPECTED = "captions as COCO or Karpathy JSON, Flickr8k tokens, or CSV or JSONL with image and caption"
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
_FLICKR8K_LISTS = {"train": "train", "dev": "val", "test": "test"}


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


def read(path: str) -> Iterator[Listed]:
    """The images of a captions file, in its order.

    Raises:
      InputError: there is no such file, or it is none of the known kinds.
    """
    try:
        yield from _reader(path)(path)
    except InputError:
        raise
    except (OSError, ValueError, csv.Error, ijson.JSONError) as error:
        raise InputError(f"{path}: expected {_EXPECTED}, found what cannot be read: {_one_line(error)}") from None


def is_table(path: str) -> bool:
    """Whether a captions file is CSV or JSONL, whose images may be whole paths. Raises InputError as `read`."""
    return _reader(path) in (_read_csv, _read_jsonl)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()[:12]) or type(error).__name__


def _reader(path: str) -> Callable[[str], Iterator[Listed]]:
    if not files.exists(path) or (files.is_local(path) and files.is_directory(path)):
        raise InputError(f"captions file: expected {_EXPECTED}, found no file at {path}")
    with _open(path) as handle:
        first = handle.readline(1 << 20).decode("utf-8", "replace").strip()
    if first.startswith(("{", "[")):
        return _read_jsonl if _is_row(first) else _json_reader(path)
    if _TOKEN.match(first):
        return _read_flickr8k
    if {"image", "caption"} <= {column.strip() for column in first.split(",")}:
        return _read_csv
    raise InputError(f"{path}: expected {_EXPECTED}, found a file that begins with {first[:60]!r}")


def _open(path: str) -> BinaryIO:
    handle = files.open_binary(path)
    if handle.read(3) != b"\xef\xbb\xbf":  # a byte order mark, as spreadsheets write it
        handle.seek(0)
    return handle


# COCO (https://cocodataset.org/#format-data): images and annotations in two lists, in either order.


def _json_reader(path: str) -> Callable[[str], Iterator[Listed]]:
    first = next(_stream(path, "images.item"), None)
    if isinstance(first, dict) and "sentences" in first:
        return _read_karpathy
    for key in ("images", "annotations"):
        if next(_stream(path, f"{key}.item"), None) is None and not _has_list(path, key):
            raise InputError(f"{path}: expected a COCO captions JSON with a list {key!r}, found none")
    return _read_coco


def _stream(path: str, prefix: str) -> Iterator[Any]:
    """The JSON values under a prefix, one after the other."""
    with _open(path) as handle:
        yield from ijson.items(handle, prefix, use_float=True)


def _has_list(path: str, key: str) -> bool:
    with _open(path) as handle:
        return any((prefix, event) == (key, "start_array") for prefix, event, _ in ijson.parse(handle))


def _read_coco(path: str) -> Iterator[Listed]:
    captions: dict[str, list[str]] = {}
    for number, entry in enumerate(_stream(path, "annotations.item")):
        if problem := _misfit("annotations", number, entry, {"image_id": (int, str), "caption": str}):
            yield problem
        else:
            captions.setdefault(str(entry["image_id"]), []).append(entry["caption"])
    listed = set()
    for number, entry in enumerate(_stream(path, "images.item")):
        if problem := _misfit("images", number, entry, {"id": (int, str), "file_name": str}):
            yield problem
            continue
        image_id = str(entry["id"])
        found = tuple(captions.get(image_id, ()))
        listed.add(image_id)
        none = None if found else ImageError("list", "NoCaption", "no annotation names this image")
        yield Listed(image_id, (entry["file_name"],), found, problem=none)
    for image_id in sorted(captions.keys() - listed):
        message = f"{len(captions[image_id])} captions, but no image of this id"
        yield Listed(image_id, (), problem=ImageError("list", "NotListed", message))


def _misfit(where: str, number: int, entry: Any, wanted: dict[str, Any]) -> Listed | None:
    """What is wrong with an entry."""
    for key, types in wanted.items():
        if not isinstance(entry, dict) or not isinstance(entry.get(key), types):
            message = f"{where}[{number}]: expected an entry with {key!r}, found {json.dumps(entry)[:100]}"
            return Listed(f"{where}[{number}]", (), problem=ImageError("list", "BadEntry", message))
    return None


# Karpathy's splits (https://cs.stanford.edu/people/karpathy/deepimagesent/): dataset_{coco,flickr8k,flickr30k}.json.


def _read_karpathy(path: str) -> Iterator[Listed]:
    for number, entry in enumerate(_stream(path, "images.item")):
        if problem := _misfit("images", number, entry, {"filename": str, "split": str, "sentences": list}):
            yield problem
            continue
        name = entry["filename"]
        names = (posixpath.join(entry["filepath"], name), name) if entry.get("filepath") else (name,)
        raw = [sentence.get("raw") for sentence in entry["sentences"] if isinstance(sentence, dict)]
        yield _row(str(entry.get("cocoid", posixpath.splitext(name)[0])), names, raw, entry["split"])


# Flickr8k (Hodosh et al. 2013): `name.jpg#0<tab>caption`; which images are whose, in lists beside it.


def _read_flickr8k(path: str) -> Iterator[Listed]:
    splits = _flickr8k_splits(posixpath.dirname(path))
    with _text(path) as lines:
        matches = ((number, _TOKEN.match(line.rstrip("\r\n"))) for number, line in enumerate(lines, 1))
        for name, group in itertools.groupby(matches, lambda found: found[1] and found[1]["name"]):
            if name is None:
                for number, _ in group:
                    yield _bad_row(number, "expected `name.jpg#0<tab>caption`")
                continue
            split = None if splits is None else splits.get(name, "")
            captions = tuple(match["caption"] for _, match in group)
            yield _row(posixpath.splitext(name)[0], (name,), captions, split)


def _flickr8k_splits(directory: str) -> dict[str, str] | None:
    """The split of each name; None where there are no lists."""
    splits: dict[str, str] = {}
    for kind, split in _FLICKR8K_LISTS.items():
        text = files.read_text(files.join(directory, f"Flickr_8k.{kind}Images.txt"))
        splits.update(dict.fromkeys((text or "").split(), split))
    return splits or None


# Tables: image, caption and, if there is one, split.


def _read_csv(path: str) -> Iterator[Listed]:
    with _text(path, newline="") as lines:
        reader = csv.DictReader(lines, skipinitialspace=True)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        # Too few or too many columns: a comma in a caption that is not in quotes would cut it short.
        yield from _join((reader.line_num, None if None in (*row, *row.values()) else row) for row in reader)


def _read_jsonl(path: str) -> Iterator[Listed]:
    with _text(path) as lines:
        yield from _join((number, _loads(line)) for number, line in enumerate(lines, 1) if line.strip())


def _loads(line: str) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(line)
    return None


def _is_row(line: str) -> bool:
    row = _loads(line)
    return isinstance(row, dict) and "image" in row and "caption" in row


def _join(rows: Iterator[tuple[int, Any]]) -> Iterator[Listed]:
    """Rows -> one Listed for rows of one image that follow each other."""

    def key(numbered: tuple[int, Any]) -> tuple[str, str | None] | None:
        row = numbered[1]
        good = isinstance(row, dict) and isinstance(row.get("image"), str) and row["image"].strip()
        return (row["image"].strip(), row.get("split")) if good else None

    for found, group in itertools.groupby(rows, key):
        if found is None:
            for number, _ in group:
                yield _bad_row(number, "expected an image and a caption, and no other columns than the first line's")
            continue
        name, split = found
        yield _row(posixpath.splitext(name)[0], (name,), [row.get("caption") for _, row in group], split)


def _row(image_id: str, names: tuple[str, ...], captions: Any, split: Any) -> Listed:
    """A Listed whose captions and split are checked."""
    texts = tuple(_whole(caption) for caption in captions if isinstance(caption, str) and caption.strip())
    problem = None if texts else ImageError("list", "NoCaption", "no caption stands beside this image")
    if split is not None:
        known = _SPLITS.get(str(split).strip().lower(), "restval" if split == "restval" else None)
        if known is None:
            problem = ImageError("list", "NoSplit", f"expected a split of {', '.join(_SPLITS)}, found {split!r}")
        split = known or "train"
    return Listed(_whole(image_id), tuple(map(_whole, names)), texts, split, problem)


def _whole(text: str) -> str:
    """JSON may hold halves of surrogate pairs, which no UTF-8 can; they become the replacement character."""
    return _LONE.sub("\ufffd", text)


def _bad_row(number: int, expected: str) -> Listed:
    return Listed(f"line {number}", (), problem=ImageError("list", "BadEntry", f"line {number}: {expected}"))


@contextlib.contextmanager
def _text(path: str, newline: str | None = None) -> Iterator[io.TextIOWrapper]:
    with _open(path) as handle, io.TextIOWrapper(handle, encoding="utf-8", newline=newline) as lines:
        yield lines
