"""One image with its captions <-> one `tf.train.Example`. The table FIELDS drives both directions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Field:
    """One key of a record.

    Attributes:
      key: its name in the Example.
      kind: "text" (UTF-8), "int", "array" (little-endian bytes; shape and dtype stand in features_info.json), or
        "bytes" (as they are).
      many: False for one value, True for a list of `n` (or `n * max_length`) values.
    """

    key: str
    kind: str
    many: bool = False


IDS = "caption/ids"
FIELDS = (
    Field("image/id", "text"),
    Field("image/uri", "text"),
    Field("image/height", "int"),
    Field("image/width", "int"),
    Field("image/feature", "array"),
    Field("image/encoded", "bytes"),
    Field("caption/text", "text", many=True),
    Field(IDS, "int", many=True),
    Field("caption/length", "int", many=True),
)
IMAGE = "image/encoded"  # a JPEG; only where features_info.json says that images are stored


def fields(has_image: bool) -> tuple[Field, ...]:
    """Those of FIELDS that a record has."""
    return tuple(field for field in FIELDS if has_image or field.key != IMAGE)


def check_keys(keys, has_image: bool) -> None:
    """Raises KeyError naming every missing and every unknown key."""
    known = {field.key for field in fields(has_image)}
    missing, unknown = sorted(known - set(keys)), sorted(set(keys) - known)
    if missing or unknown:
        raise KeyError(f"record: missing keys {missing}, unknown keys {unknown}")


def encode(record: Mapping[str, Any], dtype: str, has_image: bool = False) -> bytes:
    """A record as a serialised `tf.train.Example`.

    Args:
      record: exactly the keys of `fields`. `image/feature` is an array, `caption/ids` an int array `[n, max_length]`;
        n is at least 1.
      dtype: "float16" or "float32", the type that features are stored in.
      has_image: whether the image itself is stored.

    Raises:
      KeyError: a key is missing or unknown.
    """
    import tensorflow as tf

    check_keys(record, has_image)
    example = tf.train.Example()
    for field in fields(has_image):
        value, feature = record[field.key], example.features.feature[field.key]  # filled in place: a copy costs as much
        if field.kind == "array":
            stored = np.asarray(value).astype(np.dtype(dtype).newbyteorder("<"))
            feature.bytes_list.value.append(stored.tobytes())
        elif field.kind == "int":
            feature.int64_list.value.extend(np.asarray(value, np.int64).reshape(-1).tolist())
        elif field.kind == "bytes":
            feature.bytes_list.value.append(value)
        else:
            feature.bytes_list.value.extend(_to_bytes(text) for text in (value if field.many else [value]))
    return example.SerializeToString(deterministic=True)


def _to_bytes(text: str) -> bytes:
    # File names that are no UTF-8 arrive as surrogates; this gives their own bytes back.
    return text.encode("utf-8", "surrogateescape")


def parse(serialized, shape: tuple[int, ...], dtype: str, max_length: int, has_image: bool = False) -> dict[str, Any]:
    """The tensors of one serialised record; a TensorFlow function, to be mapped over a dataset.

    Returns:
      The keys of `fields`; `image/feature` as `dtype` of `shape`, `caption/ids` as int64 `[n, max_length]`.

    Raises:
      tf.errors.InvalidArgumentError: naming a key that is missing, a feature or caption list of another size, or an
        image that should not be there.
    """
    import tensorflow as tf

    types = {"text": tf.string, "int": tf.int64, "array": tf.string, "bytes": tf.string}
    parsed = tf.io.parse_single_example(
        serialized,
        {
            # No default values. Only sequences may be "missing" for TensorFlow: their sizes are checked below.
            field.key: tf.io.FixedLenSequenceFeature([], types[field.kind], allow_missing=True)
            if field.many or (field.key == IMAGE and not has_image)
            else tf.io.FixedLenFeature([], types[field.kind])
            for field in FIELDS
        },
    )
    n = tf.size(parsed["caption/length"])
    sizes = {"caption/length": tf.maximum(n, 1), "caption/text": n, "caption/ids": n * max_length}
    if not has_image:
        sizes[IMAGE] = 0
    checks = [
        tf.debugging.assert_equal(tf.size(parsed[key]), size, message=f"record: {key}: missing, or of another size")
        for key, size in sizes.items()
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        parsed["caption/ids"] = tf.reshape(parsed["caption/ids"], [n, max_length])
    feature = tf.io.decode_raw(parsed["image/feature"], tf.as_dtype(dtype), little_endian=True)
    parsed["image/feature"] = tf.reshape(feature, shape)
    return {field.key: parsed[field.key] for field in fields(has_image)}


def decode(
    serialized: bytes, shape: tuple[int, ...], dtype: str, max_length: int | None = None, has_image: bool = False
) -> dict[str, Any]:
    """`parse` for one record outside a graph: the same values as numpy arrays and strings, its keys checked exactly.

    Without `max_length`, `caption/ids` is left flat, `[n * max_length]`.

    Raises:
      KeyError: naming every missing and every unknown key.
      ValueError: naming a key whose values are of another number or size.
    """
    import tensorflow as tf

    features = tf.train.Example.FromString(serialized).features.feature
    check_keys(features, has_image)
    n = len(features["caption/length"].int64_list.value)
    sizes = {"caption/text": n, "caption/length": max(n, 1)}
    if max_length is not None:
        sizes["caption/ids"] = n * max_length
    values: dict[str, Any] = {}
    for field in fields(has_image):
        of_kind = features[field.key].int64_list if field.kind == "int" else features[field.key].bytes_list
        found = of_kind.value
        if len(found) != sizes.get(field.key, len(found) if field.many else 1):
            raise ValueError(f"record: {field.key}: missing, or of another size")
        if field.kind == "array":
            stored = np.frombuffer(found[0], np.dtype(dtype).newbyteorder("<"))
            if stored.size != np.prod(shape):
                raise ValueError(f"record: {field.key}: expected the shape {shape}, found {stored.size} numbers")
            values[field.key] = stored.reshape(shape)
        elif field.kind == "int":
            values[field.key] = np.array(found, np.int64) if field.many else found[0]
        elif field.kind == "bytes":
            values[field.key] = found[0]
        else:
            values[field.key] = [_to_text(v) for v in found] if field.many else _to_text(found[0])
    if max_length is not None:
        values["caption/ids"] = values["caption/ids"].reshape(n, max_length)
    return values


def image_id(serialized: bytes) -> str:
    """The id of a record's image, and nothing else of it."""
    import tensorflow as tf

    return _to_text(tf.train.Example.FromString(serialized).features.feature["image/id"].bytes_list.value[0])


def _to_text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
