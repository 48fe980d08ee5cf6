"""Pixels to the extractor's size: bilinear, antialiased, by Pillow's arithmetic at a third of its cost; or as im2txt.

Why `cykooz.resizer` (the crate fast_image_resize): it has the weights of Pillow's bilinear filter and vector
instructions, gives the same pixels with any of them, and holds no Python lock. One pixel in a thousand differs from
Pillow's, by 1 of 255, and features agree to a cosine of 0.99999; but only where columns are resized first, as Pillow
does: in the other order a sixth of the pixels differ, and the cosine falls to 0.9994 (benchmarks/README.md). OpenCV's
ways (INTER_LINEAR, INTER_AREA) come to 0.94 and 0.989.

Where it has no wheel (Linux on ARM) Pillow resizes: what differs is less than between two kinds of processors.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import numpy as np

from tfrecords_schema.manifests.features_info import IM2TXT_CROP

try:
    import cykooz_resizer as fast
except ImportError:
    fast = None

STRIP_PIXELS = 1 << 19  # of an image at a time, since the resizer works on copies; one strip of most photographs
_thread = threading.local()


def resize(strips: Iterable[np.ndarray], size: int, axis: int = 1) -> np.ndarray:
    """uint8 `[size, size, 3]` of an image that comes in strips, made one after the other.

    Args:
      strips: uint8 `[h, w, 3]`, that stand one below the other (axis 1), or one beside the other (axis 0).
      axis: that is resized first.
    """
    return to_shape(strips, (size, size), axis)


def square(rgb: np.ndarray, size: int, axis: int = 1) -> np.ndarray:
    """The same of an image `[h, w, 3]`, in memory of its own: what has the size already would be the image itself.

    That may lie where its thread decodes the next one.
    """
    made = resize(cut(rgb, axis), size, axis)
    return made.copy() if np.may_share_memory(made, rgb) else made


def to_shape(strips: Iterable[np.ndarray], shape: tuple[int, int], axis: int = 1) -> np.ndarray:
    """uint8 `[*shape, 3]` of an image that comes in strips, as `resize` gives it at one size."""
    narrow = [_along(strip, shape[axis], axis) for strip in strips]
    return _along(np.concatenate(narrow, 1 - axis) if len(narrow) > 1 else narrow[0], shape[1 - axis], 1 - axis)


def im2txt(rgb: np.ndarray, size: int) -> np.ndarray:
    """float32 `[size, size, 3]` in 0..255 of an upright image, uint8 `[h, w, 3]`, as im2txt's models were trained.

    That is `process_image` (https://github.com/tensorflow/models/tree/archive/research/im2txt): TensorFlow 1's
    `resize_images`, whose pixels are points at their upper left corners and which does not antialias, then the middle.
    What lies outside of the middle is not computed.
    """
    (top, bottom, down), (left, right, across) = (_neighbours(length, size) for length in rgb.shape[:2])
    # Rows as one line of numbers each: `take` from lines is eight times as fast as indexing pixels.
    lines = rgb[np.concatenate([top, bottom])].reshape(2 * size, -1)  # [2 * size, w * 3]
    columns = (np.ravel(3 * places[:, None] + np.arange(3)) for places in (left, right))
    start, end = (lines.take(each, axis=1).astype(np.float32) for each in columns)  # [2 * size, size * 3]
    upper, lower = np.split(start + (end - start) * across.repeat(3), 2)
    return (upper + (lower - upper) * down[:, None]).reshape(size, size, 3)


def _neighbours(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pixel before, pixel behind, how far between them in 0..1), `[size]` each, along an axis of so many pixels."""
    side = round(size * IM2TXT_CROP)
    first = (side - size) // 2
    place = np.arange(first, first + size, dtype=np.float32) * np.float32(length / side)
    before = place.astype(np.int64)
    return before, np.minimum(before + 1, length - 1), place - before.astype(np.float32)


def cut(rgb: np.ndarray, axis: int) -> Iterable[np.ndarray]:
    """An image `[h, w, 3]` as the strips that `resize` takes."""
    step = max(1, STRIP_PIXELS // rgb.shape[axis])
    starts = range(0, rgb.shape[1 - axis], step)
    return (rgb[start : start + step] if axis else rgb[:, start : start + step] for start in starts)


def _along(rgb: np.ndarray, size: int, axis: int) -> np.ndarray:
    """With `size` pixels along one axis."""
    if rgb.shape[axis] == size:
        return rgb
    height, width = (rgb.shape[0], size) if axis else (size, rgb.shape[1])
    if fast is None:
        from PIL import Image

        return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))
    source = fast.ImageData(rgb.shape[1], rgb.shape[0], fast.PixelType.U8x3, rgb.tobytes())
    target = fast.ImageData(width, height, fast.PixelType.U8x3)
    resizer, bilinear = _resizer()
    resizer.resize(source, target, bilinear)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, 3)


def _resizer() -> tuple[Any, Any]:
    """The resizer of this thread, since one does one thing at a time, and its options."""
    if not hasattr(_thread, "resizer"):
        bilinear = fast.ResizeAlg.convolution(fast.FilterType.bilinear)
        _thread.resizer = fast.Resizer(), fast.ResizeOptions(resize_alg=bilinear)
    return _thread.resizer
