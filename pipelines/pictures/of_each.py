"""A picture of each photo: with its caption under it, or a tile for each word that shows where the model looked."""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.pictures import looks
from tfrecords_schema.manifests import caption_table

if TYPE_CHECKING:
    from PIL import Image

ENDING = ".png"
_MARGIN, _GAP, _FONT_SIZE, _SPACING = 16, 8, 16, 5  # pixels
_LINE = _FONT_SIZE + _SPACING
_LETTER = 0.52  # of the font's size: about the width of a letter
_LEAST_WIDTH = 240  # of a picture's text, whatever the photo's shape
_TILE, _COLUMNS = 240, 5  # pixels of a tile's longest side; tiles side by side
_INK, _FAINT, _PAPER = "#1a1a1a", "#6b6b6b", "#ffffff"


def file_name(image_id: str) -> str:
    """A name that any file system takes; two ids never have the same one."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", image_id)[:100].lstrip(".")
    digest = hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    # Capitals too have a digest: some file systems do not tell them from small letters.
    return f"{plain}{ENDING}" if plain and plain == image_id.lower() else f"{plain}-{digest}{ENDING}"


def captioned(row: Mapping[str, Any], image: Image.Image) -> Image.Image:
    """A row of a caption table and its photo, RGB -> the photo with its caption, and how probable it is, under it."""
    width = max(image.width, _LEAST_WIDTH)
    lines = _wrapped(row.get("caption") or "no caption", width)
    top = _MARGIN + image.height + _GAP
    below = top + _LINE * len(lines)
    picture, draw, font = _paper(width + 2 * _MARGIN, below + _LINE + _MARGIN)
    picture.paste(image, (_MARGIN + (width - image.width) // 2, _MARGIN))
    draw.multiline_text((_MARGIN, top), "\n".join(lines), _INK, font, spacing=_SPACING)
    if row.get("log_prob") is not None:
        draw.text((_MARGIN, below), f"log probability {row['log_prob']:.2f}", _FAINT, font)
    return picture


def looked_at(row: Mapping[str, Any], image: Image.Image) -> Image.Image | None:
    """A row with attention and its photo, RGB -> a tile for each word; None where no word has weights of a grid.

    Under a tile are its word and its largest weight; at the bottom stands what the colours mean.
    """
    words = [one for one in row.get(caption_table.ATTENTION) or [] if one]
    found = [one for one in words if looks.seen(one.get("weights")) is not None]
    if not found:
        return None
    small = image.copy()
    small.thumbnail((_TILE, _TILE))
    cell = small.width + _GAP, small.height + 2 * _LINE + _GAP
    columns = min(_COLUMNS, len(found))
    rows = -(-len(found) // columns)
    width = max(columns * cell[0] - _GAP, _LEAST_WIDTH)
    heading, scale = _wrapped(row.get("caption") or "", width), _wrapped(looks.scale(len(found[0]["weights"])), width)
    size = width + 2 * _MARGIN, 2 * _MARGIN + _LINE * (len(heading) + len(scale)) + _GAP + rows * cell[1]
    picture, draw, font = _paper(*size)
    draw.multiline_text((_MARGIN, _MARGIN), "\n".join(heading), _INK, font, spacing=_SPACING)
    top = _MARGIN + _LINE * len(heading) + _GAP
    for number, one in enumerate(found):
        x, y = _MARGIN + number % columns * cell[0], top + number // columns * cell[1]
        picture.paste(looks.over(small, one["weights"]), (x, y))
        below = y + small.height + 2
        draw.text((x, below), _wrapped(one["word"], small.width)[0], _INK, font)
        draw.text((x, below + _LINE), f"largest {max(one['weights']):.2f}", _FAINT, font)
    below = top + rows * cell[1]
    draw.multiline_text((_MARGIN, below), "\n".join(scale), _FAINT, font, spacing=_SPACING)
    return picture


def _paper(width: int, height: int):
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (width, height), _PAPER)
    return picture, ImageDraw.Draw(picture), ImageFont.load_default(_FONT_SIZE)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of about so many pixels."""
    letters = max(8, int(width / (_LETTER * _FONT_SIZE)))
    return textwrap.wrap(text, letters, max_lines=6, placeholder=" …") or [""]
