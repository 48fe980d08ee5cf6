"""Images as records keep them (`--store_images`): small upright JPEGs, for networks to be trained on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import simplejpeg

from pipelines.vision import resizing
from tfrecords_schema.manifests.features_info import StoredImages

QUALITY = 90
_LONG = 16  # times the short side: a JPEG has at most 65,535 pixels a side, and networks make squares of images anyway


def target(height: int, width: int, stored: StoredImages) -> tuple[int, int]:
    """(height, width) that an image is kept at: its short side no longer than asked for, hardly ever distorted."""
    scale = min(1.0, stored.short_side / min(height, width))
    most = _LONG * stored.short_side
    return tuple(min(most, max(1, round(side * scale))) for side in (height, width))  # type: ignore[return-value]


def is_kept_as_it_is(data: bytes, height: int, width: int, stored: StoredImages) -> bool:
    """Whether an upright JPEG that decodes without a word needs no other: it is small, and hides nothing behind it.

    Height and width are those in the file: at a part of its scale a large one may have just the size asked for.
    """
    return target(height, width, stored) == (height, width) and len(data) <= 3 * height * width


def shrunk(strips: Iterable[np.ndarray], height: int, width: int, stored: StoredImages, axis: int = 1) -> np.ndarray:
    """uint8 `[h, w, 3]` at `target`, of an image of this height and width in strips, as `resizing` has them."""
    return resizing.to_shape(strips, target(height, width, stored), axis)


def as_jpeg(rgb: np.ndarray, stored: StoredImages) -> bytes:
    """A JPEG of uint8 `[h, w, 3]`."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), stored.quality, "RGB", "420")
