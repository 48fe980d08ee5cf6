"""What decoding costs, whole and at reduced scale, and how near the features are: `python -m benchmarks.decode`."""

from __future__ import annotations

import argparse
import io
import pathlib
import statistics
import time

import numpy as np
from PIL import Image

from benchmarks.features import load_photos

_COUNT = 16


def enlarged(photo: bytes, factor: int) -> bytes:
    """The photograph `factor` times as wide and high, with a camera's noise, as JPEG."""
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    large = np.asarray(image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC), np.int16)
    noisy = large + np.random.default_rng(0).normal(0, 4, large.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.uint8(np.clip(noisy, 0, 255))).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def decode_whole(data: bytes, size: int) -> np.ndarray:
    """Every pixel decoded, then resized as the pipelines do it."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--images", type=pathlib.Path, help="directory of JPEGs to use instead of drawn ones")
    p.add_argument("--weights", default="random")
    args = p.parse_args()

    from pipelines.vision import extractors, images

    extractor = extractors.Extractor("inception_v3", args.weights, _COUNT).load()
    photos = load_photos(args.images)[:_COUNT]
    ways = {"whole": decode_whole, "ours": lambda data, size: images.decode(data, size).rgb}
    print("| JPEG | decoding | ms of one core | largest difference of a pixel | least cosine of features |")
    print("|---|---|---|---|---|")
    for factor in (1, 2, 4, 6):
        data = photos if factor == 1 else [enlarged(photo, factor) for photo in photos]
        width, height = Image.open(io.BytesIO(data[0])).size
        pixels, features = {}, {}
        for name, decode in ways.items():
            seconds = []
            for entry in data:
                started = time.process_time()
                decode(entry, extractor.size)
                seconds.append(time.process_time() - started)
            pixels[name] = np.stack([decode(entry, extractor.size) for entry in data])
            features[name] = extractor(pixels[name])
            a, b = features[name], features["whole"]
            cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            difference = np.abs(pixels[name].astype(int) - pixels["whole"]).max()
            cost = 1000 * statistics.median(seconds)
            print(f"| {width} x {height} | {name} | {cost:.1f} | {difference} | {cosine.min():.6f} |", flush=True)


if __name__ == "__main__":
    main()
