"""Images/s of the feature pipeline over images/s of the bare network: `python -m benchmarks.features`.

Bare and pipeline runs take turns in one process: the same threads, and the same share of a noisy machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import pathlib
import statistics
import tempfile
import time

import numpy as np
from PIL import Image


def draw_photo(generator: np.random.Generator) -> bytes:
    """A 640 x 480 JPEG with detail at every scale, about as many bytes as a COCO photograph (160 kB)."""
    pixels = np.zeros((480, 640, 3))
    for cells in (4, 16, 64, 160):
        noise = generator.normal(0, 40 / cells**0.3, (cells * 3 // 4, cells, 3))
        channels = [Image.fromarray(noise[..., c].astype(np.float32)).resize((640, 480)) for c in range(3)]
        pixels += np.stack([np.asarray(channel) for channel in channels], axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(np.uint8(np.clip(pixels + 128, 0, 255))).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def write_coco(directory: pathlib.Path, count: int, photos: list[bytes]) -> None:
    """A training split of `count` images, the photos over and over under new names."""
    (directory / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        name = f"{number:012d}.jpg"
        (directory / "images" / name).write_bytes(photos[number % len(photos)])
        images.append({"id": number, "file_name": name})
        annotations += [{"image_id": number, "caption": f"A picture, number {n} of five."} for n in range(5)]
    (directory / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def bare_rate(extractor, seconds: float) -> float:
    """Images/s of the network alone, on one batch of pixels that is there already."""
    size = extractor.network.size
    pixels = np.random.default_rng(0).integers(0, 256, (extractor.batch_size, size, size, 3), np.uint8)
    extractor(pixels)
    started, batches = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        extractor(pixels)
        batches += 1
    return batches * extractor.batch_size / (time.perf_counter() - started)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--images", type=pathlib.Path, help="directory of JPEGs to use instead of drawn ones")
    p.add_argument("--count", type=int, default=320, help="images in a pipeline run (default 320)")
    p.add_argument("--batch_size", type=int, default=16)
    p.add_argument("--weights", default="random")
    p.add_argument("--rounds", type=int, default=3)
    args = p.parse_args()

    from pipelines import extractors, features

    generator = np.random.default_rng(0)
    if args.images:
        photos = [path.read_bytes() for path in sorted(args.images.glob("*.jpg"))]
    else:
        photos = [draw_photo(generator) for _ in range(40)]
    extractor = extractors.Extractor("inception_v3", args.weights, args.batch_size).load()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        write_coco(pathlib.Path(scratch) / "coco", args.count, photos)
        for number in range(args.rounds):
            bare = bare_rate(extractor, seconds=10)
            with contextlib.redirect_stdout(io.StringIO()):
                report = features.run(
                    output=f"{scratch}/features-{number}",
                    train_images=f"{scratch}/coco/images",
                    train_captions=f"{scratch}/coco/captions.json",
                    weights=args.weights,
                    batch_size=args.batch_size,
                )
            bare = statistics.mean([bare, bare_rate(extractor, seconds=10)])
            rows.append((bare, report["images_per_second_per_worker"], report["seconds"], report["load_seconds"]))
            print(f"round {number + 1}: bare {bare:.1f}, pipeline {rows[-1][1]:.1f} images/s", flush=True)

    bare, rate, seconds, load = (statistics.median(row[column] for row in rows) for column in range(4))
    ratio = statistics.median(row[1] / row[0] for row in rows)
    making = args.count / rate
    mean_size = statistics.mean(map(len, photos)) / 1000
    print(f"\n{args.count} JPEGs of {mean_size:.0f} kB, batch {args.batch_size}, medians of {args.rounds} rounds\n")
    print("| what | value |\n|---|---|")
    print(f"| bare forward pass | {bare:.1f} images/s |")
    print(f"| feature pipeline, network loaded | {rate:.1f} images/s |")
    print(f"| **pipeline / bare** (median of the rounds' ratios) | **{ratio:.3f}** |")
    print(f"| loading and tracing the network | {load:.1f} s |")
    print(f"| the rest of start-up and of the end | {seconds - load - making:.1f} s |")


if __name__ == "__main__":
    main()
