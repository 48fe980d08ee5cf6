"""The feature pipeline where every read takes as long as an object store's answer: `python -m benchmarks.latency`.

Runs with and without the wait take turns in one process, so that they have the same share of a noisy machine.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
import time

from benchmarks.features import load_photos, run_quietly, write_coco


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--images", type=pathlib.Path, help="directory of JPEGs to use instead of drawn ones")
    p.add_argument("--count", type=int, default=400)
    p.add_argument("--wait_msec", type=float, default=50)
    p.add_argument("--weights", default="random")
    p.add_argument("--rounds", type=int, default=3)
    args = p.parse_args()

    from pipelines.vision import reading

    photos = load_photos(args.images)
    read_at_once = reading.read

    def read_slowly(uri: str) -> bytes:
        time.sleep(args.wait_msec / 1e3)
        return read_at_once(uri)

    rates: dict[str, list[float]] = {"none": [], "wait": [], "wait, one thread": []}
    kinds = {"none": (read_at_once, 16), "wait": (read_slowly, 16), "wait, one thread": (read_slowly, 1)}
    with tempfile.TemporaryDirectory() as scratch:
        coco = write_coco(pathlib.Path(scratch) / "coco", args.count, photos)
        for number in range(args.rounds):
            for kind, (reader, threads) in kinds.items():
                reading.read = reader
                output = f"{scratch}/{kind}-{number}"
                report = run_quietly(output=output, weights=args.weights, read_threads=threads, **coco)
                rates[kind].append(report["images_per_second_per_worker"])
    print(f"\n{args.count} JPEGs, medians of {args.rounds} rounds\n")
    print("| each read waits | threads that read | images/s | of the rate without waiting |\n|---|---|---|---|")
    for kind, (reader, threads) in kinds.items():
        share = statistics.median(a / b for a, b in zip(rates[kind], rates["none"], strict=True))
        wait = f"{args.wait_msec:.0f} ms" if reader is read_slowly else "-"
        print(f"| {wait} | {threads} | {statistics.median(rates[kind]):.1f} | {share:.3f} |")


if __name__ == "__main__":
    main()
