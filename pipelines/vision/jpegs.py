"""JPEGs decoded by libjpeg-turbo straight to RGB; Pillow has the same library, but carries pixels about for longer.

Why `simplejpeg`: it holds no Python lock while it decodes, makes an error of each warning, decodes at a part of the
scale, brings its own libjpeg-turbo, and is a small wheel for every machine that TensorFlow runs on. Its pixels are
Pillow's to the last bit. Its fast DCT saves a twentieth, and costs features their nearness: a cosine of 0.9945
(benchmarks/README.md); im2txt's models were trained on it, since it is TensorFlow's default.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from tfrecords_schema.storage import faults

if TYPE_CHECKING:
    from PIL import ImageFile

_KEPT_BYTES = 4 << 20  # each thread decodes into the same memory: fresh pages cost half as much as the resize
_thread = threading.local()


def decoded(data: bytes, image: ImageFile.ImageFile, is_scaled: bool, fast_dct: bool = False) -> np.ndarray | None:
    """RGB as it is stored, uint8 `[image.height, image.width, 3]`; this thread's next call may write over it.

    None for another format or kind of JPEG, and for a JPEG of which libjpeg-turbo says anything at all: whether that is
    good enough is Pillow's to say.

    Args:
      image: Pillow's, of the same data, with its header read.
      is_scaled: whether its `draft` chose a size below that of the file.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("L", "RGB"):
        return None
    width, height = image.size
    least = {"min_height": height, "min_width": width} if is_scaled else {}
    try:
        rgb = simplejpeg.decode_jpeg(data, "RGB", fastdct=fast_dct, buffer=_buffer(height * width * 3), **least)
    except Exception as error:  # a ValueError, or whatever it is: Pillow tries too, and gives the reason
        if faults.is_of_the_machine(error):
            raise
        return None
    return rgb if rgb.shape == (height, width, 3) else None


def _buffer(size: int) -> np.ndarray | None:
    if size > _KEPT_BYTES:
        return None
    if not hasattr(_thread, "buffer"):
        _thread.buffer = np.empty(_KEPT_BYTES, np.uint8)
    return _thread.buffer
