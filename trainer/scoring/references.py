"""What people said of the images: COCO's and Karpathy's captions files; and which prediction is of which image."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence

from tfrecords_schema import captions_json, matching
from tfrecords_schema.errors import InputError, blaming
from tfrecords_schema.matching import Matched
from tfrecords_schema.storage import files
from tfrecords_schema.vocabulary import tokenise
from trainer.scoring.predictions import Prediction

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
      InputError: naming the file and what is wrong in it; a single broken entry is enough.
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
    content = files.read_input_bytes("--references", path)  # once, since a remote file is slow to read again
    wanted, splits, found = split or "test", set(), []
    with blaming("--references"):
        for listed in captions_json.read(path, lambda _: io.BytesIO(content)):
            if listed.problem and listed.problem.error == captions_json.BAD_ENTRY:
                raise InputError(f"{path}: {listed.problem.message}")
            splits.add(listed.split)
            captions = tuple(filter(tokenise, listed.captions))
            if captions and listed.split in (None, wanted):
                found.append(Reference(listed.id, listed.names[-1], captions))
    if None in splits and split is not None:
        raise InputError(f"--split: expected no split for COCO's captions, found {split!r}; {path} has none")
    if splits and not splits & {None, wanted}:
        raise InputError(f"--split: expected one of {', '.join(sorted(splits))}, found {wanted!r} ({path})")
    if not found:
        raise InputError(f"--references: {path}: expected images with captions, found none")
    return found


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
