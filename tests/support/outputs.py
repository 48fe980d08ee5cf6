"""What the commands leave, read without their code, and changed to see what they say of it."""

from __future__ import annotations

import csv
import hashlib
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrecords_schema import record
from tfrecords_schema.manifests.caption_table import REPORT, SHARD_LIST
from tfrecords_schema.manifests.features_info import FeaturesInfo
from tfrecords_schema.manifests.model_info import MODEL_INFO

_EDITION = re.compile(r"-[b-z](?=\.(tfrecord|parquet|txt|csv|jsonl|json)\b)")


def content(directory: pathlib.Path) -> dict[str, bytes]:
    """Every file but those that tell times: the report, and what stands in .shards.

    By the names that a first run gives: a rerun puts what it changes beside what is there, as `train-…-b.tfrecord`.
    """
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != "report.json")
    found = {path.relative_to(directory): path.read_bytes() for path in files if path.parent.name != ".shards"}
    return {
        _EDITION.sub("", str(name)): _EDITION.sub("", data.decode()).encode() if name.suffix == ".json" else data
        for name, data in found.items()
    }


def nearly(captions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the captions of an image are equal to that was in another batch: the last bits of log_prob may differ."""
    return [{**caption, "log_prob": pytest.approx(caption["log_prob"], abs=1e-4)} for caption in captions]


def write_report(directory: pathlib.Path, names: list[str], **further) -> pathlib.Path:
    """A report.json of these shards, and the list of them."""
    (directory / ".shards").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"name": names}), directory / SHARD_LIST)
    path = directory / REPORT
    path.write_text(json.dumps({"files": {SHARD_LIST: SHARD_LIST}, **further}))
    return path


def annotations(coco_dir: pathlib.Path, split: str) -> dict[str, list[str]]:
    """Captions by image id."""
    captions: dict[str, list[str]] = {}
    for entry in json.loads((coco_dir / f"annotations/captions_{split}2017.json").read_text())["annotations"]:
        captions.setdefault(str(entry["image_id"]), []).append(entry["caption"])
    return captions


def read_split(directory: pathlib.Path, split: str) -> list[dict]:
    """The records of a feature directory, in the order of its shards."""
    import tensorflow as tf

    info = FeaturesInfo.loads((directory / "features_info.json").read_text())
    found = []
    has_image = info.images is not None
    for shard in info.splits[split].shards:
        serialized = list(tf.data.TFRecordDataset(str(directory / shard.name)).as_numpy_iterator())
        assert len(serialized) == shard.records and (directory / shard.name).stat().st_size == shard.bytes
        found += [record.decode(s, info.features.shape, info.features.dtype, 16, has_image) for s in serialized]
    return found


def sign(directory: pathlib.Path) -> None:
    """Has features_info.json tell the sizes and digests that the shards have now."""
    path = directory / "features_info.json"
    info = json.loads(path.read_text())
    for shard in (shard for split in info["splits"].values() for shard in split["shards"]):
        data = (directory / shard["name"]).read_bytes()
        shard.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    path.write_text(json.dumps(info))


def rows(directory: pathlib.Path) -> dict[str, dict]:
    """The rows of a caption table by image id."""
    found = [row for path in sorted(directory.glob("captions-*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert len({row["image_id"] for row in found}) == len(found)
    return {row["image_id"]: row for row in found}


def history(job: pathlib.Path) -> list[dict[str, str]]:
    """A row an epoch, as history.csv has them."""
    with open(job / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def outcome(job: pathlib.Path) -> tuple[list[dict[str, str]], str]:
    """What must not depend on stops: the history without its timings, and the model."""
    rows = [{k: v for k, v in row.items() if k not in ("tokens_per_s", "waited")} for row in history(job)]
    return rows, json.loads((job / "export" / MODEL_INFO).read_text())["digest"]


def steps_done(job: pathlib.Path) -> int:
    """The number of a job's latest checkpoint, 1000 more in the second phase; -1 before the first."""
    steps = [
        int(path.stem.rpartition("-")[2]) + (1000 if "self_critical" in str(path) else 0)
        for path in pathlib.Path(job).glob("checkpoints/*/*.index")
    ]
    return max(steps, default=-1)


def replace(path: pathlib.Path, old: str, new: str) -> None:
    """Changes the first `old` in a text file, which must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def edit_json(path: pathlib.Path, edit: Callable[[dict], Any]) -> None:
    """Changes the object in a JSON file."""
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values, indent=2) + "\n")
