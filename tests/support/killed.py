"""Runs of the pipelines' steps that are killed: `python -m tests.support.killed DIRECTORY SEED`.

Each run is a process, forked where Beam is imported already, that gets SIGKILL at a change of the file system:
before it renames, deletes or makes something. After each, a reader must find a whole output, or where there was none
none; in the end, what a run that nobody disturbed has made. Prints how many runs were killed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.items import Item
from pipelines.listing.catalogue import open_catalogue
from pipelines.output import lifecycle, publishing, start, steps
from pipelines.output.names import Names
from pipelines.output.sharding import ProcessShard
from tests.support.lines import Lines
from tests.support.outputs import content

NAMES = Names(["train"], [".txt"], ["words.txt"], "manifest.json")
CHANGES = ("replace", "rename", "remove", "unlink", "mkdir", "rmdir")
BAD = {str(number): "decode" for number in range(7, 61, 10)}


def publish(results, publication, words):
    """The last step: a text and a manifest that names it."""

    def manifest():
        name = publication.settle_text("words.txt", words)
        shards = {result.name: result.sha256 for result in results}
        told = {"words": name, "digest": hashlib.sha256(words.encode()).hexdigest(), "shards": shards}
        told["names"] = [name, *shards]
        return NAMES.manifest, json.dumps(told), {"words.txt": name}

    yield from publishing.publish(publication, results, ("next",), manifest)


def run(directory: pathlib.Path, version: str) -> None:
    """A whole run over sixty images, some of which are others in each version."""
    changed = {"one": 0, "two": 9, "three": 40}[version]
    items = [
        Item(str(n), f"{n}.jpg", (version if n < changed else "x",), None, "train", "v", n)
        for n in range(60 + (version == "three"))
    ]
    with open_catalogue() as catalogue:
        catalogue.add(items)
        begun = start.begin(catalogue, str(directory), lifecycle.Options({}, {}), NAMES, 12, time.time(), False, True)
        with begun as (listing, publication), beam.Pipeline(FnApiRunner()) as pipeline:
            _ = (
                pipeline
                | steps.EveryShard(listing)
                | steps.MakeShards(ProcessShard(Lines(BAD), listing, {}, {}))
                | steps.Finish(publish, publication=publication, words=version)
            )


def killed_at(change: int, task: Callable[[], None]) -> tuple[bool, int]:
    """Runs a task in a fork until that many changes were made: (whether it was killed, how many there were)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        count = 0

        def counted(function, *arguments, **flags):
            nonlocal count
            count += 1
            if count == change:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **flags)

        for name in CHANGES:
            setattr(os, name, functools.partial(counted, getattr(os, name)))
        task()
        os.write(writing, str(count).encode())
        os._exit(0)
    os.close(writing)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(reading) as told:
        return os.WIFSIGNALED(status), int(told.read() or 0)


def require_whole(directory: pathlib.Path, versions: set[str]) -> None:
    """Reads what the manifest and the report name, as readers do."""
    path = directory / NAMES.manifest
    if not path.exists():
        assert "" in versions, "there was a whole output"
        return
    told = json.loads(path.read_text())
    words = (directory / told["words"]).read_text()
    assert words in versions and hashlib.sha256(words.encode()).hexdigest() == told["digest"]
    for name, digest in told["shards"].items():
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest, name
    if (directory / "report.json").exists():
        for name in json.loads((directory / "report.json").read_text())["files"].values():
            assert (directory / name).exists(), name


def main() -> None:
    root, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    chosen = random.Random(seed)
    killed, before = 0, ""
    undisturbed, disturbed, start_ = root / "undisturbed", root / "disturbed", root / "start"
    undisturbed.mkdir()
    for version in ("one", "two", "three"):
        shutil.rmtree(start_, ignore_errors=True)
        shutil.copytree(undisturbed, start_)
        was_killed, changes = killed_at(0, functools.partial(run, undisturbed, version))
        assert not was_killed and changes > 20
        # At random moments, and while it publishes, which is the last that it does.
        for change in sorted(
            {*chosen.sample(range(1, changes - 12), 4), *chosen.sample(range(changes - 12, changes), 4)}
        ):
            shutil.rmtree(disturbed, ignore_errors=True)
            shutil.copytree(start_, disturbed)
            for again in (change, chosen.randrange(1, changes)):
                killed += killed_at(again, functools.partial(run, disturbed, version))[0]
                require_whole(disturbed, {before, version})
            assert not killed_at(0, functools.partial(run, disturbed, version))[0]
            require_whole(disturbed, {version})
            assert content(disturbed) == content(undisturbed), (version, change)
        before = version
    print(f"{killed} killed")


if __name__ == "__main__":
    main()
