"""What people said of the images: COCO's and Karpathy's captions files; and which prediction is of which image."""

from __future__ import annotations

import collections
import dataclasses
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tfrecords_schema.errors import InputError
from tfrecords_schema.vocabulary import tokenise
from trainer.scoring.predictions import Prediction, is_id, whole
from trainer.storage import files

_COCO_NAME = re.compile(r"(?:COCO_\w+_)?(?P<id>\d{12})")
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


@dataclasses.dataclass(frozen=True)
class Matched:
    """Predictions by the id of their references, and how many have no place there.

    Attributes:
      predictions: by the key of the reference.
      without_references: predictions of images that no reference is of.
      ambiguous: predictions that fit several images, or share their image with another one.
    """

    predictions: dict[str, Prediction]
    without_references: int
    ambiguous: int


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


def match(predictions: Sequence[Prediction], references: dict[str, Reference], where: str) -> Matched:
    """Finds the image of each prediction.

    In this order: the image whose file is called like the prediction's URI; the one with its very id; the one whose
    file is called like the id (images that a pattern found have such ids); for COCO's file names of any year, the
    number in them. A URI comes first because ids that look like numbers may be file names that look like ids.

    Raises:
      InputError: none has one; naming `where` and examples of the ids of both sides.
    """
    by_stem = collections.defaultdict(list)
    for key, reference in references.items():
        by_stem[_stem(reference.name)].append(key)

    def candidates(prediction: Prediction) -> Sequence[str]:
        last = posixpath.basename(prediction.image_id)
        numbered = _COCO_NAME.fullmatch(_stem(last))
        tries = (
            by_stem.get(_stem(prediction.image_uri)) if prediction.image_uri else None,
            [prediction.image_id] if prediction.image_id in references else None,
            by_stem.get(last),
            by_stem.get(_stem(last)),
            [number] if numbered and (number := str(int(numbered["id"]))) in references else None,
        )
        return next(filter(None, tries), ())

    found = collections.defaultdict(list)
    without = ambiguous = 0
    for prediction in predictions:
        keys = candidates(prediction)
        if len(keys) == 1:
            found[keys[0]].append(prediction)
        ambiguous += len(keys) > 1
        without += not keys
    single = {key: group[0] for key, group in found.items() if len(group) == 1}
    ambiguous += sum(len(group) for group in found.values() if len(group) > 1)
    if not single:
        theirs = ", ".join(f"{r.id} ({r.name})" for r in list(references.values())[:_EXAMPLES])
        mine = ", ".join(repr(p.image_id) for p in predictions[:_EXAMPLES])
        doubt = f", {ambiguous} that fit several" if ambiguous else ""
        raise InputError(
            f"--captions: {where}: expected captions of the images in --references, such as {theirs}, found none"
            f"{doubt}; its image ids are such as {mine}"
        )
    return Matched(single, without, ambiguous)


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]
