"""From an image's bytes to RGB pixels at the extractor's size, or a reason why not. One decode path for everything."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.items import ImageError
from pipelines.vision import headers, jpegs, keeping, resizing
from pipelines.vision.headers import MAX_PIXELS
from tfrecords_schema.manifests.features_info import IM2TXT_RESIZE, RESIZE, StoredImages
from tfrecords_schema.storage import faults

if TYPE_CHECKING:
    from PIL import Image

_LONG = 16  # times as long as wide: resized to its size across first, a line of a million pixels would be 299 of them
_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # in memory; of all others 4
# Of a pixel while it is decoded, beside Pillow's image: canvases, planes, coefficients.
_DECODER_BYTES = {"WEBP": 16, "AVIF": 16, "JPEG2000": 22, "TIFF": 8}


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A decoded image.

    Attributes:
      rgb: `[size, size, 3]` in 0..255: uint8, or float32 where the resize does not round.
      height, width: of the image after EXIF orientation, before resizing, in pixels.
      jpeg: the image as records keep it; None where they do not.
    """

    rgb: np.ndarray
    height: int
    width: int
    jpeg: bytes | None = None


class Encoded:
    """An image whose header was read: its size is known, and what decoding takes, before a pixel is decoded.

    Attributes:
      memory: bytes that decoding takes, about; those of the file not counted.
    """

    def __init__(self, data: bytes | Image.Image, least_side: int, max_pixels: int = MAX_PIXELS, resize: str = RESIZE):
        """Bytes of any format Pillow reads, or an image that it has read, of which a copy is taken.

        Args:
          least_side: in pixels. A larger JPEG may be decoded at reduced scale, with no side below this: large
            photographs cost far more to decode whole.
          max_pixels: larger images are rejected.
          resize: how they become square.

        Raises:
          ImageError: stage "decode".
          MemoryError: this machine has no memory left, which is no fault of the image.
        """
        self._as_im2txt = resize == IM2TXT_RESIZE
        try:
            self._image: Any
            if isinstance(data, bytes):
                self._data, self._image = data, headers.opened(data, max_pixels)
            else:
                self._data, self._image = b"", headers.copied(data, max_pixels)
            self._width, self._height = self._image.size
            self._image.draft(None, (least_side, least_side))
            self.memory = _memory(self._image, self._width * self._height)
        except ImageError:
            raise
        except Exception as error:
            raise _damage(error) from None

    def upright(self) -> tuple[Image.Image, int, int]:
        """(The image as 8-bit RGB, the height, the width of the whole of it, upright).

        EXIF orientation is applied, transparency is laid over white, 16-bit and palette images become 8-bit RGB, and of
        an animation the first frame is taken. Raises as `Encoded`.
        """
        try:
            self._image.load()
            image, turned = _upright(self._image)
            rgb = _to_rgb(image)
        except Exception as error:
            raise _damage(error) from None
        return (rgb, self._width, self._height) if turned else (rgb, self._height, self._width)

    def pixels(self, size: int, keep: StoredImages | None = None) -> Pixels:
        """The image at `[size, size, 3]`, and, if asked for, as records keep it. Raises as `Encoded`."""
        rgb = self._jpeg()
        if rgb is not None:
            return self._of_jpeg(rgb, size, keep)
        image, height, width = self.upright()
        jpeg = None
        if keep:
            strips = map(np.asarray, _strips(image))
            jpeg = keeping.as_jpeg(keeping.shrunk(strips, image.height, image.width, keep), keep)
        if self._as_im2txt:
            return Pixels(resizing.im2txt(np.asarray(image), size), height, width, jpeg)
        if image.height > _LONG * image.width:
            from PIL import Image

            image = image.resize((image.width, size), Image.Resampling.BILINEAR)
        return Pixels(resizing.resize(map(np.asarray, _strips(image)), size), height, width, jpeg)

    def _jpeg(self) -> np.ndarray | None:
        if max(self._image.size) > _LONG * min(self._image.size):
            return None
        return jpegs.decoded(self._data, self._image, self._image.size != (self._width, self._height), self._as_im2txt)

    def _of_jpeg(self, rgb: np.ndarray, size: int, keep: StoredImages | None) -> Pixels:
        """Pixels from those of a JPEG as they are in the file; they are turned upright once they are few."""
        orientation = _orientation(self._image)
        sideways = orientation in _SIDEWAYS
        axis = 0 if sideways else 1  # columns of the upright image go first, as with all others
        height, width = rgb.shape[:2]
        jpeg = None
        if keep and orientation == 1 and self._image.format == "JPEG":
            jpeg = self._data if keeping.is_kept_as_it_is(self._data, self._height, self._width, keep) else None
        if keep and jpeg is None:
            small = keeping.shrunk(resizing.cut(rgb, axis), height, width, keep, axis)
            jpeg = keeping.as_jpeg(_turned(small, orientation), keep)
        if self._as_im2txt:  # whose resize is another one upside down
            square = resizing.im2txt(_turned(rgb, orientation), size)
        else:
            square = _turned(resizing.square(rgb, size, axis), orientation)
        return Pixels(square, *((self._width, self._height) if sideways else (self._height, self._width)), jpeg)


