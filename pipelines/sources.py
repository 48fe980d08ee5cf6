"""Where images and captions come from: each source counts and reads Items (id, uri, captions)."""

from __future__ import annotations

import dataclasses
import json
import os
import posixpath
import re
from collections.abc import Iterator

from pipelines import files
from pipelines.rejects import ImageError
from tfrecords_schema.errors import InputError

_LONE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Item:
    """One listed image.

    Attributes:
      id: COCO's id in decimal, or the file's name without its ending.
      uri: where its bytes are.
      captions: as given; empty where a table of captions is what we are to make.
      problem: why the listing itself makes it unusable.
    """

    id: str
    uri: str
    captions: tuple[str, ...] = ()
    problem: ImageError | None = None


@dataclasses.dataclass(frozen=True)
class CocoCaptions:
    """A directory of images with a COCO captions JSON.

    Only these two paths travel in the pipeline graph; a worker reads the annotations when the pipeline runs.
    `count` is for the launcher: it checks the files and tells how many Items `read` will yield.
    """

    images_dir: str
    captions_json: str

    def count(self) -> int:
        """Raises InputError where the directory or the file is missing, or the file is no COCO captions JSON."""
        if files.is_local(self.images_dir) and not os.path.isdir(self.images_dir):
            raise InputError(f"images directory: expected a directory, found none at {self.images_dir}")
        total = sum(1 for _ in self.read())
        if not total:
            raise InputError(f"{self.captions_json}: expected images, found an empty list")
        return total

    def read(self) -> Iterator[Item]:
        """Items in the file's order; one for each listed image, and one for each id that only annotations name."""
        images, annotations = _load_coco(self.captions_json)
        captions: dict[str, list[str]] = {}
        for annotation in annotations:
            captions.setdefault(str(annotation["image_id"]), []).append(annotation["caption"])
        listed = set()
        for image in images:
            image_id = str(image["id"])
            listed.add(image_id)
            found = tuple(captions.get(image_id, ()))
            problem = None if found else ImageError("list", "NoCaption", "no annotation names this image")
            yield Item(image_id, files.join(self.images_dir, image["file_name"]), found, problem)
        for image_id in sorted(captions.keys() - listed):
            problem = ImageError("list", "NotListed", f"{len(captions[image_id])} captions, but no image of this id")
            yield Item(image_id, "", tuple(captions[image_id]), problem)


def _load_coco(path: str) -> tuple[list[dict], list[dict]]:
    """The images and the annotations of a COCO captions JSON, each entry checked."""
    try:
        text = files.read_text(path)
        content = None if text is None else json.loads(text, object_hook=_without_lone_surrogates)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a COCO captions JSON, found no JSON: {error}") from None
    if text is None:
        raise InputError(f"captions file: expected a COCO captions JSON, found no file at {path}")
    lists = []
    wanted = {"images": {"id": (int, str), "file_name": str}, "annotations": {"image_id": (int, str), "caption": str}}
    for name, keys in wanted.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise InputError(f"{path}: expected a COCO captions JSON with a list {name!r}, found none")
        for number, entry in enumerate(entries):
            for key, types in keys.items():
                if not isinstance(entry, dict) or not isinstance(entry.get(key), types):
                    shown = json.dumps(entry)[:100]
                    raise InputError(
                        f"{path}: {name}[{number}]: expected a COCO caption entry with {key!r}, found {shown}"
                    )
        lists.append(entries)
    return lists[0], lists[1]


def _without_lone_surrogates(entry: dict) -> dict:
    """JSON may hold halves of surrogate pairs, which no UTF-8 can; they become the replacement character."""
    return {key: _LONE.sub("\ufffd", value) if isinstance(value, str) else value for key, value in entry.items()}


@dataclasses.dataclass(frozen=True)
class ImageGlob:
    """Images that glob patterns find (`*`, `?`, `[ab]`, and `**` across any number of directories).

    Attributes:
      patterns: a pattern that is the name of a file means that file.
      excluding: a directory whose files are passed over: the output, which may lie below the images.
    """

    patterns: tuple[str, ...]
    excluding: str = ""

    def count(self) -> int:
        """Raises InputError, repeating the pattern, where one finds nothing."""
        return sum(1 for _ in self.read())

    def read(self) -> Iterator[Item]:
        """Items by pattern, then by name. A file that two patterns find is one Item."""
        seen = set()
        for pattern in self.patterns:
            fixed = posixpath.dirname(re.split(r"[*?\[]", pattern, maxsplit=1)[0])
            found = [(path, files.absolute(path)) for path in files.glob(pattern)]
            if self.excluding:
                outside = files.absolute(self.excluding) + "/"
                found = [(path, place) for path, place in found if not place.startswith(outside)]
            if not found:
                raise InputError(f"--images: expected images, found no file that matches {pattern!r}")
            for path, place in found:
                if place not in seen:
                    seen.add(place)
                    yield Item(_id_below(posixpath.dirname(path) if path == pattern else fixed, path), path)


def _id_below(root: str, path: str) -> str:
    """The path below the pattern's fixed part without its ending: the file's stem, or `folder/stem` under `**`."""
    name = path.removeprefix(root).lstrip("/") if root else path
    return posixpath.splitext(name)[0]


Source = CocoCaptions | ImageGlob
