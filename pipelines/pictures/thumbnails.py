"""Image URIs -> thumbnails, or why there is none: threads read and shrink ahead of whoever draws them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pipelines.items import ImageError

if TYPE_CHECKING:
    from PIL import Image

    from pipelines.vision import images

LONGEST_SIDE = 480  # pixels
_THREADS = 16  # more than there are cores, since object stores answer slowly


def read_all(places: Sequence[str | bytes | None]) -> Iterator[Image.Image | ImageError]:
    """The thumbnail of each image, a URI or its bytes, or what is wrong with it, in order."""
    from pipelines.vision import devices

    # Many threads wait for bytes; no more decode than there are cores, since each holds a whole image in memory.
    decoding = threading.BoundedSemaphore(devices.cores())

    def load(place: str | bytes | None) -> Image.Image | ImageError:
        from pipelines.vision import images, memory, reading

        try:
            if not place:
                raise ImageError("read", "Absent", "the table names no file")
            held = contextlib.nullcontext(place) if isinstance(place, bytes) else reading.held(place)
            with held as data:
                encoded = images.Encoded(data, 2 * LONGEST_SIDE)
                with memory.DECODING.taking(encoded.memory), decoding:
                    return shrink(encoded)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="thumbnail") as pool:
        for start in range(0, len(places), 4 * _THREADS):  # not all at once: what is not yet drawn stays in memory
            yield from pool.map(load, places[start : start + 4 * _THREADS])


def shrink(encoded: images.Encoded) -> Image.Image:
    """An image of any format -> 8-bit RGB, upright, its longest side at most LONGEST_SIDE.

    Raises:
      ImageError: stage "decode".
    """
    from PIL import Image

    image, _, _ = encoded.upright()
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return image
