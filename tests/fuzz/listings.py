"""Readers of what lists images: captions files, tables, zip and tar files; each image is then read and decoded too."""

from __future__ import annotations

import csv
import io
import json
import pathlib
import posixpath
import re
import tarfile
import zipfile
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.items import ImageError, Item
from pipelines.listing.catalogue import Source
from pipelines.sources.captioned_images import CaptionedImages, CaptionFile
from pipelines.sources.image_files import has_image_ending
from pipelines.sources.image_sets import ImageSets
from pipelines.vision import reading
from pipelines.vision.images import decode
from tests.fuzz.oracle import Seen
from tests.support.listing import listed
from tfrecords_schema.storage.finding import is_hidden

_MOST_PIXELS = 20_000_000


def captions(given: pathlib.Path, _: pathlib.Path) -> Seen:
    """A captions file of `pipelines.features`, beside the directory of its images."""
    path = target(given, ".json", ".csv", ".jsonl")
    counted = {".json": _json_entries, ".csv": _csv_names, ".jsonl": _line_names}[path.suffix](path)
    return _seen(CaptionedImages((CaptionFile(str(path), (str(given / "images"),)),)), counted)


def images(given: pathlib.Path, _: pathlib.Path, *names: str) -> Seen:
    """Tables, COCO JSONs, zip and tar files that are given as --images."""
    counts = {".json": _json_entries, ".csv": _csv_names, ".jsonl": _line_names, ".parquet": _rows, ".zip": _members}
    counts[".tar"] = _keys
    paths = [given / name for name in names]
    return _seen(ImageSets(tuple(map(str, paths))), sum(counts[path.suffix](path) for path in paths))


def tar_captions(given: pathlib.Path, _: pathlib.Path) -> Seen:
    """A tar shard whose captions are a field of its JSON."""
    path = given / "tars/0.tar"
    return _seen(CaptionedImages((CaptionFile(str(path), (), field="said"),)), _keys(path))


def target(given: pathlib.Path, *endings: str) -> pathlib.Path:
    """The only file directly below of these endings, also where it is gone."""
    found = [path for path in given.iterdir() if path.suffix in endings]
    return found[0] if found else given / f"gone{endings[0]}"


def _is_good(item: Item) -> bool:
    """Whether an image of a listing becomes pixels; otherwise it is a reject."""
    if item.problem:
        return False
    try:
        decode(reading.read(item.uri, retries=0), 32, _MOST_PIXELS)
    except ImageError:
        return False
    return True


def _seen(source: Source, least: int) -> Seen:
    items = listed(source)
    rows = sum(map(_is_good, items))
    return Seen(rows, len(items) - rows, least)


# Independent counts: with Python's own readers, of entries that differ in name.


def _counting(count: Callable[[pathlib.Path], int]) -> Callable[[pathlib.Path], int]:
    """0 for what cannot be read."""

    def counted(path: pathlib.Path) -> int:
        try:
            return count(path)
        except (
            *(AttributeError, KeyError, NotImplementedError, OSError, RecursionError, TypeError, ValueError),
            *(csv.Error, pa.ArrowException, tarfile.TarError, zipfile.BadZipFile),
            MemoryError,  # Python's tarfile makes room for all that a header claims
        ):
            return 0

    return counted


@_counting
def _json_entries(path: pathlib.Path) -> int:
    entries = json.loads(path.read_text("utf-8-sig"))["images"]
    return len({(str(e.get("id", e.get("cocoid"))), e.get("file_name", e.get("filename"))) for e in entries})


@_counting
def _csv_names(path: pathlib.Path) -> int:
    rows = csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""), strict=True)
    return _differing([row.get("image") or row.get("file_name") for row in rows])


@_counting
def _line_names(path: pathlib.Path) -> int:
    rows = [json.loads(line) for line in path.read_text("utf-8-sig").split("\n") if line.strip()]
    return _differing([row.get("image") or row.get("file_name") for row in rows])


def _differing(names: list[object]) -> int:
    return len({posixpath.normpath(name.strip()) for name in names if isinstance(name, str) and name.strip()})


@_counting
def _rows(path: pathlib.Path) -> int:
    return pq.read_table(path).num_rows


@_counting
def _members(path: pathlib.Path) -> int:
    with zipfile.ZipFile(path) as found:
        names = {name for name in found.namelist() if has_image_ending(name) and "__MACOSX" not in name}
    names = {name for name in names if not is_hidden(name)}
    return len({posixpath.normpath(name) for name in names})


@_counting
def _keys(path: pathlib.Path) -> int:
    """Those of images; ones whose names are odd may not be counted, as others group them otherwise."""
    with tarfile.open(path) as found:
        names = [info.name for info in found if info.isreg() and info.type != tarfile.GNUTYPE_SPARSE]
    keys = {name.partition(".")[0] for name in names if re.fullmatch(r"(?i)[^./_][^./]*\.jpg", name)}
    return len(keys)
