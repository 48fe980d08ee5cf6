"""The real commands, run() and all, for fewer cases: what they write must add up, and nothing else may change."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

from pipelines.pictures import choice
from tests.fuzz.oracle import Seen
from tests.support import commands
from tests.support.small import TINY, train, write_features

_NOTES = "notes.md"  # of somebody who keeps them beside our files
_PATIENT = {"max_reject_fraction": 1.0, "read_retries": 0}


def features(given: pathlib.Path, output: pathlib.Path) -> Seen:
    """`pipelines.features` of a captions file."""
    _known()
    flags = {"captions": [str(given / "rows.csv")], "images": [str(given / "images")], **_PATIENT}
    return _seen(write_features(output / "features", "tiny", None, **flags))


def caption_images(given: pathlib.Path, output: pathlib.Path) -> Seen:
    """`pipelines.caption` of tables and zip files together."""
    _known()
    tables = [path for path in (given / "tables").iterdir() if path.suffix in (".parquet", ".jsonl")]
    images = [str(path) for path in (*sorted(tables), *sorted((given / "zips").iterdir()))]
    flags = {"model": str(given / "export"), "metadata_columns": ["licence"], **_PATIENT}
    return _seen(commands.caption(images=images, output=str(output / "captions"), **flags))


def caption_features(given: pathlib.Path, output: pathlib.Path) -> Seen:
    """`pipelines.caption --features`."""
    flags = {"model": str(given / "export"), "features": str(given / "features"), "max_reject_fraction": 1.0}
    return _seen(commands.caption(output=str(output / "captions"), **flags))


def caption_again(given: pathlib.Path, output: pathlib.Path) -> Seen:
    """`pipelines.caption` over an output of before, going on and then replacing it."""
    _known()
    (earlier,) = (path for path in given.iterdir() if path.name in ("captions", "begun"))
    directory = shutil.copytree(earlier, output / "captions", symlinks=True)
    (directory / _NOTES).write_text("a neighbour in the output\n")
    options = json.loads((given / "told/report.json").read_text())["options"]
    flags = {"images": options["images"], "model": str(given / "export"), "rows_per_file": 2, **_PATIENT}
    flags |= {"format": ["csv"], "output": str(directory)}
    try:
        found = [commands.caption(overwrite=overwrite, **flags) for overwrite in (False, True)]
    finally:
        assert (directory / _NOTES).read_text() == "a neighbour in the output\n"
    expected = json.loads((given / "told/rows.json").read_text())
    made = {row["image_id"]: row["caption"] for row in choice.read_rows(str(directory))}
    assert made == expected, "after --overwrite, other captions than of an undisturbed run"
    return Seen(*_seen(*found)[:2], least=2 * len(expected))


def task(given: pathlib.Path, output: pathlib.Path) -> Seen:
    """`trainer.task` in a job directory of before, replacing it."""
    shutil.copytree(given / "job", output / "job", symlinks=True)
    return Seen(len(train(given / "features", output / "job", epochs=1, overwrite=True)))


def evaluate(given: pathlib.Path, output: pathlib.Path) -> Seen:
    """`trainer.evaluate` of a caption table."""
    flags = {"captions": [str(given / "captions")], "references": [str(given / "said/coco.json")]}
    return Seen(len(commands.evaluate(output=str(output / "scores"), **flags)))


def _known() -> None:
    """The network that the seeds were made with; this process is there for such cases alone."""
    from tfrecords_schema.networks import registry

    registry.NETWORKS["tiny"] = TINY


def _seen(*reports: dict[str, Any]) -> Seen:
    return Seen(*(sum(report[key] for report in reports) for key in ("records", "rejects", "inputs")))
