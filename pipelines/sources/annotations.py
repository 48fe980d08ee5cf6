"""Captions files -> what they list: COCO, Karpathy, Flickr8k, CSV and JSONL, told apart by their content.

All are streamed: of the largest only the captions are ever in memory, and of those that list one image's captions
together not even these.
"""

from __future__ import annotations

import itertools
import json
import posixpath
import re
from collections.abc import Callable, Iterator
from typing import Any

import ijson

from pipelines.items import ImageError
from pipelines.sources import caption_tables as tables
from pipelines.sources.listing import Listed, bad_row, make_listed, open_binary, open_text
from pipelines.storage import files, finding, paths
from tfrecords_schema.errors import InputError

_TOKEN = re.compile(r"^(?P<name>.+)#\d+\t(?P<caption>.*)$")
_EXPECTED = "captions as COCO or Karpathy JSON, Flickr8k tokens, or CSV or JSONL with image and caption"
_FLICKR8K_LISTS = {"train": "train", "dev": "val", "test": "test"}


def read(path: str) -> Iterator[Listed]:
    """The images of a captions file, in its order.

    Raises:
      InputError: there is no such file, or it is none of the known kinds.
    """
    try:
        yield from _reader(path)(path)
    except InputError:
        raise
    except (OSError, ValueError, ijson.JSONError) as error:
        raise InputError(f"{path}: expected {_EXPECTED}, found what cannot be read: {_one_line(error)}") from None


def is_table(path: str) -> bool:
    """Whether a captions file is CSV or JSONL, whose images may be whole paths. Raises InputError as `read`."""
    return _reader(path) in (tables.read_csv, tables.read_jsonl)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()[:12]) or type(error).__name__


def _reader(path: str) -> Callable[[str], Iterator[Listed]]:
    if not files.exists(path) or (paths.is_local(path) and finding.is_directory(path)):
        raise InputError(f"expected {_EXPECTED}, found no file at {path}")
    with open_binary(path) as handle:
        first = handle.read(1 << 20).decode("utf-8", "replace").lstrip().partition("\n")[0].rstrip()
    if first.startswith(("{", "[")):
        return tables.read_jsonl if tables.is_jsonl(first) else _json_reader(path)
    if _TOKEN.match(first):
        return _read_flickr8k
    if tables.is_csv(first):
        return tables.read_csv
    raise InputError(f"{path}: expected {_EXPECTED}, found a file that begins with {first[:60]!r}")


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
    with open_binary(path) as handle:
        yield from ijson.items(handle, prefix, use_float=True)


def _has_list(path: str, key: str) -> bool:
    with open_binary(path) as handle:
        return any((prefix, event) == (key, "start_array") for prefix, event, _ in ijson.parse(handle))


def _read_coco(path: str) -> Iterator[Listed]:
    captions: dict[str, list[str]] = {}
    for number, entry in enumerate(_stream(path, "annotations.item")):
        if problem := _misfit("annotations", number, entry, {"image_id": (int, str), "caption": str}):
            yield problem
        else:
            captions.setdefault(str(entry["image_id"]), []).append(entry["caption"])
    listed: set[tuple[str, str]] = set()
    for number, entry in enumerate(_stream(path, "images.item")):
        if problem := _misfit("images", number, entry, {"id": (int, str), "file_name": str}):
            yield problem
            continue
        image_id, name = str(entry["id"]), entry["file_name"]
        if (image_id, name) in listed:  # the very same entry again, whose captions must not count twice
            continue
        listed.add((image_id, name))
        found = tuple(captions.get(image_id, ()))
        none = None if found else ImageError("list", "NoCaption", "no annotation names this image")
        yield Listed(image_id, (name,), found, problem=none)
    for image_id in sorted(captions.keys() - {image_id for image_id, _ in listed}):
        message = f"{len(captions[image_id])} captions, but no image of this id"
        yield Listed(image_id, (), problem=ImageError("list", "NotListed", message))


def read_images(path: str) -> Iterator[Listed]:
    """The images of a COCO JSON, which needs no annotations: `image_info_test2017.json`.

    Raises:
      InputError: it is none.
    """
    try:
        if next(_stream(path, "images.item"), None) is None and not _has_list(path, "images"):
            raise InputError(f"{path}: expected a COCO JSON with a list 'images', found none")
        for number, entry in enumerate(_stream(path, "images.item")):
            wanted = {"id": (int, str), "file_name": str}
            yield _misfit("images", number, entry, wanted) or Listed(str(entry["id"]), (entry["file_name"],))
    except (OSError, ValueError, ijson.JSONError) as error:
        expected = "a COCO JSON with a list 'images'"
        raise InputError(f"{path}: expected {expected}, found what cannot be read: {_one_line(error)}") from None


def _misfit(where: str, number: int, entry: Any, wanted: dict[str, Any]) -> Listed | None:
    """What is wrong with an entry."""
    for key, types in wanted.items():
        if not isinstance(entry, dict) or not isinstance(entry.get(key), types):
            message = f"{where}[{number}]: expected an entry with {key!r}, found {json.dumps(entry)[:100]}"
            return Listed(f"{where}[{number}]", (), problem=ImageError("list", "BadEntry", message))
    return None


# Karpathy's splits (https://cs.stanford.edu/people/karpathy/deepimagesent/): dataset_{coco,flickr8k,flickr30k}.json.


def _read_karpathy(path: str) -> Iterator[Listed]:
    listed: set[tuple[str, tuple[str, ...]]] = set()
    for number, entry in enumerate(_stream(path, "images.item")):
        wanted = {"filename": str, "split": str, "sentences": list, "filepath": (str, type(None))}
        if problem := _misfit("images", number, entry, wanted):
            yield problem
            continue
        name, folder, coco_id = entry["filename"], entry.get("filepath"), entry.get("cocoid")
        names = (posixpath.join(folder, name), name) if folder else (name,)
        image_id = posixpath.splitext(name)[0] if coco_id is None else str(coco_id)
        if (image_id, names) not in listed:  # else the very same entry again
            listed.add((image_id, names))
            raw = [sentence.get("raw") for sentence in entry["sentences"] if isinstance(sentence, dict)]
            yield make_listed(image_id, names, raw, entry["split"])


# Flickr8k (Hodosh et al. 2013): `name.jpg#0<tab>caption`; which images are whose, in lists beside it.


def _read_flickr8k(path: str) -> Iterator[Listed]:
    splits = _flickr8k_splits(posixpath.dirname(path))
    with open_text(path) as lines:
        matches = ((number, _TOKEN.match(line.rstrip("\r\n"))) for number, line in enumerate(lines, 1))
        for name, group in itertools.groupby(matches, lambda found: found[1] and found[1]["name"]):
            if name is None:
                for number, _ in group:
                    yield bad_row(number, "expected `name.jpg#0<tab>caption`")
                continue
            split = None if splits is None else splits.get(name, "")
            captions = tuple(match["caption"] for _, match in group)
            yield make_listed(posixpath.splitext(name)[0], (name,), captions, split)


def _flickr8k_splits(directory: str) -> dict[str, str] | None:
    """The split of each name; None where there are no lists."""
    splits: dict[str, str] = {}
    for kind, split in _FLICKR8K_LISTS.items():
        text = files.read_text(paths.join(directory, f"Flickr_8k.{kind}Images.txt"))
        splits.update(dict.fromkeys((text or "").split(), split))
    return splits or None
