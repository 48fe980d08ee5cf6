"""Where a model looked while it said a word, as a colour over the photo: one scale for all words and photos.

A weight that is no more than an equal share, 1 / positions, is not seen at all; from FULL times that share on it is
seen in full; between the two opacity rises evenly. So words that look everywhere leave the photo as it is, and two
words, or two photos, can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

FULL = 4
_STOPS = np.array([[8, 5, 28], [101, 21, 110], [190, 55, 82], [245, 125, 21], [252, 250, 160]], np.float32)
_OPAQUE = 0.8  # of the colour at the most, so that the photo stays visible


def scale(positions: int) -> str:
    """What the colours mean, for people."""
    share = 1 / positions
    return (
        f"No colour: a weight of at most {share:.3f}, an equal share of {positions} positions. "
        f"Full colour: {FULL * share:.2f} or more."
    )


def seen(weights: Sequence[float] | None) -> np.ndarray | None:
    """Weights of a square grid, row by row -> how far each is seen, 0 to 1, `[side, side]`; None for no such grid."""
    values = np.asarray([] if weights is None else weights, np.float64)
    side = math.isqrt(values.size)
    if not values.size or side**2 != values.size or not np.isfinite(values).all() or values.max() <= 0:
        return None
    return np.clip((values * values.size - 1) / (FULL - 1), 0, 1).reshape(side, side)


def over(image: Image.Image, weights: Sequence[float] | None) -> Image.Image:
    """An RGB image with the weights over it; the image itself where they are of no square grid."""
    from PIL import Image

    found = seen(weights)
    if found is None:
        return image
    # Colours come after the interpolation: a mixture of two colours would be that of no weight.
    grid = Image.fromarray(found.astype(np.float32)).resize(image.size, Image.Resampling.BICUBIC)
    far = np.clip(np.asarray(grid), 0, 1)[..., None]
    place = far * (len(_STOPS) - 1)
    below = np.minimum(place.astype(int), len(_STOPS) - 2)[..., 0]
    colours = _STOPS[below] + (_STOPS[below + 1] - _STOPS[below]) * (place - below[..., None])
    mixed = np.asarray(image, np.float32) * (1 - _OPAQUE * far) + colours * (_OPAQUE * far)
    return Image.fromarray((mixed + 0.5).astype(np.uint8))
