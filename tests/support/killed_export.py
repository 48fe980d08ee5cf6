"""Exports that are killed: `python -m tests.support.killed_export DIRECTORY`, which holds two exports, `old` and `new`.

An ensemble of both is written over a copy of the old one. Each time, a process gets SIGKILL at a change of the file
system: at each of the last ones, and at some before. After each, a reader must find the old or the new export whole, or
none; in the end, by the same command, the new one. Prints what the readers found.
"""

from __future__ import annotations

import collections
import functools
import importlib
import os
import pathlib
import random
import shutil
import sys

from pipelines.captions.exports import check_model, open_model
from tests.support import commands
from tests.support.killed import Local, killed_at
from tfrecords_schema.errors import InputError
from tfrecords_schema.quiet import import_tensorflow

_LAST, _OTHERS = 9, 3  # changes of the file system


def digest_of(directory: pathlib.Path, found: pathlib.Path) -> None:
    """Writes the digest of an export that is whole, or why it is refused."""
    try:
        info, _ = open_model(str(directory))
        check_model(str(directory), info)
        found.write_text(info.digest)
    except InputError as error:
        found.write_text(f"refused: {error}")


def read(directory: pathlib.Path, found: pathlib.Path) -> str:
    """The same in a process of its own: this one must not have run TensorFlow when it forks."""
    assert not killed_at(Local(directory), 0, functools.partial(digest_of, directory, found))[0]
    return found.read_text()


def main() -> None:
    import_tensorflow()  # once, and not in each fork: it takes longer than the export
    importlib.import_module("trainer.model.exported")
    root = pathlib.Path(sys.argv[1])
    output, found, outputs = root / "output", root / "found", Local(root)
    members = [str(root / "old"), str(root / "new")]
    export = functools.partial(commands.export, ensemble=members, output=str(output), overwrite=True)
    shutil.copytree(root / "old", output)
    old = read(output, found)
    was_killed, changes = killed_at(outputs, 0, export)
    new = read(output, found)
    assert not was_killed and new != old
    outcomes: collections.Counter[str] = collections.Counter()
    names = {old: "old", new: "new"}
    last = range(max(1, changes - _LAST + 1), changes + 1)  # in which the new one takes the old one's place
    for change in (*random.Random(7).sample(range(1, last[0]), _OTHERS), *last):
        shutil.rmtree(output)
        shutil.copytree(root / "old", output)
        assert killed_at(outputs, change, export)[0]
        told = read(output, found)
        assert told in names or ("\n" not in told and not output.exists()), told
        outcomes[names.get(told, "none")] += 1
        if not output.exists() or change == changes:
            assert not killed_at(outputs, 0, export)[0]
            assert read(output, found) == new
            assert set(os.listdir(root)) == {"old", "new", "output", "found"}, "something is left"
    print(dict(outcomes))


if __name__ == "__main__":
    main()
