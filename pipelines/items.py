"""What travels between the rooms: an Item is one listed image, an ImageError or Reject says why it cannot be used."""

from __future__ import annotations

import dataclasses
from typing import Any

STAGES = ("list", "read", "decode", "extract", "caption")


@dataclasses.dataclass(frozen=True)
class Reject:
    """One image that is not in the output, and why.

    Attributes:
      image_id, image_uri: as listed.
      stage: one of STAGES, the step that gave up.
      error: a short name to count by, "Truncated".
      message: what was found, for a person.
    """

    image_id: str
    image_uri: str
    stage: str
    error: str
    message: str

    def printable(self) -> dict[str, str]:
        """The reject as a row that any table can hold."""
        return {key: printable(value) for key, value in vars(self).items()}


class ImageError(Exception):
    """An image cannot be used; becomes a Reject. Raised by the step that owns `stage`."""

    def __init__(self, stage: str, error: str, message: str):
        super().__init__(stage, error, message)
        self.stage, self.error, self.message = stage, error, message

    def __str__(self) -> str:
        return f"{self.stage}/{self.error}: {self.message}"

    def of(self, image_id: str, image_uri: str) -> Reject:
        """This error as a row of the rejects table."""
        return Reject(image_id, image_uri, self.stage, self.error, self.message)


def printable(text: str) -> str:
    """Text that UTF-8 can hold: bytes of a file name that are no UTF-8 are shown as backslash escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclasses.dataclass(frozen=True)
class Item:
    """One listed image, or, where its captions do not stand together in a file, a part of it.

    Attributes:
      id: COCO's id in decimal, or the file's name without its ending.
      uri: where its bytes are.
      captions: as given; empty where a table of captions is what we are to make.
      problem: why the listing itself makes it unusable.
      split: what its shard's name begins with: train, val, test, or captions.
      version: changes when the file does; empty where no listing told.
      position: in the source, different for each part; puts the parts of one image in order.
      run: images of one run are stored together and should be read together, so one shard has them; None for an image
        that may be read by itself, whose shard then follows from a hash of its id.
      metadata: values of its row in a table, to be carried along.
      given: the image itself, where somebody holds it in memory: bytes of a file, or an image of Pillow's.
    """

    id: str
    uri: str
    captions: tuple[str, ...] = ()
    problem: ImageError | None = None
    split: str = "captions"
    version: str = ""
    position: int = 0
    run: int | None = None
    metadata: tuple[Any, ...] = ()
    given: Any = None
