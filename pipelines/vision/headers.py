"""An image's bytes as far as its header: which format, how many pixels, and what Pillow must not be given."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import warnings
from typing import TYPE_CHECKING

from pipelines.items import ImageError

if TYPE_CHECKING:
    from PIL import Image, ImageFile

# All formats of photographs, and none that runs another program on what a stranger sent (EPS does).
_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "TIFF",
    "BMP",
    "MPO",
    "JPEG2000",
    "AVIF",
    "DIB",
    "PPM",
    "TGA",
    "ICO",
    "PCX",
    "SGI",
)
MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs: 256 MiB of RGB
_ICON, _GIF = b"\0\0\1\0", (b"GIF87a", b"GIF89a")
_MOST_BEFORE_IMAGE = 1 << 20  # bytes of a GIF


def opened(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """An image of which Pillow has read the header, and decoded nothing.

    Raises:
      ImageError: stage "decode". Whatever else Pillow raises, of damage.
    """
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise ImageError("decode", "Empty", "the file has 0 bytes")
    formats = _set_pillow_up()
    _check_icon(data, max_pixels)
    _check_gif(data)
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        if data.startswith(_GIF):
            if data.endswith(b";"):
                raise ImageError("decode", "Empty", "a GIF without an image") from None
            raise ImageError("decode", "Truncated", "a GIF that ends before its first image") from None
        raise ImageError("decode", "NotAnImage", f"no known image format; begins with {data[:8]!r}") from None
    _check_size(image.size, max_pixels)
    if image.format == "GIF" and data[image.tile[0].offset :].startswith(b"\0"):
        raise ImageError("decode", "Empty", "a GIF whose first image has no data")  # Pillow would call it cut short
    return image


def copied(image: Image.Image, max_pixels: int) -> Image.Image:
    """A copy of an image of Pillow's, decoded if it was not, which keeps its EXIF orientation. Raises as `opened`."""
    _set_pillow_up()
    _check_size(image.size, max_pixels)
    return image.copy()


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError("decode", "TooLarge", f"{width} x {height} pixels, more than {max_pixels}")


def _check_icon(data: bytes, max_pixels: int) -> None:
    """Checks an ICO, which Pillow decodes while opening it, by the header of the image in it."""
    from PIL import IcoImagePlugin, Image

    if data.startswith(_ICON):
        size = 0, 0
        with contextlib.suppress(Exception):  # what has no size here, Pillow does not decode either
            entry = IcoImagePlugin.IcoFile(io.BytesIO(data)).entry[0]
            size = Image.open(io.BytesIO(data[entry.offset :]), formats=("PNG", "DIB")).size
        _check_size(size, max_pixels)


def _check_gif(data: bytes) -> None:
    """Pillow joins the blocks of a comment one by one, in a time that grows with the square of their number."""
    if not data.startswith(_GIF):
        return
    head = io.BytesIO(data[:_MOST_BEFORE_IMAGE])

    def block() -> bytes:
        return head.read(head.read(1)[0])

    with contextlib.suppress(IndexError):  # its end
        colours = data[10]
        head.seek(13 + (3 << (colours & 7) + 1) * (colours >> 7))
        while (mark := head.read(1)[0]) not in b",;":  # as Pillow goes through them
            if mark != ord("!"):
                continue
            kind, first = head.read(1)[0], block()
            if kind == 0xFE and not first:
                continue
            if kind == 0xFF and first.startswith(b"NETSCAPE2.0"):
                block()
            while block():
                pass
        return
    if len(data) > _MOST_BEFORE_IMAGE:
        raise ImageError("decode", "Damaged", f"a GIF with {_MOST_BEFORE_IMAGE} bytes or more before its first image")


@functools.cache
def _set_pillow_up() -> tuple[str, ...]:
    """Sets Pillow's globals, once; returns the formats to be read."""
    from PIL import Image

    Image.init()
    _silence_libtiff()
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit; ours, from the same header, takes its place
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged EXIF and of large images; both are handled here
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _silence_libtiff() -> None:
    """Keeps libtiff from writing to the screen, past Python, what it thinks of a file; errors are still raised."""
    from PIL import Image

    with contextlib.suppress(AttributeError, OSError):  # a Pillow whose libtiff cannot be reached, or that has none
        pillow = ctypes.CDLL(Image.core.__file__)  # finds what the libraries export that it was linked with
        pillow.TIFFSetWarningHandler(None)
        pillow.TIFFSetErrorHandler(None)
