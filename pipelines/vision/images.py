"""From an image's bytes to RGB pixels at the extractor's size, or a reason why not. One decode path for everything."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import warnings
from typing import TYPE_CHECKING

import numpy as np

from pipelines.items import ImageError

if TYPE_CHECKING:
    from PIL import Image

RESIZE = "pillow bilinear, antialiased, aspect ratio not kept; JPEGs of 8 times the size decoded at reduced scale"
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


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A decoded image.

    Attributes:
      rgb: uint8 `[size, size, 3]`.
      height, width: of the image after EXIF orientation, before resizing, in pixels.
    """

    rgb: np.ndarray
    height: int
    width: int


def decode(data: bytes, size: int, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Bytes of any format Pillow reads -> RGB at `[size, size, 3]`. Raises ImageError as `open_upright`."""
    from PIL import Image

    # Four times the wanted size is kept, so that the resize still does the smoothing: features then stay within a
    # cosine of 0.9997 (benchmarks/decode.py).
    image, height, width = open_upright(data, 4 * size, max_pixels)
    rgb = image.resize((size, size), Image.Resampling.BILINEAR)
    return Pixels(np.asarray(rgb, np.uint8), height, width)


def open_upright(data: bytes, least_side: int, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, int, int]:
    """Bytes of any format Pillow reads -> (the image as 8-bit RGB, its height, its width).

    EXIF orientation is applied, transparency is laid over white, 16-bit and palette images become 8-bit RGB, and of an
    animation the first frame is taken.

    Args:
      least_side: in pixels. A larger JPEG may be decoded at reduced scale, with no side below this: large photographs
        cost far more to decode whole. Height and width are of the whole image, upright.
      max_pixels: larger images are rejected.

    Raises:
      ImageError: stage "decode"; the size is checked in the header, before a pixel is decoded.
    """
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise ImageError("decode", "Empty", "the file has 0 bytes")
    formats = _set_pillow_up()
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        raise ImageError("decode", "NotAnImage", f"no known image format; begins with {data[:8]!r}") from None
    except Exception as error:
        raise _damage(error) from None
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError("decode", "TooLarge", f"{width} x {height} pixels, more than {max_pixels}")
    try:
        image.draft(None, (least_side, least_side))
        image.load()
        image, turned = _upright(image)
        rgb = _to_rgb(image)
    except Exception as error:
        raise _damage(error) from None
    return (rgb, width, height) if turned else (rgb, height, width)


@functools.cache
def _set_pillow_up() -> tuple[str, ...]:
    """Sets Pillow's globals, once; returns the formats to be read."""
    from PIL import Image

    Image.init()
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit; ours, from the same header, takes its place
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged EXIF and of large images; both are handled here
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _damage(error: Exception) -> ImageError:
    cut_short = "truncated" in str(error).lower() or isinstance(error, EOFError)
    return ImageError("decode", "Truncated" if cut_short else "Damaged", f"{type(error).__name__}: {error}")


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image as EXIF says it is to be looked at, and whether its sides changed places."""
    from PIL import ExifTags, ImageOps

    with contextlib.suppress(Exception):  # A broken EXIF block is no reason to reject a good image.
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation != 1:  # else exif_transpose would copy the image
            return ImageOps.exif_transpose(image), orientation in (5, 6, 7, 8)
    return image, False


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        # On conversion Pillow would clip these to 0..255.
        values = np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        values = np.clip(values / _white(image.mode, values), 0, 1)
        image = Image.fromarray((values * 255 + 0.5).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")


def _white(mode: str, values: np.ndarray) -> float:
    """The value that stands for white: 65535 for 16 bits; float images do not say whether 1, 255 or 65535."""
    highest = values.max(initial=0)
    if mode == "F" and highest <= 1:
        return 1.0
    return 255.0 if mode in ("F", "I") and highest <= 255 else 65535.0
