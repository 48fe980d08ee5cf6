"""Runs of the pipelines' steps that are killed: `python -m tests.support.killed DIRECTORY SEED [s3]`.

Each run is a process, forked where Beam is imported already, that gets SIGKILL at a change of the file system, or of
a bucket: before it renames, deletes or makes something. After each, a reader must find a whole output, or where there
was none none; in the end, what a run that nobody disturbed has made. Prints how many runs were killed.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable, Iterator

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.items import Item
from pipelines.listing.catalogue import open_catalogue
from pipelines.output import lifecycle, publishing, start, steps
from pipelines.output.names import Names
from pipelines.output.sharding import ProcessShard
from tests.support import stores
from tests.support.lines import Lines
from tests.support.outputs import content
from tfrecords_schema.storage import objects

MANIFEST = "manifest.json"
NAMES = Names(["train"], [".txt"], ["words.txt"], [MANIFEST])
CHANGES = ("link", "replace", "rename", "remove", "unlink", "mkdir", "rmdir")
REMOTE_CHANGES = ("write", "delete")
BAD = {str(number): "decode" for number in range(7, 61, 10)}


def publish(results, publication, words):
    """The last step: a text and a manifest that names it."""

    def manifests(results):
        name = publication.settle_text("words.txt", words)
        shards = {result.name: result.sha256 for result in results}
        told = {"words": name, "digest": hashlib.sha256(words.encode()).hexdigest(), "shards": shards}
        told["names"] = [name, *shards]
        return {MANIFEST: json.dumps(told)}, {"words.txt": name}

    yield from publishing.publish(publication, results, ("next",), manifests, alike=True)


class Local:
    """Outputs on this machine."""

    each = 4  # moments, of each kind and version

    def __init__(self, root: pathlib.Path):
        self._root = root

    def path(self, name: str) -> str:
        return str(self._root / name)

    def copy(self, source: str, target: str) -> None:
        shutil.rmtree(self._root / target, ignore_errors=True)
        (self._root / source).mkdir(exist_ok=True)
        shutil.copytree(self._root / source, self._root / target)

    def seen(self, name: str) -> pathlib.Path:
        """What a reader finds of it now."""
        return self._root / name

    def count(self, changing: Callable[[], None]) -> None:
        """Has all that changes something here call this first."""

        def counted(function, *arguments, **flags):
            changing()
            return function(*arguments, **flags)

        for name in CHANGES:
            setattr(os, name, functools.partial(counted, getattr(os, name)))


class Bucket:
    """Outputs in a store."""

    each = 3

    def __init__(self, store: stores.Store, root: pathlib.Path):
        self._store, self._root = store, root

    def path(self, name: str) -> str:
        return self._store.url(name)

    def copy(self, source: str, target: str) -> None:
        for name in self._store.listing(target):
            self._store.delete(f"{target}/{name}")
        for name in self._store.listing(source):
            self._store.put(f"{target}/{name}", self._store.get(f"{source}/{name}"))

    def seen(self, name: str) -> pathlib.Path:
        shutil.rmtree(self._root / name, ignore_errors=True)
        (self._root / name).mkdir()
        return self._store.get_directory(name, self._root / name)

    def count(self, changing: Callable[[], None]) -> None:
        ask = objects._call

        def counted(method, *arguments, **flags):
            if method in REMOTE_CHANGES:
                changing()
            return ask(method, *arguments, **flags)

        objects._call = counted


Outputs = Local | Bucket


@contextlib.contextmanager
def outputs(root: pathlib.Path, kind: str | None) -> Iterator[Outputs]:
    """Where outputs are to be: here, or in a store of this kind."""
    if kind is None:
        yield Local(root)
        return
    with stores.running(kind, root) as store:
        os.environ.update(store.env)
        yield Bucket(store, root)


def run(directory: str, version: str) -> None:
    """A whole run over sixty images, some of which are others in each version."""
    changed = {"one": 0, "two": 9, "three": 40}[version]
    items = [
        Item(str(n), f"{n}.jpg", (version if n < changed else "x",), None, "train", "v", n)
        for n in range(60 + (version == "three"))
    ]
    with open_catalogue() as catalogue:
        catalogue.add(items)
        begun = start.begin(catalogue, directory, lifecycle.Options({}, {}), NAMES, 12, time.time(), False, True)
        with begun as (listing, publication), beam.Pipeline(FnApiRunner()) as pipeline:
            _ = (
                pipeline
                | steps.EveryShard(listing)
                | steps.MakeShards(ProcessShard(Lines(BAD), listing, {}, {}))
                | steps.Finish(publish, publication=publication, words=version)
            )


def killed_at(outputs: Outputs, change: int, task: Callable[[], None]) -> tuple[bool, int]:
    """Runs a task in a fork until that many changes were made: (whether it was killed, how many there were)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        count = 0

        def changing():
            nonlocal count
            count += 1
            if count == change:
                os.kill(os.getpid(), signal.SIGKILL)

        outputs.count(changing)
        task()
        os.write(writing, str(count).encode())
        os._exit(0)
    os.close(writing)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(reading) as told:
        return os.WIFSIGNALED(status), int(told.read() or 0)


def require_whole(directory: pathlib.Path, versions: set[str]) -> None:
    """Reads what the manifest and the report name, as readers do."""
    path = directory / MANIFEST
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
    root, seed, *kind = sys.argv[1:]
    with outputs(pathlib.Path(root), *kind or [None]) as found:
        print(f"{kill_often(found, random.Random(int(seed)))} killed")


def kill_often(outputs: Outputs, chosen: random.Random) -> int:
    """A first run and two reruns, each killed at many moments and gone on with; how many runs were killed."""
    killed, before = 0, ""
    for version in ("one", "two", "three"):
        outputs.copy("undisturbed", "start")
        task = functools.partial(run, outputs.path("undisturbed"), version)
        was_killed, changes = killed_at(outputs, 0, task)
        assert not was_killed and changes > 20
        expected = content(outputs.seen("undisturbed"))
        task = functools.partial(run, outputs.path("disturbed"), version)
        # At random moments, and while it publishes, which is the last that it does.
        moments = [range(1, changes - 12), range(changes - 12, changes)]
        for change in sorted(one for some in moments for one in chosen.sample(some, outputs.each)):
            outputs.copy("start", "disturbed")
            for again in (change, chosen.randrange(1, changes)):
                killed += killed_at(outputs, again, task)[0]
                require_whole(outputs.seen("disturbed"), {before, version})
            assert not killed_at(outputs, 0, task)[0]
            require_whole(outputs.seen("disturbed"), {version})
            assert content(outputs.seen("disturbed")) == expected, (version, change)
        before = version
    return killed


if __name__ == "__main__":
    main()
