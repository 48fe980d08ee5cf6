"""A caption table -> one picture of its images with their captions (`python -m pipelines.gallery`)."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines import cli
from tfrecords_schema.errors import ArgumentParser, InputError

_THUMBNAIL = (240, 180)  # width, height in pixels
_CAPTION_HEIGHT = 62
_MARGIN = 12
_FONT_SIZE = 14
_LETTERS_A_LINE = 34
_INK, _FAINT, _PAPER, _MISSING = "#1a1a1a", "#6b6b6b", "#ffffff", "#d9d9d9"


def parser() -> ArgumentParser:
    """The command line."""
    p = ArgumentParser(
        prog="python -m pipelines.gallery",
        description="Draw captioned images with their captions under them.",
    )
    p.add_argument("--captions", required=True, metavar="DIR", help="output directory of pipelines.caption")
    p.add_argument("--contact_sheet", required=True, metavar="FILE.png", help="picture to write")
    p.add_argument("--n", type=int, default=24, help="images at most (default 24)")
    p.add_argument("--columns", type=int, default=4, help="images side by side (default 4)")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with 0, or 2 for bad input."""
    cli.run_command(run, **vars(parser().parse_args(argv)))


def run(*, captions: str, contact_sheet: str, n: int = 24, columns: int = 4) -> None:
    """Writes the picture. Raises InputError where there is no caption table, or no way to write."""
    for flag, value in (("n", n), ("columns", columns)):
        if value < 1:
            raise InputError(f"--{flag}: expected at least 1, found {value}")
    rows = list(_first(read_rows(captions), n))
    if not rows:
        raise InputError(f"--captions: {captions} holds no captioned image")
    sheet, unreadable = draw_contact_sheet(rows, columns)
    try:
        sheet.save(contact_sheet)
    except (OSError, ValueError) as error:
        raise InputError(f"--contact_sheet: expected a .png file to write, found {contact_sheet}: {error}") from None
    missing = f" ({unreadable} could not be read from here, and are grey)" if unreadable else ""
    print(f"{len(rows)} images with their captions in {contact_sheet}{missing}")


def _first(rows: Iterator[dict[str, Any]], n: int) -> Iterator[dict[str, Any]]:
    for _, row in zip(range(n), rows, strict=False):
        yield row


def read_rows(directory: str) -> Iterator[dict[str, Any]]:
    """The rows of a caption table, wherever Beam's filesystems reach. Raises InputError where there is no whole one."""
    from pipelines import files
    from tfrecords_schema import caption_table

    return caption_table.read_rows(directory, files.read_text, files.open_binary)


def draw_contact_sheet(rows: Sequence[dict[str, Any]], columns: int):
    """Rows of a caption table -> (a PIL image, how many images could not be read).

    Thumbnails on a grid, each with its caption and log probability; grey for an image that is not there any more.
    """
    from PIL import Image, ImageDraw, ImageFont

    columns = min(columns, len(rows))
    lines = -(-len(rows) // columns)
    cell_width, cell_height = _THUMBNAIL[0] + _MARGIN, _THUMBNAIL[1] + _CAPTION_HEIGHT + _MARGIN
    sheet = Image.new("RGB", (columns * cell_width + _MARGIN, lines * cell_height + _MARGIN), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    unreadable = 0
    for number, row in enumerate(rows):
        left = _MARGIN + number % columns * cell_width
        top = _MARGIN + number // columns * cell_height
        thumbnail = _thumbnail(row["image_uri"])
        if thumbnail is None:
            unreadable += 1
            thumbnail = Image.new("RGB", _THUMBNAIL, _MISSING)
        offset = (_THUMBNAIL[0] - thumbnail.width) // 2, (_THUMBNAIL[1] - thumbnail.height) // 2
        sheet.paste(thumbnail, (left + offset[0], top + offset[1]))
        text = textwrap.wrap(row["caption"], _LETTERS_A_LINE, max_lines=2, placeholder=" …") or [""]
        below = top + _THUMBNAIL[1] + 4
        draw.multiline_text((left, below), "\n".join(text), _INK, font, spacing=3)
        draw.text((left, below + 2 * (_FONT_SIZE + 4)), f"log probability {row['log_prob']:.2f}", _FAINT, font)
    return sheet, unreadable


def _thumbnail(uri: str):
    """The image inside the thumbnail's box, aspect ratio kept; None where it cannot be read."""
    from PIL import Image, ImageOps

    from pipelines import files

    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(files.read_bytes(uri)))).convert("RGB")
    except Exception:
        return None
    image.thumbnail(_THUMBNAIL)
    return image


if __name__ == "__main__":
    main()
