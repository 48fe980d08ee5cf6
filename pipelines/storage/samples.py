"""WebDataset's samples: files of one name that stand next to each other, one of them the image, others its texts.

`0017.jpg 0017.txt 0017.json` is one sample with the key `0017`, as https://github.com/webdataset/webdataset groups the
members of a tar file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from pipelines.items import ImageError
from tfrecords_schema.text import shortened

JSON = "json"
_MOST_TEXT_BYTES = 1 << 20
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_META = re.compile(r"(__[^/]*__|__MACOSX)($|/)")  # WebDataset's own, and what macOS puts beside each file
# What WebDataset stores beside images. A sample with one further member, of whatever ending, has it for its image.
_NO_IMAGES = re.compile(
    "txt|text|transcript|caption|cls2?|class|count|index|inx|id|jso?n|jsonl|[ct]sv|xml|html|md|ya?ml|toml|pyd|pickle|"
    "pkl|pth?|safetensors|np[yz]|ten|tb|mp|msg|cbor|h5|mp[34]|avi|mov|mkv|webm|wav|flac|ogg|m4a|srt|vtt"
)


class Part(Protocol):
    """A file of a sample: its name, with folders; its bytes; what it is where it is no file ("a link")."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def kind(self) -> str: ...


Parts = Iterable[tuple[Any, Callable[[int], bytes]]]  # Parts, each with a function that reads so many bytes of it


class Sample(NamedTuple):
    """One sample.

    Attributes:
      key: its name without endings.
      part: the image, else the first of its files.
      texts: those that were asked for, by their endings.
      problem: why it cannot be used.
    """

    key: str
    part: Any
    texts: dict[str, str]
    problem: ImageError | None


def key_and_ending(name: str) -> tuple[str, str] | None:
    """(key, ending) of a name: both are parted by the first dot behind the last slash. None for what is passed over."""
    match = _NAME.fullmatch(name)
    return (match[1], match[2].lower()) if match and not _META.match(name) else None


class Grouping:
    """How samples are made of files.

    Args:
      is_image: whether a file's name tells that it is an image.
      image: the ending of the images; by default it is found for each sample.
      texts: endings of texts that are wanted. If one is not among a sample's files, so is its `.json`.
    """

    def __init__(self, is_image: Callable[[str], bool], image: str | None = None, texts: Iterable[str] = ()):
        self._is_image, self._image, self._wanted = is_image, image and image.lower(), frozenset(texts)

    def samples(self, parts: Parts) -> Iterator[Sample]:
        """The samples in the order of their files. A file that is there twice begins another sample of the same key."""
        key, fields, texts, problem = "", dict[str, Any](), dict[str, str](), None
        for part, read in parts:
            found = None if part.kind == "a folder" else key_and_ending(posixpath.normpath(part.name))
            if found is None:
                continue
            if fields and (found[0] != key or found[1] in fields):
                yield self._sample(key, fields, texts, problem)
                fields, texts, problem = {}, {}, None
            key, ending = found
            fields[ending] = part
            if self._is_wanted(ending):
                try:
                    texts[ending] = _text(part, read)
                except ValueError as error:
                    problem = problem or _bad(f"its {ending}: {error}")
        if fields:
            yield self._sample(key, fields, texts, problem)

    def _is_wanted(self, ending: str) -> bool:
        return ending in self._wanted or (ending == JSON and bool(self._wanted - {"txt"}))

    def _sample(self, key: str, fields: dict[str, Any], texts: dict[str, str], problem: ImageError | None) -> Sample:
        try:
            part = fields[self._image_of(fields)]
            if part.kind:
                problem = problem or _bad(f"its image is {part.kind}, not a file")
        except ImageError as error:
            part, problem = next(iter(fields.values())), error
        return Sample(key, part, texts, problem)

    def _image_of(self, fields: dict[str, Any]) -> str:
        """Which of the files is the image. Raises ImageError."""
        there = ", ".join(map(repr, fields))
        if self._image is not None:
            if self._image not in fields:
                raise _bad(f"expected an image {self._image!r} among its files, found {shortened(there, 100)}")
            return self._image
        images = [ending for ending in fields if self._is_image(f"x.{ending}")]
        # What has two endings, `seg.png`, belongs to the image, and is it where there is no other.
        plain = [ending for ending in images if "." not in ending]
        others = [ending for ending in fields if not _NO_IMAGES.fullmatch(ending) and ending not in self._wanted]
        found = plain or images or others
        if not found:
            raise _bad(f"expected an image among its files, found {shortened(there, 100)}; they must stand together")
        if len(found) > 1:
            several = ", ".join(map(repr, found))
            raise ImageError(
                "list",
                "AmbiguousName",
                f"expected one image, found {shortened(several, 100)}; --image_column says which",
            )
        return found[0]


def _bad(message: str) -> ImageError:
    return ImageError("list", "BadEntry", message)


def _text(part: Part, read: Callable[[int], bytes]) -> str:
    """A text file. Raises ValueError."""
    if part.kind or part.size > _MOST_TEXT_BYTES:
        raise ValueError(
            f"expected a text of at most {_MOST_TEXT_BYTES:,} bytes, found {part.kind or f'{part.size:,}'}"
        )
    data = read(part.size)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"expected UTF-8, found {data[:20]!r}") from None