def _turned(rgb: np.ndarray, orientation: int) -> np.ndarray:
    """Upright, of pixels that stand as EXIF says."""
    rgb = rgb.swapaxes(0, 1) if orientation in _SIDEWAYS else rgb
    rgb = rgb[:, ::-1] if orientation in (2, 3, 6, 7) else rgb
    return rgb[::-1] if orientation in (3, 4, 7, 8) else rgb


def encoded(
    data: bytes | Image.Image,
    size: int,
    max_pixels: int = MAX_PIXELS,
    keep: StoredImages | None = None,
    resize: str = RESIZE,
) -> Encoded:
    """An image that is to be decoded at `[size, size, 3]`, and perhaps kept. Raises as `Encoded`."""
    # Four times the wanted size is kept, so that the resize still does the smoothing: features then stay within a
    # cosine of 0.9997 (benchmarks/decode.py).
    wanted = 1 << 16 if resize == IM2TXT_RESIZE else 4 * size  # of im2txt all, which no JPEG has more of
    return Encoded(data, max(wanted, keep.short_side if keep else 0), max_pixels, resize)


def decode(data: bytes, size: int, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Bytes of any format Pillow reads -> RGB at `[size, size, 3]`. Raises as `Encoded`."""
    return encoded(data, size, max_pixels).pixels(size)


def _memory(image: Image.Image, pixels: int) -> int:
    """Bytes that decoding takes, about: of the decoder, of Pillow's image, and of what is made of it."""
    loaded = image.width * image.height  # fewer than in the file, at reduced scale
    decoder = _DECODER_BYTES.get(image.format or "", 0)
    if "progressive" in image.info:
        decoder = 2 * len(image.getbands())
    # Beside Pillow's image there is one turned upright, or one in RGB.
    return loaded * (_PIXEL_BYTES.get(image.mode, 4) + 4) + pixels * decoder


def _damage(error: Exception) -> Exception:
    """What an error says of an image; a fault of this machine is itself."""
    if faults.is_of_the_machine(error):
        return error
    cut_short = "truncated" in str(error).lower() or isinstance(error, EOFError)
    kind, told = ("Truncated", "the file ends early") if cut_short else ("Damaged", f"{type(error).__name__}: {error}")
    return ImageError("decode", kind, told)


@contextlib.contextmanager
def _passing_over_damage() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if faults.is_of_the_machine(error):
            raise


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image as EXIF says it is to be looked at, and whether its sides changed places."""
    from PIL import ImageOps

    orientation = _orientation(image)
    with _passing_over_damage():
        if orientation != 1:  # else exif_transpose would copy the image
            return ImageOps.exif_transpose(image), orientation in _SIDEWAYS
    return image, False


def _orientation(image: Image.Image) -> int:
    """The orientation of an image, as EXIF numbers them; 1 is upright."""
    from PIL import ExifTags

    with _passing_over_damage():  # A broken EXIF block is no reason to reject a good image.
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    is_deep = image.mode.startswith("I") or image.mode == "F"
    if not is_deep and not _is_transparent(image):
        return image if image.mode == "RGB" else image.convert("RGB")
    white = max(map(_highest, _strips(image))) if image.mode in ("I", "F") else 0
    white = _white(image.mode, white)
    # In strips, since what lies between takes up to ten times the memory of the image.
    rgb = Image.new("RGB", image.size)
    top = 0
    for strip in _strips(image):
        flat = _eight_bits(strip, white) if is_deep else strip
        if _is_transparent(flat):
            flat = flat.convert("RGBA")
            flat = Image.alpha_composite(Image.new("RGBA", flat.size, "white"), flat)
        rgb.paste(flat.convert("RGB"), (0, top))
        top += strip.height
    return rgb


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    rows = max(1, resizing.STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _numbers(image: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _highest(image: Image.Image) -> float:
    return _numbers(image).max(initial=0)


def _eight_bits(image: Image.Image, white: float) -> Image.Image:
    """On conversion Pillow would clip 16-bit, 32-bit and float images to 0..255."""
    from PIL import Image

    values = np.clip(_numbers(image) / white, 0, 1)
    return Image.fromarray((values * 255 + 0.5).astype(np.uint8))


def _white(mode: str, highest: float) -> float:
    """The value that stands for white: 65535 for 16 bits; float images do not say whether 1, 255 or 65535."""
    if mode == "F" and highest <= 1:
        return 1.0
    return 255.0 if mode in ("F", "I") and highest <= 255 else 65535.0
