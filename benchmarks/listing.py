"""Seconds and peak memory of listing images, by kind of source and number: `python -m benchmarks.listing`.

Each is listed by a process of its own, from asking which columns there are to the Parquet files that workers read.
`bucket` has twenty directories, on a server with its answers ready. The last column is a plain loop in the same process
just after, as machines are slowed down for minutes at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator

from benchmarks.support import names_server

_RUN = """
import json, resource, sys, tempfile, time
import apache_beam
from pipelines.listing.catalogue import open_catalogue
from pipelines.listing.table import Listing
from pipelines.sources.captioned_images import CaptionedImages, CaptionFile
from pipelines.sources.image_sets import ImageSets

kind, path, place = sys.argv[1:]
captioned = CaptionedImages((CaptionFile(path, (place,)),))
source = captioned if kind == "captions" else ImageSets((path,))
with tempfile.TemporaryDirectory() as output:
    start = time.perf_counter()
    with open_catalogue(source.metadata_fields()) as catalogue:
        source.list_into(catalogue)
        listed = time.perf_counter()
        counts = catalogue.counts()
        shards = {split: max(1000, count // 1000) for split, count in counts.items()}
        Listing(output, shards).write(catalogue, lambda split, number: ("", None))
    written = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
for number in range(10_000_000):
    pass
print(json.dumps([sum(counts.values()), listed - start, written - listed, peak, time.perf_counter() - written]))
"""
KINDS = ("csv", "jsonl", "parquet", "json", "captions", "directory", "bucket")
_DIRECTORIES = 20  # of a bucket


def names(count: int) -> Iterator[str]:
    """Of images, a thousand in a folder."""
    return (f"part-{number // 1000:05d}/image-{number:09d}.jpg" for number in range(count))


def write(directory: pathlib.Path, kind: str, count: int) -> pathlib.Path:
    """A source of so many images, of which only the first is there; but of all in a directory."""
    first = directory / next(names(1))
    first.parent.mkdir(exist_ok=True)
    first.touch()
    path = directory / f"{count}.{'json' if kind == 'captions' else kind}"
    if kind == "directory":
        for folder in range(-(-count // 1000)):
            (path / f"part-{folder:05d}").mkdir(parents=True)
        for name in names(count):
            (path / name).touch()
    elif kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"uri": pa.array(names(count), pa.string())}), path, row_group_size=100_000)
    else:
        with open(path, "w", newline="") as file:
            if kind == "csv":
                csv.writer(file).writerows([("uri",), *((name,) for name in names(count))])
            elif kind == "jsonl":
                file.writelines(json.dumps({"uri": name}) + "\n" for name in names(count))
            else:
                _write_coco(file, count, kind == "captions")
    return path


def _write_coco(file, count: int, captioned: bool) -> None:
    def write_list(entries: Iterable[dict]) -> None:
        file.write("[")
        for number, entry in enumerate(entries):
            file.write(",\n" * bool(number) + json.dumps(entry))
        file.write("]")

    file.write('{"images": ')
    write_list({"id": n, "file_name": name, "height": 480, "width": 640} for n, name in enumerate(names(count)))
    if captioned:
        file.write(', "annotations": ')
        write_list({"image_id": n, "caption": f"Man number {n} is riding a bicycle in the rain."} for n in range(count))
    file.write("}")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--counts", type=int, nargs="+", default=(100_000, 1_000_000), help="also 10000000")
    p.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    p.add_argument("--rounds", type=int, default=1, help="the quickest is told")
    args = p.parse_args()
    rows = []
    for count in args.counts:
        for kind in args.kinds:
            with contextlib.ExitStack() as stack:
                scratch = stack.enter_context(tempfile.TemporaryDirectory())
                # A process that this one starts has at least its memory for a peak, so it never makes much itself.
                code = (
                    "import sys, pathlib; from benchmarks.listing import write; print(write(pathlib.Path(sys.argv[1]), "
                )
                code += "sys.argv[2], int(sys.argv[3])))"
                env, place = None, "s3://names/images"
                if kind == "bucket":
                    env = stack.enter_context(names_server.running(_DIRECTORIES, count // _DIRECTORIES))
                else:
                    make = [sys.executable, "-c", code, scratch, kind, str(count)]
                    place = subprocess.run(make, stdout=-1, check=True).stdout.decode().strip()
                run = [sys.executable, "-c", _RUN, kind, place, scratch]
                found = [
                    json.loads(subprocess.run(run, stdout=-1, check=True, env=env).stdout.splitlines()[-1])
                    for _ in range(args.rounds)
                ]
            listed, seconds, writing, peak, loop = min(found, key=lambda one: one[1] + one[2])
            assert listed == count
            rows.append(f"| {kind} | {count:,} | {seconds:.1f} | {writing:.1f} | {peak:,.0f} MB | {loop:.2f} |")
            print(rows[-1], file=sys.stderr, flush=True)
    print(
        "\n| source | images | listed (s) | sorted, written (s) | peak | a plain loop (s) |\n|---|---|---|---|---|---|"
    )
    print("\n".join(rows))


if __name__ == "__main__":
    main()
