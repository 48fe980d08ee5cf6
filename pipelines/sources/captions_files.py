"""Captions files of every kind -> what they list: COCO, Karpathy, Flickr8k, CSV and JSONL, told apart by their content.

All are streamed into tables of a catalogue: none is ever in memory.
"""

from __future__ import annotations

import dataclasses
import itertools
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import pyarrow as pa

from pipelines.listing.catalogue import CHUNK, Catalogue, open_catalogue
from pipelines.listing.entries import texts, unescape
from pipelines.sources import caption_tables, drafts
from pipelines.sources.image_ids import learn_names
from tfrecords_schema import captions_json
from tfrecords_schema.captions_json import NO_CAPTION, NOT_LISTED, Listed, Problem, make_listed
from tfrecords_schema.errors import InputError, blaming, reading
from tfrecords_schema.matching import match
from tfrecords_schema.storage import files, finding, paths
from tfrecords_schema.text import shortened
from tfrecords_schema.vocabulary import tokenise

Key = TypeVar("Key")

_TOKEN = re.compile(r"^(?P<name>.+)#\d+\t(?P<caption>.*)$")
_EXPECTED = "captions as COCO or Karpathy JSON, Flickr8k tokens, or CSV or JSONL with image and caption"
_COLUMN = re.compile(r"[\w -]{1,40}")  # what looks like the name of a column, and not like a file's or a sentence
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_FLICKR8K_LISTS = {"train": "train", "dev": "val", "test": "test"}
_PIECES = pa.schema([("number", pa.int64()), *((name, pa.string()) for name in ("id", "name", "caption"))])
_PIECES = pa.schema([*_PIECES, ("error", pa.string()), ("message", pa.string())])
_PIECES_AT_ONCE = 1_000_000
_BROKEN = """
    SELECT {place} AS place, number, id, [] AS captions, error, message FROM pieces WHERE error IS NOT NULL
"""
_JOINED = f"""
    WITH said AS (
        SELECT id, list(caption ORDER BY number) FILTER (caption IS NOT NULL) AS captions, count(*) AS times,
          min(number) AS number
        FROM pieces WHERE {{part}} AND name IS NULL GROUP BY id
    ), pictured AS (  -- each once: captions of an entry that is there twice must not count twice
        SELECT id, name, min(number) AS number FROM pieces WHERE {{part}} AND name IS NOT NULL GROUP BY id, name
    )
    SELECT {{place}} AS place, pictured.number, id, name, coalesce(captions, []) AS captions,
      CASE WHEN captions IS NULL THEN '{NO_CAPTION.error}' END AS error,
      CASE WHEN captions IS NULL THEN '{NO_CAPTION.message}' END AS message
    FROM pictured LEFT JOIN said USING (id)
    UNION ALL BY NAME
    SELECT {{place}} AS place, number, id, [] AS captions, 'NotListed' AS error, times || '{NOT_LISTED}' AS message
    FROM said ANTI JOIN pictured USING (id)
"""
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}


def read(path: str) -> Iterator[Listed]:
    """The images of a captions file, in its order: ids as text, splits train, val, test, restval or None.

    Raises:
      InputError: there is no such file, or it is none of the known kinds.
    """
    with open_catalogue() as catalogue:
        drafts.begin(catalogue)
        list_file(catalogue, path)
        rows = catalogue.database.execute(
            "SELECT coalesce(id, id_of(name)), name, short, captions, split, error, message FROM drafts ORDER BY number"
        )
        while found := rows.fetchmany(CHUNK):
            for image_id, name, short, captions, split, error, message in found:
                names = tuple(unescape(one) for one in (name, short) if one is not None)
                problem = None if error is None else Problem(error, unescape(message))
                yield Listed(unescape(image_id), names, tuple(map(unescape, captions)), split, problem)


def find_references(
    path: str, images: Iterable[tuple[Key, str, str]], where: str
) -> tuple[dict[Key, tuple[str, ...]], int]:
    """(What a captions file says of some images, by what stands for these; how many images there are).

    An image finds its captions as in trainer.evaluate, see `tfrecords_schema.matching`; one that fits several entries,
    or shares its entry with another image, finds none.

    Args:
      path: a captions file of any kind, the flag --references.
      images: (anything that stands for it, its id, its URI or "") of each.
      where: they are from, for the message.

    Raises:
      InputError: it is no captions file, or has captions of none of them.
    """
    said: dict[str, tuple[str, ...]] = {}
    names: dict[str, str] = {}
    with blaming("--references"):
        for listed in read(path):
            if texts := tuple(filter(tokenise, listed.captions)):
                image_id = str(listed.id)
                said[image_id] = said.get(image_id, ()) + texts
                names.setdefault(image_id, listed.names[0])
    matched = match(images, names)
    found = {key: said[image_id] for image_id, key in matched.predictions.items()}
    if not found:
        example = next(iter(said), "none")
        raise InputError(
            f"--references: expected captions of the images in {where}, found none in {path}: it is of images such "
            f"as {example!r}; match them by id or by file name"
        )
    return found, len(found) + matched.without_references + matched.ambiguous


