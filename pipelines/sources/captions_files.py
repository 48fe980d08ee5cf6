"""Captions files of every kind -> what they list: COCO, Karpathy, Flickr8k, CSV and JSONL, told apart by their content.

All are streamed: of the largest only the captions are ever in memory, and of those that list one image's captions
together not even these.
"""

from __future__ import annotations

import dataclasses
import itertools
import posixpath
import re
from collections.abc import Callable, Iterator

from pipelines.sources import caption_tables
from pipelines.sources.image_ids import NamedIds
from tfrecords_schema import captions_json
from tfrecords_schema.captions_json import Listed, Problem, make_listed
from tfrecords_schema.errors import InputError, reading
from tfrecords_schema.storage import files, finding, paths

_TOKEN = re.compile(r"^(?P<name>.+)#\d+\t(?P<caption>.*)$")
_EXPECTED = "captions as COCO or Karpathy JSON, Flickr8k tokens, or CSV or JSONL with image and caption"
_FLICKR8K_LISTS = {"train": "train", "dev": "val", "test": "test"}
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}


def read(path: str) -> Iterator[Listed]:
    """The images of a captions file, in its order: ids as text, splits train, val, test, restval or None.

    What is not JSON is read twice: ids are names there, and at first those are looked for that only endings tell apart.

    Raises:
      InputError: there is no such file, or it is none of the known kinds.
    """
    with reading(path, _EXPECTED):
        reader = _reader(path)
        ids = None
        if reader is not _read_json:  # whose images have ids of their own, or names that all end alike (Flickr30k's)
            ids = NamedIds(listed.names[-1] for listed in reader(path) if _is_called_by_name(listed))
        for listed in reader(path):
            if ids and _is_called_by_name(listed):
                listed = dataclasses.replace(listed, id=ids(listed.names[-1]))
            yield _in_our_words(listed)


def _is_called_by_name(listed: Listed) -> bool:
    """Whether an image's id is its file's name without the ending."""
    return bool(listed.names) and listed.id == posixpath.splitext(listed.names[-1])[0]


def is_table(path: str) -> bool:
    """Whether a captions file is CSV or JSONL, whose images may be whole paths. Raises InputError as `read`."""
    return _reader(path) in (caption_tables.read_csv, caption_tables.read_jsonl)


def _reader(path: str) -> Callable[[str], Iterator[Listed]]:
    if not files.exists(path) or (paths.is_local(path) and finding.is_directory(path)):
        raise InputError(f"expected {_EXPECTED}, found no file at {path}")
    with files.open_binary(path) as handle:
        first = handle.read(1 << 20).decode("utf-8-sig", "replace").lstrip().partition("\n")[0].rstrip()
    if first.startswith(("{", "[")):
        return caption_tables.read_jsonl if caption_tables.is_jsonl(first) else _read_json
    if _TOKEN.match(first):
        return _read_flickr8k
    if caption_tables.is_csv(first):
        return caption_tables.read_csv
    raise InputError(f"{path}: expected {_EXPECTED}, found a file that begins with {first[:60]!r}")


def _in_our_words(listed: Listed) -> Listed:
    split, problem = listed.split, listed.problem
    if split is not None:
        split = _SPLITS.get(str(split).strip().lower(), "restval" if split == "restval" else None)
        if split is None:
            message = f"expected a split of {', '.join(_SPLITS)}, found {listed.split!r}"
            split, problem = "train", Problem("NoSplit", message)
    return dataclasses.replace(listed, id=str(listed.id), split=split, problem=problem)


def _read_json(path: str) -> Iterator[Listed]:
    return captions_json.read(path, files.open_binary)


# Flickr8k (Hodosh et al. 2013): `name.jpg#0<tab>caption`; which images are whose, in lists beside it.


def _read_flickr8k(path: str) -> Iterator[Listed]:
    splits = _flickr8k_splits(posixpath.dirname(path))
    with files.open_text(path) as lines:
        matches = ((number, _TOKEN.match(line.rstrip("\r\n"))) for number, line in enumerate(lines, 1))
        for name, group in itertools.groupby(matches, lambda found: found[1] and found[1]["name"]):
            if name is None:
                for number, _ in group:
                    yield caption_tables.bad_row(number, "expected `name.jpg#0<tab>caption`")
                continue
            split = None if splits is None else splits.get(name, "")
            captions = [match["caption"] for _, match in group if match]
            yield make_listed(posixpath.splitext(name)[0], (name,), captions, split)


def _flickr8k_splits(directory: str) -> dict[str, str] | None:
    """The split of each name; None where there are no lists."""
    splits: dict[str, str] = {}
    for kind, split in _FLICKR8K_LISTS.items():
        text = files.read_text(paths.join(directory, f"Flickr_8k.{kind}Images.txt"))
        splits.update(dict.fromkeys((text or "").split(), split))
    return splits or None
