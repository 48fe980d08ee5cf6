"""What people said of images, in COCO's or Karpathy's JSON, and COCO's lists of images: as streams, entry by entry."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import ijson

from tfrecords_schema.errors import InputError, reading
from tfrecords_schema.json_depth import shallow

BAD_ENTRY = "BadEntry"
_MARK = b"\xef\xbb\xbf"
_CHUNK_BYTES = 1 << 16
_LONGEST_TEXT = 1 << 24  # bytes
# Escapes from left to right; the last kind is a half that the pairs before it left over.
_ESCAPES = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\[^u]|(\\u[dD][89a-fA-F]..)")

OpenBinary = Callable[[str], BinaryIO]


class Problem(NamedTuple):
    """Why an entry cannot be used: a short name to count by, and what was found, for a person."""

    error: str
    message: str


NO_CAPTION = Problem("NoCaption", "no caption is of this image")
NOT_LISTED = " captions, but no image of this id"


@dataclasses.dataclass(frozen=True)
class Listed:
    """One image as a captions file lists it; where its captions do not stand together, a part of it.

    Attributes:
      id: as in the file (COCO's are whole numbers), or the file's name without its ending.
      names: of the file, the likeliest first, the shortest last; empty where the file tells none.
      captions: as given, without blank ones.
      split: as given; None where the file has no splits.
      problem: why the listing itself makes it unusable.
    """

    id: int | str
    names: tuple[str, ...]
    captions: tuple[str, ...] = ()
    split: Any = None
    problem: Problem | None = None


def make_listed(image_id: int | str, names: tuple[str, ...], captions: Iterable[str], split: Any = None) -> Listed:
    """A Listed without blank captions; one that has no others has a problem."""
    texts = tuple(caption for caption in captions if caption.strip())
    problem = None if texts else NO_CAPTION
    return Listed(image_id, names, texts, split, problem)


def is_id(value: Any) -> bool:
    """Whether a value can be an image's id: a whole number or a text."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value != "")


def read(path: str, open_binary: OpenBinary) -> Iterator[Listed]:
    """The images of a COCO or Karpathy captions file, in its order; entries that are broken have a problem.

    Args:
      open_binary: path -> a handle to read. The two sides of the project reach files by functions of their own, which
        raise OSError. The file is opened several times.

    Raises:
      InputError: it cannot be read or is none, naming the path.
    """
    if is_karpathy(path, open_binary):
        with _reading(path):
            yield from _read_karpathy(path, open_binary)
    else:
        yield from _join(read_coco(path, open_binary))


def is_karpathy(path: str, open_binary: OpenBinary) -> bool:
    """Whether a captions file is Karpathy's. Raises InputError as `read`."""
    with _reading(path):
        first = next(_stream(path, open_binary, "images.item"), None)
    return isinstance(first, dict) and "sentences" in first


def _reading(path: str) -> contextlib.AbstractContextManager[None]:
    return reading(path, "captions as COCO or Karpathy JSON", ijson.JSONError)


def read_images(path: str, open_binary: OpenBinary) -> Iterator[Listed]:
    """The images of a COCO JSON as `read` gives them, but without captions: `image_info_test2017.json` has none."""
    with reading(path, "a COCO JSON with a list 'images'", ijson.JSONError):
        _require_list(path, open_binary, "images", "a COCO JSON")
        for entry, problem in _entries(path, open_binary, "images", _COCO_IMAGE):
            yield problem or Listed(entry["id"], (entry["file_name"],))


# JSON as a stream.


class _Mended:
    """JSON behind its byte order mark, whose halves of surrogate pairs are U+FFFD: yajl would garble or refuse them."""

    def __init__(self, handle: BinaryIO):
        self._pieces = filter(None, shallow(_mended(handle)))

    def read(self, size: int) -> bytes:
        """The next piece, whatever its size, as ijson takes it too; 0 asks only for the type."""
        return next(self._pieces, b"") if size else b""


def _mended(handle: BinaryIO) -> Iterator[bytes]:
    held = handle.read(len(_MARK)).removeprefix(_MARK)
    while more := handle.read(_CHUNK_BYTES):
        before, quote, held = (held + more).rpartition(b'"')  # no escape goes on behind one
        if len(held) > _LONGEST_TEXT:
            raise ValueError(f"more than {_LONGEST_TEXT:,} bytes without a quotation mark")
        yield _ESCAPES.sub(_mend, before + quote)
    yield _ESCAPES.sub(_mend, held)


def _mend(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape[1] else escape[0]


def _stream(path: str, open_binary: OpenBinary, prefix: str) -> Iterator[Any]:
    """The JSON values under a prefix, one after the other."""
    with open_binary(path) as handle:
        yield from ijson.items(_Mended(handle), prefix, use_float=True)


def _require_list(path: str, open_binary: OpenBinary, key: str, expected: str) -> None:
    if next(_stream(path, open_binary, f"{key}.item"), None) is not None:
        return
    with open_binary(path) as handle:  # it may be empty
        if not any((prefix, event) == (key, "start_array") for prefix, event, _ in ijson.parse(_Mended(handle))):
            raise InputError(f"{path}: expected {expected} with a list {key!r}, found none")


# What an entry must have.

_Wanted = Mapping[str, Callable[[Any], bool]]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_COCO_IMAGE: _Wanted = {"id": is_id, "file_name": _is_text}
_COCO_ANNOTATION: _Wanted = {"image_id": is_id, "caption": _is_text}
_KARPATHY_IMAGE: _Wanted = {
    "filename": _is_text,
    "split": _is_text,
    "sentences": lambda value: isinstance(value, list),
    "filepath": lambda value: isinstance(value, str | None),
    "cocoid": lambda value: value is None or is_id(value),
}


def _misfit(where: str, entry: Any, wanted: _Wanted) -> Listed | None:
    """What is wrong with an entry."""
    for key, fits in wanted.items():
        if not isinstance(entry, dict) or not fits(entry.get(key)):
            message = f"{where}: expected an entry with {key!r}, found {json.dumps(entry)[:100]}"
            return Listed(where, (), problem=Problem(BAD_ENTRY, message))
    return None


# COCO (https://cocodataset.org/#format-data): images and annotations in two lists, in either order.


def read_coco(path: str, open_binary: OpenBinary) -> Iterator[Listed]:
    """What a COCO captions file holds, piece by piece; broken entries have a problem.

    First come captions, each with the id of its image and no name, then images without captions. Arguments and errors
    are those of `read`.
    """
    with _reading(path):
        for key in ("images", "annotations"):
            _require_list(path, open_binary, key, "a COCO captions JSON")
        for entry, problem in _entries(path, open_binary, "annotations", _COCO_ANNOTATION):
            yield problem or Listed(entry["image_id"], (), (entry["caption"],))
        for entry, problem in _entries(path, open_binary, "images", _COCO_IMAGE):
            yield problem or Listed(entry["id"], (entry["file_name"],))


def _entries(path: str, open_binary: OpenBinary, key: str, wanted: _Wanted) -> Iterator[tuple[Any, Listed | None]]:
    """Each entry of a list, and what is wrong with it."""
    for number, entry in enumerate(_stream(path, open_binary, f"{key}.item")):
        yield entry, _misfit(f"{key}[{number}]", entry, wanted)


def _join(pieces: Iterable[Listed]) -> Iterator[Listed]:
    captions: dict[str, list[str]] = {}
    listed: set[tuple[str, str]] = set()
    for piece in pieces:
        key = str(piece.id)
        if piece.problem:
            yield piece
        elif not piece.names:
            captions.setdefault(key, []).extend(piece.captions)
        elif (key, piece.names[0]) not in listed:  # else the very same entry again, whose captions must not count twice
            listed.add((key, piece.names[0]))
            yield make_listed(piece.id, piece.names, captions.get(key, ()))
    for key in sorted(captions.keys() - {key for key, _ in listed}):
        yield Listed(key, (), problem=Problem("NotListed", f"{len(captions[key])}{NOT_LISTED}"))


# Karpathy's splits (https://cs.stanford.edu/people/karpathy/deepimagesent/): dataset_{coco,flickr8k,flickr30k}.json.


def _read_karpathy(path: str, open_binary: OpenBinary) -> Iterator[Listed]:
    listed: set[tuple[str, tuple[str, ...]]] = set()
    for number, entry in enumerate(_stream(path, open_binary, "images.item")):
        where = f"images[{number}]"
        if problem := _misfit(where, entry, _KARPATHY_IMAGE):
            yield problem
            continue
        name, folder, coco_id = entry["filename"], entry.get("filepath"), entry.get("cocoid")
        names = (posixpath.join(folder, name), name) if folder else (name,)
        image_id = posixpath.splitext(name)[0] if coco_id is None else coco_id
        if (str(image_id), names) in listed:  # the very same entry again
            continue
        listed.add((str(image_id), names))
        captions = []
        for place, sentence in enumerate(entry["sentences"]):
            if problem := _misfit(f"{where}.sentences[{place}]", sentence, {"raw": _is_text}):
                yield problem
            else:
                captions.append(sentence["raw"])
        yield make_listed(image_id, names, captions, entry["split"])