def list_file(catalogue: Catalogue, path: str, place: int = 0) -> None:
    """Adds the images of a captions file to the table `drafts`, and makes the macro `id_of` for those without an id.

    Splits and errors are those of `read`.
    """
    with reading(path, _EXPECTED):
        reader = _reader(path)
        if reader is _read_json and not captions_json.is_karpathy(path, files.open_binary):
            _list_coco(catalogue, path, place)
        else:
            # Images in JSON have ids of their own, or names that all end alike (Flickr30k's).
            catalogue.fill("drafts", _drafts(reader(path), place, named=reader is not _read_json))
    learn_names(catalogue, f"SELECT name FROM drafts WHERE place = {place} AND id IS NULL")


def _drafts(listed: Iterator[Listed], place: int, named: bool) -> Iterator[pa.Table]:
    for start, chunk in chunks(map(_in_our_words, listed)):
        problems = [one.problem or (None, None) for one in chunk]
        columns: dict[str, Any] = {
            "id": [None if named and one.names else str(one.id) for one in chunk],
            "name": [one.names[0] if one.names else None for one in chunk],
            "short": [one.names[-1] if len(one.names) > 1 else None for one in chunk],
            "split": [one.split for one in chunk],
            "captions": drafts.texts_of_each([one.captions for one in chunk]),
            "error": [error for error, _ in problems],
            "message": [message for _, message in problems],
        }
        yield drafts.batch(place, range(start, start + len(chunk)), columns)


def _list_coco(catalogue: Catalogue, path: str, place: int) -> None:
    """Captions and images stand apart: both become tables, which are joined a part at a time, as memory is limited."""
    catalogue.create("pieces", _PIECES)
    catalogue.fill("pieces", _pieces(captions_json.read_coco(path, files.open_binary)))
    catalogue.run(f"INSERT INTO drafts BY NAME {_BROKEN.format(place=place)}")
    (count,) = catalogue.run("SELECT count(*) FROM pieces")[0]
    parts = 1 + count // _PIECES_AT_ONCE
    for part in range(parts):
        one = f"error IS NULL AND hash(id) % {parts} = {part}"
        catalogue.run(f"INSERT INTO drafts BY NAME {_JOINED.format(place=place, part=one)}")
    catalogue.run("DROP TABLE pieces")


def _pieces(listed: Iterator[Listed]) -> Iterator[pa.Table]:
    for start, chunk in chunks(listed):
        problems = [one.problem or (None, None) for one in chunk]
        columns = [
            texts([str(one.id) for one in chunk]),
            texts([one.names[0] if one.names else None for one in chunk]),
            texts([one.captions[0] if one.captions and one.captions[0].strip() else None for one in chunk]),
            texts([error for error, _ in problems]),
            texts([message for _, message in problems]),
        ]
        yield pa.table([pa.array(range(start, start + len(chunk))), *columns], schema=_PIECES)


def check(path: str) -> None:
    """Raises InputError as `read` does, by what the file begins with: before anything else takes long."""
    with reading(path, _EXPECTED):
        _reader(path)


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
    raise _unknown(path, first)


def _unknown(path: str, first: str) -> InputError:
    """What is said of a file by its first line: of one that is a table, which columns it has and which it should."""
    separator = max(_SEPARATORS, key=first.count)
    names = [name.strip(' "') for name in first.split(separator)]
    is_named_so = bool(first) and path.lower().endswith((".csv", ".tsv"))
    if not is_named_so and (len(names) < 2 or not all(map(_COLUMN.fullmatch, names))):
        return InputError(f"{path}: expected {_EXPECTED}, found a file that begins with {first[:60]!r}")
    has_commas = separator == ","
    ways = [] if has_commas else ["write it with commas"]
    if not {"image", "caption"} <= set(names):
        ways.append("rename them in the first line")
    return InputError(
        f"{path}: expected the columns image and caption (split is optional){'' if has_commas else ', with commas'}, "
        f"found {shortened(', '.join(names), 80)}{'' if has_commas else f', with {_SEPARATORS[separator]}'}; "
        f"{' and '.join(ways)}"
    )


def chunks(listed: Iterable[Listed]) -> Iterator[tuple[int, list[Listed]]]:
    """(number of the first, some that follow each other)."""
    remaining, start = iter(listed), 0
    while chunk := list(itertools.islice(remaining, CHUNK)):
        yield start, chunk
        start += len(chunk)


def _in_our_words(listed: Listed) -> Listed:
    split, problem = listed.split, listed.problem
    if split is not None:
        split = _SPLITS.get(str(split).strip().lower(), "restval" if split == "restval" else None)
        if split is None:
            message = f"expected a split of {', '.join(_SPLITS)}, found {listed.split!r}"
            split, problem = "train", Problem("NoSplit", message)
    return listed if listed.split is None else dataclasses.replace(listed, split=split, problem=problem)


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
