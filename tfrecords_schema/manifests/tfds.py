"""`dataset_info.json` and `features.json`: what TensorFlow Datasets reads of a feature directory.

With them `tfds.builder_from_directory(DIR)` opens it as it is. They are the JSON forms of TFDS' protos DatasetInfo and
Feature (https://www.tensorflow.org/datasets/external_tfrecord), written without TFDS, which is not needed here.
"""

from __future__ import annotations

import json
from typing import Any

from tfrecords_schema import record, shards
from tfrecords_schema.manifests.features_info import SCHEMA_VERSION, FeaturesInfo, ShardInfo

DATASET_INFO = "dataset_info.json"
FEATURES = "features.json"
NAME = "captioned_images"
_MODULE = "tensorflow_datasets.core.features"


def texts(info: FeaturesInfo) -> dict[str, str | None]:
    """Both files, by name; None for each where TFDS has no pattern for the names of the shards."""
    templates = {split: _template(split, found.shards) for split, found in info.splits.items()}
    if None in templates.values():
        return {FEATURES: None, DATASET_INFO: None}
    spec = info.features
    splits = [
        {
            "name": split,
            "shardLengths": [str(shard.records) for shard in found.shards],
            "numBytes": str(sum(shard.bytes for shard in found.shards)),
            "filepathTemplate": templates[split],
        }
        for split, found in info.splits.items()
    ]
    described = {
        "name": NAME,
        "version": f"{SCHEMA_VERSION}.0.0",
        "description": f"Captioned images. Features of {spec.extractor}, layer {spec.layer}, by pipelines.features.",
        "fileFormat": "tfrecord",
        "splits": splits,
    }
    features = {field.key: _feature(field, info) for field in record.fields(info.images is not None)}
    return {
        FEATURES: _dumps(_of("features_dict.FeaturesDict", featuresDict={"features": features})),
        DATASET_INFO: _dumps(described),
    }


def _template(split: str, files: tuple[ShardInfo, ...]) -> str | None:
    """TFDS' pattern for the names of a split's shards; None where they have none in common."""
    ending, digits = shards.ending_of(files[0].name) if files else "", max(5, len(str(len(files))))
    of = f"-of-{len(files):0{digits}d}{ending}.tfrecord"
    fits = all(shard.name == f"{split}-{number:0{digits}d}{of}" for number, shard in enumerate(files))
    return f"{{SPLIT}}-{{SHARD_X_OF_Y}}{ending}.tfrecord" if fits else None


def _feature(field: record.Field, info: FeaturesInfo) -> dict[str, Any]:
    """A field of a record as TFDS' class for it; -1 stands for any number."""
    if field.kind == "bytes":
        image = {"shape": _shape(-1, -1, 3), "dtype": "uint8", "encodingFormat": "jpeg"}
        return _of("image_feature.Image", image=image)
    if field.kind == "array":
        return _tensor("bytes", info.features.dtype, *info.features.shape)
    if field.kind == "int":
        rows = [info.max_caption_length] if field.key == record.IDS else []
        return _tensor("none", "int64", *[-1] * field.many, *rows)
    text = _of("text_feature.Text", text={})
    return _of("sequence_feature.Sequence", sequence={"feature": text, "length": "-1"}) if field.many else text


def _tensor(encoding: str, dtype: str, *sizes: int) -> dict[str, Any]:
    return _of("tensor_feature.Tensor", tensor={"shape": _shape(*sizes), "dtype": dtype, "encoding": encoding})


def _shape(*sizes: int) -> dict[str, Any]:
    return {"dimensions": [str(size) for size in sizes]}  # protos' JSON has 64-bit numbers as text


def _of(name: str, **content: Any) -> dict[str, Any]:
    return {"pythonClassName": f"{_MODULE}.{name}", **content}


def _dumps(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
