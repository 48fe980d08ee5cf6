"""The service under load, against the batch job and the bare model: `python -m benchmarks.serve`.

In turns, on the same photographs: the batch job's own captioning in a process that has loaded it, 64 clients of the
service at a time, the two models called one after the other for a photo, one client of the service alone. Then many
requests at once, some of them hostile, with every answer compared with the batch job's captions.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.photo import make_export
from benchmarks.support import clients
from benchmarks.support.seeded import write_weights
from benchmarks.support.turns import Served
from scripts import scenes

_TICKS = os.sysconf("SC_CLK_TCK")


def photos_in(directory: pathlib.Path, count: int) -> list[pathlib.Path]:
    """The first so many JPEGs, again and again where there are fewer."""
    found = sorted(directory.glob("*.jpg"))
    return [found[number % len(found)] for number in range(count)]


def batch(args: argparse.Namespace) -> None:
    """A process that captions as the batch job's workers do, whenever a line comes in."""
    from pipelines.captions.captioning import Captioned
    from pipelines.captions.plan import plan
    from pipelines.clock import StageClock
    from pipelines.items import Item
    from pipelines.settings.caption import CaptionConfig
    from tfrecords_schema import command

    paths = photos_in(args.images, args.count)
    config = command.make(CaptionConfig, model=args.model, images=(str(args.images),), output="/nowhere")
    captioning = plan(config).captioning([]).load()
    items = [Item(str(number), str(path), position=number) for number, path in enumerate(paths)]

    def run(some: list[Item]) -> dict[int, Any]:
        made: dict[int, Any] = {}
        for outcome in captioning.batches(some, StageClock(), lambda: captioning):
            assert isinstance(outcome, list)
            made.update((item.position, one) for item, one in outcome)
        return made

    run(items[:64])
    said = {}
    for number, one in run(items).items():
        assert isinstance(one, Captioned)
        said[str(number)] = [[caption.text, caption.log_prob] for caption in one.captions]
    print(json.dumps(said), flush=True)
    for _ in sys.stdin:
        begun, before = time.perf_counter(), _own_cpu()
        run(items)
        print(json.dumps([time.perf_counter() - begun, _own_cpu() - before]), flush=True)


def bare(args: argparse.Namespace) -> None:
    """A process that calls decoder, network and search for one photo after the other, whenever a line comes in."""
    import numpy as np

    import pipelines
    from pipelines.vision import images

    captioning = pipelines.load(args.model).captioning
    network, dtype, captioner = captioning.features.extractor, captioning.features.dtype, captioning.captioner  # type: ignore[attr-defined]
    data = [path.read_bytes() for path in photos_in(args.images, args.alone)]

    def run() -> list[float]:
        seconds = []
        for one in data:
            begun = time.perf_counter()
            pixels = images.decode(one, network.size).rgb[None]
            captioner(network(pixels).astype(dtype).astype(np.float32), ["0"])
            seconds.append(time.perf_counter() - begun)
        return seconds

    run()
    print("loaded", flush=True)
    for _ in sys.stdin:
        print(json.dumps(statistics.median(run())), flush=True)


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Service:
    """The service in a process of its own."""

    def __init__(self, args: argparse.Namespace):
        flags = ["--model", args.model, "--port", "0", "--max_batch", str(args.max_batch), "--upload_s", "3"]
        command = [sys.executable, "-m", "pipelines.serve", *flags]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, **pipes)
        assert self.process.stdout
        self.port = int(self.process.stdout.readline().rpartition(":")[2])
        assert self.process.stdout.readline() == "ready\n"

    def cpu_seconds(self) -> float:
        """That it has used so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_mb(self) -> float:
        """Of memory, now."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) * 1.024e-3


@contextlib.contextmanager
def serving(args: argparse.Namespace) -> Iterator[Service]:
    """A service, ended by SIGTERM, which must have exit status 0."""
    service = Service(args)
    try:
        yield service
    finally:
        service.process.terminate()
        status = service.process.wait(60)
        print(f"\nafter SIGTERM the service ended with exit status {status}")


def is_same(said: Any, expected: Any) -> bool:
    """Whether an answer has the captions of the batch job, and the same probabilities but for rounding."""
    found = [(one["caption"], one["log_prob"]) for one in said["captions"]]
    texts = [text for text, _ in found] == [text for text, _ in expected]
    return texts and all(abs(a - b) < 1e-3 * abs(b) + 1e-4 for (_, a), (_, b) in zip(found, expected, strict=True))


