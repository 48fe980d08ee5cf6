"""JPEGs read from a disk, decoded and batched, over the bare decoder on the same threads: `python -m benchmarks.feed`.

The network is one that costs nothing. Both take turns; the bare decoder is given bytes that are in memory already.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.features import load_photos


@dataclasses.dataclass(frozen=True)
class FreeNetwork:
    """What the reading path asks of an extractor."""

    size: int = 299
    batch_size: int = 64


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--images", type=pathlib.Path, help="directory of JPEGs to use instead of drawn ones")
    p.add_argument("--count", type=int, default=1000, help="images in a turn (default 1000)")
    p.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    p.add_argument("--rounds", type=int, default=5)
    args = p.parse_args()

    from pipelines.clock import StageClock
    from pipelines.items import Item
    from pipelines.vision import devices, extraction, images, reading

    photos, network = load_photos(args.images), FreeNetwork()
    data = [photos[number % len(photos)] for number in range(args.count)]

    def bare(threads: int) -> int:
        with ThreadPoolExecutor(threads) as pool:
            return sum(1 for _ in pool.map(lambda entry: images.decode(entry, network.size), data))

    def fed(threads: int) -> int:
        batches = extraction._batches(items, network, reading.Reading(threads), StageClock())
        return sum(map(len, batches))

    with tempfile.TemporaryDirectory() as scratch:
        items = []
        for number, entry in enumerate(data):
            path = pathlib.Path(scratch) / f"{number}.jpg"
            path.write_bytes(entry)
            items.append(Item(str(number), str(path)))
        kilobytes = statistics.mean(map(len, photos)) / 1000
        print(f"{args.count} JPEGs of {kilobytes:.0f} kB, {devices.cores()} cores, medians of {args.rounds} rounds\n")
        print("| threads | bare decoder, images/s | read, decoded, batched | over bare | ms of a core, bare | fed |")
        print("|---|---|---|---|---|---|")
        for threads in args.threads:
            rows = []
            for number in range(args.rounds + 1):
                row = []
                for way in (bare, fed) if number % 2 else (fed, bare):
                    started, worked = time.perf_counter(), time.process_time()
                    assert way(threads) == args.count
                    row.append((args.count / (time.perf_counter() - started), time.process_time() - worked))
                rows.append(row if number % 2 else row[::-1])
            rows = rows[1:]  # the first one warms up
            rate = [statistics.median(row[way][0] for row in rows) for way in (0, 1)]
            cost = [statistics.median(1000 * row[way][1] / args.count for row in rows) for way in (0, 1)]
            ratio = statistics.median(fed_[0] / bare_[0] for bare_, fed_ in rows)
            print(
                f"| {threads} | {rate[0]:.0f} | {rate[1]:.0f} | **{ratio:.2f}** | {cost[0]:.2f} | {cost[1]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
