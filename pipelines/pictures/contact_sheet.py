"""Captioned images -> one picture: thumbnails on a grid, each with its caption under it."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from pipelines.items import ImageError

if TYPE_CHECKING:
    from PIL import Image

_THUMBNAIL = (240, 180)  # width, height in pixels
_CAPTION_HEIGHT, _REFERENCE_HEIGHT = 62, 40
_MARGIN = 12
_FONT_SIZE = 14
_LINE = _FONT_SIZE + 4
_LETTERS_A_LINE = 34
_INK, _FAINT, _PAPER, _MISSING = "#1a1a1a", "#6b6b6b", "#ffffff", "#d9d9d9"


class ContactSheet:
    """A picture that images are added to, row by row.

    Attributes:
      picture: the PIL image, RGB, with room for `count` thumbnails, `columns` of them side by side.
    """

    def __init__(self, count: int, columns: int, has_references: bool = False):
        from PIL import Image, ImageDraw, ImageFont

        self._columns = min(columns, count)
        lines = -(-count // self._columns)
        below = _CAPTION_HEIGHT + (_REFERENCE_HEIGHT if has_references else 0)
        self._cell = _THUMBNAIL[0] + _MARGIN, _THUMBNAIL[1] + below + _MARGIN
        size = self._columns * self._cell[0] + _MARGIN, lines * self._cell[1] + _MARGIN
        self.picture = Image.new("RGB", size, _PAPER)
        self._draw, self._font = ImageDraw.Draw(self.picture), ImageFont.load_default(_FONT_SIZE)
        self._count = 0

    def add(self, row: dict[str, Any], image: Image.Image | ImageError, references: Sequence[str] = ()) -> None:
        """Draws a row of a caption table in the next place: grey where its image could not be read.

        Of what people said there is room for the first.
        """
        left = _MARGIN + self._count % self._columns * self._cell[0]
        top = _MARGIN + self._count // self._columns * self._cell[1]
        self._count += 1
        if isinstance(image, ImageError):
            self._draw.rectangle((left, top, left + _THUMBNAIL[0] - 1, top + _THUMBNAIL[1] - 1), _MISSING)
        else:
            small = image.copy()
            small.thumbnail(_THUMBNAIL)
            offset = (_THUMBNAIL[0] - small.width) // 2, (_THUMBNAIL[1] - small.height) // 2
            self.picture.paste(small, (left + offset[0], top + offset[1]))
        below = top + _THUMBNAIL[1] + 4
        self._text(left, below, row.get("caption") or "", _INK)
        if row.get("log_prob") is not None:
            self._text(left, below + 2 * _LINE, f"log probability {row['log_prob']:.2f}", _FAINT)
        if references:
            self._text(left, top + _THUMBNAIL[1] + _CAPTION_HEIGHT, f"people: {references[0]}", _FAINT)

    def _text(self, left: int, top: int, text: str, colour: str) -> None:
        lines = textwrap.wrap(text, _LETTERS_A_LINE, max_lines=2, placeholder=" …") or [""]
        self._draw.multiline_text((left, top), "\n".join(lines), colour, self._font, spacing=3)

    def save(self, handle: BinaryIO, path: str) -> None:
        """Writes the picture, in the format that the path's ending names."""
        self.picture.save(handle, picture_format(path))


def picture_format(path: str) -> str | None:
    """Pillow's name of the format that a path's ending stands for, such as PNG; None where it writes none such."""
    from PIL import Image

    name = Image.registered_extensions().get(os.path.splitext(path)[1].lower())
    return name if name in Image.SAVE else None
