"""Which image a caption is of, by the name of its file or by its id: one order for all who compare captions."""

from __future__ import annotations

import collections
import dataclasses
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

_COCO_NAME = re.compile(r"(?:COCO_\w+_)?(?P<id>\d{12})")
_ROW = re.compile(r".+\.parquet!/.+/\d+", re.IGNORECASE | re.DOTALL)  # of an image in Parquet: no name, but a number

Prediction = TypeVar("Prediction")


@dataclasses.dataclass(frozen=True)
class Matched(Generic[Prediction]):
    """Predictions by the id of their image, and how many have no place there.

    Attributes:
      predictions: by the id of the image, in their own order.
      without_references: how many are of none of the images.
      ambiguous: how many fit several images, or share their image with another prediction.
    """

    predictions: dict[str, Prediction]
    without_references: int
    ambiguous: int


def match(predictions: Iterable[tuple[Prediction, str, str]], names: Mapping[str, str]) -> Matched[Prediction]:
    """Finds the image of each prediction.

    In this order: the image whose file is called like the prediction's URI; the one with its very id; the one whose
    file is called like the id (images that a pattern found have such ids); for COCO's file names of any year, the
    number in them. A URI comes first because ids that look like numbers may be file names that look like ids.

    Args:
      predictions: (anything that stands for it, id of its image, URI of its image or "") of each.
      names: of the images' files, with or without directories, by the images' ids.
    """
    by_stem = collections.defaultdict(list)
    for key, name in names.items():
        by_stem[_stem(name)].append(key)

    def candidates(image_id: str, uri: str) -> Sequence[str]:
        last = posixpath.basename(image_id)
        numbered = _COCO_NAME.fullmatch(_stem(last))
        tries = (
            by_stem.get(_stem(uri)) if uri and not _ROW.fullmatch(uri) else None,
            [image_id] if image_id in names else None,
            by_stem.get(last),
            by_stem.get(_stem(last)),
            [number] if numbered and (number := str(int(numbered["id"]))) in names else None,
        )
        return next(filter(None, tries), ())

    found = collections.defaultdict(list)
    without = ambiguous = 0
    for prediction, image_id, uri in predictions:
        keys = candidates(image_id, uri)
        if len(keys) == 1:
            found[keys[0]].append(prediction)
        ambiguous += len(keys) > 1
        without += not keys
    single = {key: group[0] for key, group in found.items() if len(group) == 1}
    ambiguous += sum(len(group) for group in found.values() if len(group) > 1)
    return Matched(single, without, ambiguous)


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]
