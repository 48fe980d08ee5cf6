"""How many requests a run costs in an object store, by image, shard and run: `python -m benchmarks.requests`.

Three runs on moto's S3, of which two differ in the number of images alone, and two in the number of shards alone; the
differences are what an image and a shard cost. Requests that tell progress go by the clock, and are left out.
"""

from __future__ import annotations

import collections
import contextlib
import io
import itertools
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator

from benchmarks.support import scale_data
from tests.support import commands, stores

RUNS = {"few": (40, 4), "more images": (120, 4), "more shards": (120, 12)}  # images, shards
KINDS = ("LIST", "GET", "HEAD", "PUT", "DELETE", "POST")


def kind_of(line: str) -> str | None:
    """LIST, GET and others; None for what tells progress."""
    method, path = re.search(r'"(?:\x1b\[[\d;]*m)*([A-Z]+) (\S+)', line).groups()  # 404s are coloured
    if "progress" in path:
        return None
    return "LIST" if "list-type=2" in path else method


@contextlib.contextmanager
def counted(store: stores.Store, found: collections.Counter) -> Iterator[None]:
    """Counts the requests of a block."""
    before = len(store.requests())
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
    found.update(kind for line in store.requests()[before:] if (kind := kind_of(line)))


def run(pipeline: str, store: stores.Store, networks: pathlib.Path, count: int, shards: int) -> dict[str, int]:
    """The requests of a first run, and of the same again under the names with "again"."""
    images = store.url(f"images-{count}")
    output = store.url(f"{pipeline}-{count}-{shards}")
    each = count // shards
    flags: dict = {"images": [images], "output": output}
    if pipeline == "features":
        flags |= {"captions": [str(networks / f"{count}.csv")], "extractor": f"saved_model:{networks}/network"}
        flags |= {"records_per_shard": each, "min_word_count": 1}
    else:
        flags |= {"model": str(networks / "export"), "rows_per_file": each}
    tempfile.tempdir = tempfile.mkdtemp(dir=networks)  # as on a machine that has no copies of weights yet
    found: dict[str, int] = {}
    for suffix in ("", " again"):
        requests: collections.Counter[str] = collections.Counter()
        with counted(store, requests):
            getattr(commands, pipeline)(**flags)
        found |= {kind + suffix: requests[kind] for kind in KINDS}
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, stores.running("s3", pathlib.Path(scratch)) as store:
        os.environ.update(store.env)
        networks = pathlib.Path(scratch)
        scale_data.write_networks(networks)
        for count in {count for count, _ in RUNS.values()}:
            rows = ["image,caption,split"]
            for number, name in scale_data.names(0, count):
                store.put(f"images-{count}/{name}", scale_data.draw(number))
                rows.append(f"{name},a picture of a word,train")
            (networks / f"{count}.csv").write_text("\n".join(rows) + "\n")
        print("| command | request | an image | a shard | a run beside | again: an image | a shard | a run beside |")
        print("|---|---|---|---|---|---|---|---|")
        for pipeline, kind in itertools.product(("features", "caption"), KINDS):
            if kind == KINDS[0]:
                found = {name: run(pipeline, store, networks, *sizes) for name, sizes in RUNS.items()}
            cells = [value for suffix in ("", " again") for value in _parts(found, kind + suffix)]
            print(f"| `{pipeline}` | {kind} | " + " | ".join(f"{value:.2f}" for value in cells) + " |", flush=True)


def _parts(found: dict[str, dict[str, int]], kind: str) -> tuple[float, float, float]:
    few, images, shards = ((*RUNS[name], found[name][kind]) for name in RUNS)
    image = (images[2] - few[2]) / (images[0] - few[0])
    shard = (shards[2] - images[2]) / (shards[1] - images[1])
    return image, shard, few[2] - few[0] * image - few[1] * shard


if __name__ == "__main__":
    main()
