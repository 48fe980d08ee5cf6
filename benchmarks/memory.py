"""Peak memory of the two pipelines at two numbers of images: `python -m benchmarks.memory`.

Each run is a process of its own; the figure is the kernel's own, the largest resident set it ever had.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from benchmarks.features import load_photos, write_coco

_RUN = """
import json, resource, sys
from tests.support import commands
getattr(commands, sys.argv[1])(**json.loads(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_mb(flags: dict, command: str = "features") -> float:
    """Runs a pipeline in a new process; its peak in MB."""
    arguments = [sys.executable, "-c", _RUN, command, json.dumps(flags)]
    found = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    return int(found.stdout.split()[-1]) / 1e3


def write_absent(directory: pathlib.Path, count: int) -> dict:
    """A COCO captions file of `count` images that are nowhere, five captions each; returns the flags of a run."""
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": 480, "width": 640} for n in range(count)]
    captions = [
        {
            "id": 5 * n + k,
            "image_id": n,
            "caption": f"Man number {k} is riding a bicycle along road {n % 1000} in the rain.",
        }
        for n in range(count)
        for k in range(5)
    ]
    path = directory / f"absent-{count}.json"
    path.write_text(json.dumps({"images": images, "annotations": captions}))
    return {
        "output": f"{directory}/absent-{count}",
        "train_images": [str(directory)],
        "train_captions": [str(path)],
        "weights": "random",
        "max_reject_fraction": 1.0,
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--images", type=pathlib.Path, help="directory of JPEGs to use instead of drawn ones")
    p.add_argument("--counts", type=int, nargs=2, default=(500, 2500))
    p.add_argument("--absent", type=int, nargs=2, default=(5_000, 50_000), help="entries whose images are missing")
    p.add_argument("--weights", default="random")
    p.add_argument("--model", help="an export for these weights: measures captioning in place of extraction")
    args = p.parse_args()
    photos = load_photos(args.images)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for count in args.counts:
            coco = write_coco(pathlib.Path(scratch) / str(count), count, photos)
            if args.model:
                flags = {"images": coco["train_images"], "model": args.model, "weights": args.weights}
                flags |= {"output": f"{scratch}/captions-{count}", "rows_per_file": 250}
                rows.append(("captions", count, peak_mb(flags, "caption")))
                continue
            for grid in (False, True):
                flags = {
                    "output": f"{scratch}/out-{count}-{grid}",
                    **coco,
                    "weights": args.weights,
                    "feature_grid": grid,
                    "records_per_shard": 250,
                }
                rows.append(("grid" if grid else "pooled", count, peak_mb(flags)))
                print(rows[-1], file=sys.stderr, flush=True)
        for count in () if args.model else args.absent:
            rows.append(("images missing", count, peak_mb(write_absent(pathlib.Path(scratch), count))))
    print("\n| what | images | peak resident memory |\n|---|---|---|")
    for kind, count, peak in rows:
        print(f"| {kind} | {count:,} | {peak:,.0f} MB |")


if __name__ == "__main__":
    main()
