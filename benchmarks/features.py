"""Images/s of the feature pipeline over images/s of the bare network: `python -m benchmarks.features`.

Bare and pipeline runs take turns: the same threads, and the same share of a noisy machine. The bare network runs on
pixels that are there already: once as many calls at a time as the pipeline makes, in this process, and once one call
at a time with all cores for each operation, TensorFlow's own default, in a process of its own.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import io
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

from tests.support import commands


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


def load_photos(images: pathlib.Path | None) -> list[bytes]:
    """The JPEGs of a directory, or drawn ones."""
    if images:
        return [path.read_bytes() for path in sorted(images.glob("*.jpg"))]
    generator = np.random.default_rng(0)
    return [draw_photo(generator) for _ in range(40)]


def write_coco(directory: pathlib.Path, count: int, photos: list[bytes]) -> dict[str, list[str]]:
    """A training split of `count` images, the photos over and over under new names; returns the flags to read it."""
    (directory / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        name = f"{number:012d}.jpg"
        (directory / "images" / name).write_bytes(photos[number % len(photos)])
        images.append({"id": number, "file_name": name})
        annotations += [{"image_id": number, "caption": f"A picture, number {n} of five."} for n in range(5)]
    (directory / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return {"train_images": [f"{directory}/images"], "train_captions": [f"{directory}/captions.json"]}


def run_quietly(**flags) -> dict:
    """The report of a run of the feature pipeline, whose summary is not printed."""
    with contextlib.redirect_stdout(io.StringIO()):
        return commands.features(**flags)


def bare_rate(extractor, seconds: float, at_a_time: int) -> float:
    """Images/s of the network alone, on one batch of pixels that is there already."""
    size = extractor.size
    pixels = np.random.default_rng(0).integers(0, 256, (extractor.batch_size, size, size, 3), np.uint8)
    started = time.perf_counter()

    def work(_) -> int:
        batches = 0
        while time.perf_counter() - started < seconds:
            extractor(pixels)
            batches += 1
        return batches

    with concurrent.futures.ThreadPoolExecutor(at_a_time) as pool:
        batches = sum(pool.map(work, range(at_a_time)))
    return batches * extractor.batch_size / (time.perf_counter() - started)


class Turns:
    """Images/s as another process measures them, with TensorFlow's own threads; each `measure` is one turn of its."""

    def __init__(self, module: str, *flags: str):
        command = [sys.executable, "-m", module, *flags]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process.stdout.readline()  # loaded

    def measure(self) -> float:
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def one_at_a_time(weights: str, batch_size: int) -> Turns:
    """The network alone, one call at a time."""
    return Turns("benchmarks.features", "--one_at_a_time", "--weights", weights, "--batch_size", str(batch_size))


def serve_one_at_a_time(args: argparse.Namespace) -> None:
    """The other process: measures whenever a line comes in."""
    from pipelines.vision import devices, extractors

    devices.cpu_in_flight = lambda: 1
    extractor = extractors.Extractor("inception_v3", args.weights, args.batch_size).load()
    print("loaded", flush=True)
    for _ in sys.stdin:
        print(bare_rate(extractor, 10, 1), flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--images", type=pathlib.Path, help="directory of JPEGs to use instead of drawn ones")
    p.add_argument("--count", type=int, default=1000, help="images in a pipeline run (default 1000)")
    p.add_argument("--batch_size", type=int, default=16)
    p.add_argument("--weights", default="random")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--one_at_a_time", action="store_true", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.one_at_a_time:
        serve_one_at_a_time(args)
        return

    from pipelines.vision import extractors

    photos = load_photos(args.images)
    one = one_at_a_time(args.weights, args.batch_size)
    extractor = extractors.Extractor("inception_v3", args.weights, args.batch_size).load()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        coco = write_coco(pathlib.Path(scratch) / "coco", args.count, photos)

        def bare() -> tuple[float, float]:
            return one.measure(), bare_rate(extractor, 10, extractor.in_flight)

        before = bare()
        for number in range(args.rounds):
            output = f"{scratch}/features-{number}"
            report = run_quietly(output=output, weights=args.weights, batch_size=args.batch_size, **coco)
            after = bare()
            around = [statistics.mean(pair) for pair in zip(before, after, strict=True)]
            before = after
            rows.append((*around, report["images_per_second_per_worker"], report["seconds"], report["load_seconds"]))
            print(f"round {number + 1}: bare {around[0]:.1f}, {around[1]:.1f}, pipeline {rows[-1][2]:.1f}", flush=True)
    one.close()

    single, several, rate, seconds, load = (statistics.median(column) for column in zip(*rows, strict=True))
    ratios = [statistics.median(row[2] / row[kind] for row in rows) for kind in (0, 1)]
    reading = 1000 * sum(report["stage_seconds"][stage] for stage in ("read", "decode")) / args.count
    mean_size = statistics.mean(map(len, photos)) / 1000
    print(f"\n{args.count} JPEGs of {mean_size:.0f} kB, batch {args.batch_size}, medians of {args.rounds} rounds\n")
    print("| what | value |\n|---|---|")
    print(f"| bare forward pass, one at a time, all cores for each operation | {single:.1f} images/s |")
    print(f"| bare forward pass, {extractor.in_flight} at a time | {several:.1f} images/s |")
    print(f"| feature pipeline, network loaded | {rate:.1f} images/s |")
    print(f"| **pipeline / bare, one at a time** (median of the rounds' ratios) | **{ratios[0]:.3f}** |")
    print(f"| **pipeline / bare, {extractor.in_flight} at a time** | **{ratios[1]:.3f}** |")
    print(f"| reading and decoding, a thread's time | {reading:.1f} ms/image |")
    print(f"| loading and tracing the network | {load:.1f} s |")
    print(f"| start-up and end beside that | {seconds - load - args.count / rate:.1f} s |")
    print(f"| on disk | {report['bytes'] / report['records'] / 1e3:.2f} kB/image |")


if __name__ == "__main__":
    main()
