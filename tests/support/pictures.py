"""Pictures that look like photographs to a codec, and their bytes."""

import io

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def smooth(height: int, width: int, seed: int = 0) -> Image.Image:
    """Noise of every scale, as photographs have it."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (max(1, height // 9), max(1, width // 9), 3), np.uint8))
    fine = generator.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.uint8(np.clip(np.asarray(coarse.resize((width, height))) + fine, 0, 255)))
