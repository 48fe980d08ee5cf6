"""What the system itself costs an image, with a network that costs next to nothing: `python -m benchmarks.scale`.

Small JPEGs (benchmarks/support/scale_data.py) go once through each pipeline, a process as a user would start it, and
then the same command again, which has nothing to do. A first run of one shard tells what starting costs, so that what
an image costs is the difference of two runs over the difference of their images.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from benchmarks.support.watching import Watched, watch

COMMANDS = ("features", "caption")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a pipeline, and the same again. `phases` is how long it was at each, in seconds."""

    count: int
    first: Watched
    again: Watched
    report: dict
    phases: dict[str, float]
    sizes: dict[str, int]


class Phases:
    """Tells from the files of an output, while they come, when a run went from one phase to the next."""

    def __init__(self, output: pathlib.Path):
        self._output, self._begun, self._listed = output, time.time(), 0.0

    def look(self) -> bool:
        """False, as it kills nothing; see watch()."""
        # The last step before workers begin is the listing's last file.
        with contextlib.suppress(OSError):
            files = os.scandir(self._output / ".work" / "listing")
            self._listed = max([self._listed, *(file.stat().st_mtime for file in files)])
        return False

    def seconds(self, ended: float) -> dict[str, float]:
        """Of start-up with listing, of shards (the first waits for the network), of publishing, and of the end."""
        shards = max(path.stat().st_mtime for path in (self._output / ".shards").glob("*-of-*.parquet"))
        published = (self._output / "report.json").stat().st_mtime
        times = [self._begun, self._listed, shards, published, ended]
        steps = (after - before for before, after in itertools.pairwise(times))
        return dict(zip(("listed", "shards", "published", "ended"), steps, strict=True))


def command(pipeline: str, data: pathlib.Path, networks: pathlib.Path, output: pathlib.Path) -> list[str]:
    """The command line."""
    flags = {
        "features": [
            *("--captions", str(data / "captions.csv"), "--images", f"{data}/zip/*.zip"),
            *("--extractor", f"saved_model:{networks}/network"),
        ],
        "caption": [
            *("--images", f"{data}/parquet/*.parquet", "--image_column", "image", "--id_column", "name"),
            *("--model", f"{networks}/export"),
        ],
    }
    common = ["--batch_size", "64", "--output", str(output)]
    return [sys.executable, "-m", f"pipelines.{pipeline}", *flags[pipeline], *common]


def measure(line: list[str], output: pathlib.Path, count: int) -> Run:
    """Runs a command line twice."""
    shutil.rmtree(output, ignore_errors=True)
    phases = Phases(output)
    first = _ran(line, phases.look)
    report, seconds = _report(output), phases.seconds(time.time())
    again = _ran(line)
    found = [(told["inputs"], told[name]) for told, name in ((report, "new"), (_report(output), "kept"))]
    if found != [(count, count)] * 2:
        sys.exit(f"expected {count} images, all new and then all kept, found {found}")
    names = ("features_info.json", "report.json", *_report(output)["files"].values())
    sizes = {name: (output / name).stat().st_size for name in names if (output / name).exists()}
    sidecars = [path.stat().st_size for path in (output / ".shards").glob("*-of-*.parquet")]
    return Run(count, first, again, report, seconds, sizes | {"sidecars": sum(sidecars)})


def _ran(line: list[str], look: Callable[[], bool] = lambda: False) -> Watched:
    watched = watch(line, kill_when=look)
    if watched.status:
        sys.exit(f"{' '.join(line)}: status {watched.status}\n{watched.tail}")
    return watched


def _report(output: pathlib.Path) -> dict:
    return json.loads((output / "report.json").read_text())


def row(pipeline: str, run: Run, start: Run) -> str:
    """Of the table."""
    first, more = run.first, max(1, run.count - start.count)
    cpu = 1e3 * (first.cpu_seconds - start.first.cpu_seconds) / more
    pure = 1e3 * (first.seconds - start.first.seconds) / more
    phases = " + ".join(f"{seconds:.1f}" for seconds in run.phases.values())
    cells = [
        f"`{pipeline}`",
        f"{run.count:,}",
        f"{first.seconds:.0f}",
        phases,
        f"{run.count / run.phases['shards']:,.0f}",
        f"{cpu:.2f}" if run.count > start.count else "",
        f"{pure:.2f}" if run.count > start.count else "",
        f"{first.root_mb:,.0f}" + (f" + {first.child_mb:,.0f}" if first.child_mb > 50 else ""),
        f"{run.again.seconds:.0f}",
        f"{run.again.root_mb:,.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| command | images | seconds | listed + shards + published + ended | images/s in shards | CPU, ms an image "
    "| clock, ms an image | peak, MB | again, seconds | again, MB |\n|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--images", default="10000,100000,1000000", help="how many, in turn (default %(default)s)")
    p.add_argument("--first", type=int, default=1000, help="images of the run that tells what starting costs")
    p.add_argument("--pipelines", nargs="+", choices=COMMANDS, default=COMMANDS)
    p.add_argument("--workers", type=int, help="processes of Beam's own (default: all in one)")
    p.add_argument("--scratch", type=pathlib.Path, help="where images are made, and kept for a later run")
    args = p.parse_args()
    counts = [args.first, *map(int, args.images.split(","))]
    beam = ["--direct_running_mode=multi_processing", f"--direct_num_workers={args.workers}"] if args.workers else []
    rows, told = [], []
    with tempfile.TemporaryDirectory() as temporary:
        scratch = (args.scratch or pathlib.Path(temporary)).absolute()
        networks = scratch / "networks"
        if not networks.exists():
            networks.mkdir(parents=True)
            _make("networks", networks)
        starts: dict[str, Run] = {}
        for count in counts:
            data = scratch / f"images-{count}"
            if not (data / "made").exists():
                shutil.rmtree(data, ignore_errors=True)
                _make("images", data, str(count))
                (data / "made").touch()
            for pipeline in args.pipelines:
                output = scratch / f"{pipeline}-{count}"
                line = [*command(pipeline, data, networks, output), *beam]
                run = measure(line, output, count)
                starts.setdefault(pipeline, run)
                rows.append(row(pipeline, run, starts[pipeline]))
                told.append(f"`{pipeline}`, {count:,}: {_stages(run)}")
                print(rows[-1], told[-1], sep="\n", file=sys.stderr, flush=True)
                shutil.rmtree(output)
    print(f"\n{HEAD}", *rows, "", *told, sep="\n")


def _make(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.support.scale_data", *map(str, arguments)], check=True)


def _stages(run: Run) -> str:
    """Threads' time in each stage, of an image; then the bytes of what grows with the number of images or shards."""
    times = (f"{name} {1e3 * seconds / run.count:.2f}" for name, seconds in run.report["stage_seconds"].items())
    sizes = (f"{name} {size:,}" for name, size in run.sizes.items())
    return f"{', '.join(times)} ms; bytes: {', '.join(sizes)}"


if __name__ == "__main__":
    main()
