"""What ways to decode and resize cost, and how near the features are: `python -m benchmarks.decode`.

Ways take turns image by image, in a thread as in the pipelines. Those of OpenCV are shown where it is installed
(`pip install opencv-python-headless`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import pathlib
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.features import load_photos
from pipelines.vision import resizing

Way = Callable[[bytes, int], np.ndarray]


def pillow(data: bytes, size: int) -> np.ndarray:
    """Every pixel decoded, then resized, by Pillow: what the others are compared with."""
    image = Image.open(io.BytesIO(data), formats=("JPEG",)).convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def ours(data: bytes, size: int) -> np.ndarray:
    from pipelines.vision import images

    return images.decode(data, size).rgb


def decoded_only(data: bytes, size: int) -> np.ndarray:
    return simplejpeg.decode_jpeg(data, "RGB")


def fast_dct(data: bytes, size: int) -> np.ndarray:
    return resizing.resize([simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True)], size)


def eighths(data: bytes, size: int) -> np.ndarray:
    return resizing.resize([simplejpeg.decode_jpeg(data, "RGB", min_height=size, min_width=size)], size)


def rows_first(data: bytes, size: int) -> np.ndarray:
    return resizing.resize([simplejpeg.decode_jpeg(data, "RGB")], size, axis=0)


def pillows_resize(data: bytes, size: int) -> np.ndarray:
    image = Image.fromarray(simplejpeg.decode_jpeg(data, "RGB"))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


WAYS: dict[str, Way] = {
    "Pillow, decoded whole": pillow,
    "**ours**": ours,
    "simplejpeg, decoded only": decoded_only,
    "simplejpeg, Pillow's resize": pillows_resize,
    "ours, rows first": rows_first,
    "ours, fast DCT and upsampling": fast_dct,
    "ours, decoded at n/8 of the scale": eighths,
}
with contextlib.suppress(ImportError):
    import cv2

    cv2.setNumThreads(1)

    def opencv(method: int) -> Way:
        return lambda data, size: cv2.resize(decoded_only(data, size), (size, size), interpolation=method)

    WAYS |= {
        "simplejpeg, OpenCV's INTER_AREA": opencv(cv2.INTER_AREA),
        "simplejpeg, OpenCV's INTER_LINEAR": opencv(cv2.INTER_LINEAR),
    }


def enlarged(photo: bytes, factor: int) -> bytes:
    """The photograph `factor` times as wide and high, with a camera's noise, as JPEG."""
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    large = np.asarray(image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC), np.int16)
    noisy = large + np.random.default_rng(0).normal(0, 4, large.shape)
    return saved(Image.fromarray(np.uint8(np.clip(noisy, 0, 255))), quality=92)


def saved(image: Image.Image, quality: int) -> bytes:
    """As JPEG, with half of the colours' columns and rows (4:2:0)."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def measured(ways: dict[str, Way], photos: list[bytes], size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of one core for each photograph, the median of the rounds."""
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in photos] for name in ways}
    for _ in range(rounds):
        for number, photo in enumerate(photos):
            for name, way in ways.items():
                started = time.thread_time()
                way(photo, size)
                seconds[name][number].append(time.thread_time() - started)
    return {name: [statistics.median(each) for each in taken] for name, taken in seconds.items()}


def print_table(label: str, ways: dict[str, Way], photos: list[bytes], extractor, rounds: int) -> None:
    with ThreadPoolExecutor(1) as pool:
        seconds = pool.submit(measured, ways, photos, extractor.size, rounds).result()
    first = next(iter(ways))
    expected, reference = None, None
    for name, way in ways.items():
        cost = 1000 * statistics.median(seconds[name])
        times = statistics.median(a / b for a, b in zip(seconds[first], seconds[name], strict=True))
        row = f"| {label} | {name} | {cost:.2f} | {times:.2f} |"
        if way is decoded_only:
            print(row, "- | - | - |", flush=True)
            continue
        pixels = np.stack([way(photo, extractor.size) for photo in photos])
        features = featured(extractor, pixels)
        expected = pixels if expected is None else expected
        reference = features if reference is None else reference
        cosine = (features * reference).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(reference, axis=1)
        difference = np.abs(pixels.astype(int) - expected)
        share = f"{difference.max()}, {100 * difference.astype(bool).mean():.2f} %"
        print(row, f"{share} | {cosine.min():.6f} | {np.median(cosine):.6f} |", flush=True)


def featured(extractor, pixels: np.ndarray) -> np.ndarray:
    found = []
    for start in range(0, len(pixels), extractor.batch_size):
        batch = pixels[start : start + extractor.batch_size]
        missing = extractor.batch_size - len(batch)
        found.append(extractor(np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.uint8)]))[: len(batch)])
    return np.concatenate(found)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--images", type=pathlib.Path, help="directory of JPEGs to use instead of drawn ones")
    p.add_argument("--weights", default="random")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--large", type=int, default=16, help="how many are enlarged to a camera's sizes (default 16)")
    args = p.parse_args()

    from pipelines.vision import extractors

    extractor = extractors.Extractor("inception_v3", args.weights, 16).load()
    photos = load_photos(args.images)
    print("| JPEG | way | ms of one core | times as fast | pixels that differ: most, share | least cosine | median |")
    print("|---|---|---|---|---|---|---|")
    kilobytes = statistics.mean(map(len, photos)) / 1000
    print_table(f"as they are, {kilobytes:.0f} kB", WAYS, photos, extractor, args.rounds)
    again = [saved(Image.open(io.BytesIO(photo)).convert("RGB"), 85) for photo in photos]
    kilobytes = statistics.mean(map(len, again)) / 1000
    print_table(f"saved again, 4:2:0, {kilobytes:.0f} kB", WAYS, again, extractor, args.rounds)
    for factor in (2, 4, 6):
        large = [enlarged(photo, factor) for photo in photos[: args.large]]
        label = f"{factor} times as large"
        print_table(label, {name: WAYS[name] for name in list(WAYS)[:2]}, large, extractor, args.rounds)


if __name__ == "__main__":
    main()