def main() -> None:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--model", help="export directory; by default one is trained, in a minute, on seeded weights")
    p.add_argument("--images", type=pathlib.Path, help="directory of JPEGs; by default some are drawn")
    p.add_argument("--count", type=int, default=320, help="images in a turn of the batch job and of the 64 clients")
    p.add_argument("--alone", type=int, default=40, help="images in a turn of one client, and of the bare model")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--clients", type=int, default=64)
    p.add_argument("--requests", type=int, default=10_000, help="in the long run, with hostile ones among them")
    p.add_argument("--hostile", type=float, default=0.05, help="share of them")
    p.add_argument("--max_batch", type=int, default=16)
    p.add_argument("--way", choices=("batch", "bare"), help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.way:
        {"batch": batch, "bare": bare}[args.way](args)
        return
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        if not args.model:
            write_weights("inception_v3", f"{scratch}/seeded.weights.h5")
            args.model = make_export("inception_v3", f"{scratch}/seeded.weights.h5", scratch)
        if not args.images:
            args.images = scratch / "photos"
            scenes.write_images(args.images, 40, seed=1, first_id=1)
        measure(args)


def measure(args: argparse.Namespace) -> None:
    """Prints all figures."""
    same = ["--model", args.model, "--images", str(args.images), "--count", str(args.count), "--alone", str(args.alone)]
    ways = {way: Served(["benchmarks.serve", "--way", way, *same]) for way in ("batch", "bare")}
    expected = json.loads(ways["batch"].told)
    photos = [(path.read_bytes(), expected[str(n)]) for n, path in enumerate(photos_in(args.images, args.count))]
    with serving(args) as service:
        clients.run(service.port, photos, min(64, args.count), args.clients)
        _take_turns(args, ways, service, photos)
        for one in ways.values():
            one.end()
        _long(args, service, photos)


def _take_turns(args: argparse.Namespace, ways: dict[str, Served], service: Service, photos: list) -> None:
    shares: dict[str, list[float]] = {"wall": [], "CPU": [], "alone": []}
    print("| round | batch job, images/s (CPU s) | clients, images/s (CPU s) | bare model, ms | one client, ms |")
    print("|---|---|---|---|---|")
    for number in range(args.rounds):
        wall, cpu = ways["batch"].run()
        before = service.cpu_seconds()
        many = clients.run(service.port, photos, args.count, args.clients, check=is_same)
        used = service.cpu_seconds() - before
        model = ways["bare"].run()
        one = clients.run(service.port, photos, args.alone, 1, check=is_same).percentile(0.5)
        for name, share in (("wall", wall / many.wall_s), ("CPU", cpu / used), ("alone", one / model)):
            shares[name].append(share)
        cells = (f"{args.count / wall:.1f} ({cpu:.1f})", f"{args.count / many.wall_s:.1f} ({used:.1f})")
        print(f"| {number + 1} | {' | '.join(cells)} | {1000 * model:.0f} | {1000 * one:.0f} |", flush=True)
        for told in many.wrong[:3]:
            print(told)
    print(
        f"\n{args.clients} clients over the batch job, images/s: {statistics.median(shares['wall']):.2f}; "
        f"images per CPU second of the two processes: {statistics.median(shares['CPU']):.2f}; "
        f"one client over the bare model, time: {statistics.median(shares['alone']):.2f}\n"
    )


def _long(args: argparse.Namespace, service: Service, photos: list) -> None:
    memory: list[tuple[int, float]] = []
    step = max(1, args.requests // 8)

    def every(number: int) -> None:
        if number % step == 0:
            memory.append((number, service.resident_mb()))

    found = clients.run(service.port, photos, args.requests, args.clients, args.hostile, is_same, every)
    hostile = sum(found.counts.values())
    print(f"{len(found.seconds)} good requests of {args.clients} clients, {hostile} hostile ones: {found.counts}")
    print(f"answered otherwise than they should have been: {len(found.wrong)}")
    for told in found.wrong[:10]:
        print(f"  {told}")
    times = ", ".join(f"p{share}: {1000 * found.percentile(share / 100):.0f} ms" for share in (50, 95, 99))
    print(f"{times}; {len(found.seconds) / found.wall_s:.1f} good requests/s")
    memory.append((args.requests, service.resident_mb()))
    print("memory: " + ", ".join(f"{size:,.0f} MB after {number}" for number, size in memory))


if __name__ == "__main__":
    main()
