"""What people said of the images: COCO's and Karpathy's captions files; and which prediction is of which image."""

from __future__ import annotations

import collections
import dataclasses
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tfrecords_schema import matching
from tfrecords_schema.errors import InputError
from tfrecords_schema.matching import Matched
from tfrecords_schema.vocabulary import tokenise
from trainer.scoring.predictions import Prediction, is_id, whole
from trainer.storage import files

_EXAMPLES = 2  # ids of each kind in a message


@dataclasses.dataclass(frozen=True)
class Reference:
    """What people said of one image.

    Attributes:
      id: as in the file: COCO's are whole numbers.
      name: of the image's file, with or without directories.
      captions: those with words, one or more.
    """

    id: int | str
    name: str
    captions: tuple[str, ...]


def read_references(paths: Sequence[str], split: str | None = None) -> dict[str, Reference]:
    """The references of COCO captions files, or of one split of Karpathy's, by id as text.

    An image that several files list has the captions of all of them. Captions without words are passed over, and so
    are images that have no others.

    Args:
      split: of Karpathy's files; "test" by default.

    Raises:
      InputError: naming the file and what is wrong in it.
    """
    found: dict[str, Reference] = {}
    for path in paths:
        for reference in _read_file(path, split):
            key = str(reference.id)
            other = found.get(key)
            if other and other.name != reference.name:
                raise InputError(
                    f"--references: {path}: image {key} is {reference.name}, but was {other.name} before; give files "
                    "of one data set"
                )
            if other:  # an entry that stands twice adds nothing
                more = tuple(text for text in reference.captions if text not in other.captions)
                reference = dataclasses.replace(other, captions=other.captions + more)
            found[key] = reference
    return found


def _read_file(path: str, split: str | None) -> list[Reference]:
    where = f"--references: {path}"
    content = files.parse_json(files.read_input("--references", path), where)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise InputError(f"{where}: expected a COCO captions JSON with images and annotations, found none")
    try:
        karpathy = bool(images) and "sentences" in images[0]
        found = list(_karpathy(images, split or "test", where) if karpathy else _coco(content, split, where))
    except (AttributeError, KeyError, TypeError) as error:
        told = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{where}: expected images and captions as in COCO's or Karpathy's, found: {told}") from None
    usable = [reference for reference in map(_checked(where), found) if reference.captions]
    if not usable:
        raise InputError(f"{where}: expected images with captions, found none")
    return usable


def _checked(where: str) -> Callable[[Reference], Reference]:
    """A function that keeps the captions with words, and raises InputError where something is of another type."""

    def check(reference: Reference) -> Reference:
        if not is_id(reference.id) or not all(isinstance(text, str) for text in (reference.name, *reference.captions)):
            raise InputError(f"{where}: expected an id, a file name and texts, found {str(reference)[:100]}")
        image_id = reference.id if isinstance(reference.id, int) else whole(reference.id)
        captions = tuple(whole(text) for text in reference.captions if tokenise(text))
        return Reference(image_id, whole(reference.name), captions)

    return check


def _coco(content: dict[str, Any], split: str | None, where: str) -> Iterator[Reference]:
    if split is not None:
        raise InputError(f"--split: expected no split for COCO's captions, found {split!r}; {where} has none")
    captions = collections.defaultdict(list)
    for annotation in content["annotations"]:
        captions[annotation["image_id"]].append(annotation["caption"])
    for image in content["images"]:
        yield Reference(image["id"], image["file_name"], tuple(captions.get(image["id"], ())))


def _karpathy(images: Sequence[dict[str, Any]], split: str, where: str) -> Iterator[Reference]:
    splits = {image["split"] for image in images}
    if split not in splits:
        raise InputError(f"--split: expected one of {', '.join(sorted(map(str, splits)))}, found {split!r} ({where})")
    for image in images:
        if image["split"] == split:
            captions = tuple(sentence["raw"] for sentence in image["sentences"])
            yield Reference(image.get("cocoid", _stem(image["filename"])), image["filename"], captions)


def match(predictions: Sequence[Prediction], references: Mapping[str, Reference], where: str) -> Matched[Prediction]:
    """Finds the image of each prediction, in the order of `matching.match`.

    Raises:
      InputError: none has one; naming `where` and examples of the ids of both sides.
    """
    names = {key: reference.name for key, reference in references.items()}
    matched = matching.match(((p, p.image_id, p.image_uri) for p in predictions), names)
    if not matched.predictions:
        theirs = ", ".join(f"{r.id} ({r.name})" for r in list(references.values())[:_EXAMPLES])
        mine = ", ".join(repr(p.image_id) for p in predictions[:_EXAMPLES])
        doubt = f", {matched.ambiguous} that fit several" if matched.ambiguous else ""
        raise InputError(
            f"--captions: {where}: expected captions of the images in --references, such as {theirs}, found none"
            f"{doubt}; its image ids are such as {mine}"
        )
    return matched


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]
