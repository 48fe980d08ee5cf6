"""Reading images out of many zip files: `python -m benchmarks.archives`.

Two shards after each other, as the listing has them and as it would have them by a hash of each image's id: from how
many zip files their images are, how many directories of these are read for them, and in what time. In a process of its
own for each, with sixteen threads; images are a few bytes, so that the rest is seen.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import zipfile

from pipelines.listing.catalogue import open_catalogue
from pipelines.listing.table import Listing
from pipelines.sources.image_sets import ImageSets
from pipelines.storage import archives
from pipelines.vision import reading

_IN_SHARD = 1000


def write(directory: pathlib.Path, count: int, members: int) -> None:
    """Zip files of so many members each."""
    for number in range(count):
        with zipfile.ZipFile(directory / f"{number:05}.zip", "w") as archive:
            for member in range(members):
                archive.writestr(zipfile.ZipInfo(f"{number:05}-{member:05}.jpg"), b"image")


def measure(directory: str, hashed: bool) -> list[dict[str, float]]:
    """Of each of two shards that are not empty: images, zip files, directories read, seconds."""
    source, found = ImageSets((f"{directory}/*.zip",)), []
    with tempfile.TemporaryDirectory() as output:
        with open_catalogue(source.metadata_fields()) as catalogue:
            source.list_into(catalogue)
            if hashed:
                catalogue.run("UPDATE entries SET run = NULL")
            listing = Listing(output, {"captions": catalogue.counts()["captions"] // _IN_SHARD})
            listing.write(catalogue, lambda split, number: ("", None))
        shards = (listing.shard("captions", number).items for number in range(listing.shards["captions"]))
        archives.open_archive.cache_clear()
        opened: list[str] = []
        archive = archives.Archive
        archives.Archive = lambda path: opened.append(path) or archive(path)  # type: ignore
        for items in filter(None, shards):
            before, started = len(opened), time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                assert all(pool.map(lambda item: reading.read(item.uri), items))
            one = {"seconds": time.monotonic() - started, "directories": len(opened) - before, "images": len(items)}
            found.append({**one, "files": len({item.uri.partition("!")[0] for item in items})})
            if len(found) == 2:
                break
    return found


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--archives", type=int, default=150)
    p.add_argument("--members", type=int, default=8000)
    p.add_argument("--directory", help="measures what is there, and prints JSON", default="")
    p.add_argument("--hashed", action="store_true")
    args = p.parse_args()
    if args.directory:
        print(json.dumps(measure(args.directory, args.hashed)))
        return
    print("| shards | images | from zip files | directories read | seconds |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        write(pathlib.Path(scratch), args.archives, args.members)
        for name, flags in (("as listed", []), ("by a hash", ["--hashed"])):
            command = [sys.executable, "-m", "benchmarks.archives", "--directory", scratch, *flags]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            for one in json.loads(out):
                told = "| {images:,} | {files} | {directories} | {seconds:.2f} |".format(**one)
                print(f"| {name} {told}")


if __name__ == "__main__":
    main()
