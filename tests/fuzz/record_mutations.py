"""Changes of records in a shard, whose checksums are then right: keys, types, numbers of values."""

from __future__ import annotations

import io
import json
import pathlib
import random

from tests.fuzz import odd
from tfrecords_schema import shards


def mutate(path: pathlib.Path, rng: random.Random, place: str) -> str:
    """Changes one record, or which there are; features_info.json may then tell the new size, as an attacker's would."""
    import tensorflow as tf

    with path.open("rb") as handle:
        records = list(shards.read_framed(handle))
    number = rng.randrange(len(records))
    example = tf.train.Example.FromString(records[number])
    feature = example.features.feature
    key = rng.choice(sorted(feature))
    kind = rng.choice(["missing", "further", "bytes", "ints", "floats", "cut", "garbage", "twice", "gone"])
    if kind == "missing":
        del feature[key]
    elif kind == "further":
        feature["extra"].int64_list.value.append(1)
    elif kind == "bytes":
        texts = [odd.text(rng, place).encode("utf-8", "surrogatepass") for _ in range(rng.choice([0, 1, 5]))]
        feature[key].CopyFrom(tf.train.Feature(bytes_list=tf.train.BytesList(value=texts)))
    elif kind == "ints":
        many = rng.choice([0, 1, len(feature[key].int64_list.value)])
        numbers = [rng.choice([-1, 0, 1, 2**31, 2**63 - 1, -(2**63)]) for _ in range(many)]
        feature[key].CopyFrom(tf.train.Feature(int64_list=tf.train.Int64List(value=numbers)))
    elif kind == "floats":
        feature[key].CopyFrom(tf.train.Feature(float_list=tf.train.FloatList(value=[float("nan")] * 3)))
    elif kind == "cut" and feature[key].bytes_list.value:
        feature[key].bytes_list.value[0] = feature[key].bytes_list.value[0][:-1]
    records[number] = example.SerializeToString() if kind != "garbage" else rng.randbytes(rng.choice([0, 10, 1000]))
    if kind == "twice":
        records.insert(number, records[number])
    elif kind == "gone":
        del records[number]
    held = io.BytesIO()
    for record in records:
        shards.write_framed(held, record)
    path.write_bytes(held.getvalue())
    info = path.parent / "features_info.json"
    if info.exists() and rng.random() < 0.8:
        _tell_size(info, path.name, len(held.getvalue()))
    return f"{kind} of {key} in record {number}"


def _tell_size(info: pathlib.Path, name: str, size: int) -> None:
    told = json.loads(info.read_text())
    for split in told["splits"].values():
        for shard in split["shards"]:
            if shard["name"] == name:
                shard["bytes"] = size
    info.write_text(json.dumps(told))
