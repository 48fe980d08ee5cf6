"""The captions that a model gave: from a caption table, a Parquet file, a COCO results JSON, or JSONL."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from tfrecords_schema.captions_json import is_id
from tfrecords_schema.errors import InputError
from tfrecords_schema.manifests import caption_table
from tfrecords_schema.storage import files, finding
from tfrecords_schema.text import one_line, whole

_COLUMNS = ("image_id", "image_uri", "caption")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One caption that a model gave; the URI is empty where the file has none."""

    image_id: str
    caption: str
    image_uri: str = ""


def read_predictions(path: str) -> list[Prediction]:
    """The captions of an output directory of pipelines.caption, a Parquet file, a COCO results JSON, or JSONL.

    Raises:
      InputError: it is none of these or is not complete, a row lacks something, or two are of the same image.
    """
    if finding.directory_exists(path):
        rows = caption_table.read_rows(path, files.read_text, files.open_binary, _COLUMNS)
    elif path.endswith(".parquet"):
        rows = _parquet_rows(path)
    else:
        rows = _json_rows(path)
    found: dict[tuple[str, str], Prediction] = {}
    for number, row in enumerate(rows, start=1):
        prediction = _prediction(row, f"--captions: {path}: caption {number}")
        key = prediction.image_id, prediction.image_uri
        if key in found:
            raise InputError(f"--captions: {path}: expected one caption an image, found two of {prediction.image_id!r}")
        found[key] = prediction
    if not found:
        raise InputError(f"--captions: {path}: expected captions, found none")
    return list(found.values())


def _prediction(row: Any, where: str) -> Prediction:
    row = row if isinstance(row, dict) else {"": row}
    image_id, caption, uri = (row.get(key) for key in ("image_id", "caption", "image_uri"))
    if not is_id(image_id) or not isinstance(caption, str) or not isinstance(uri, str | None):
        shown = json.dumps(row.get("", row), default=str)
        raise InputError(f"{where}: expected an image_id and a caption, found {shown[:100]}")
    return Prediction(whole(str(image_id)), whole(caption), whole(uri or ""))


def _parquet_rows(path: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with files.open_binary(path) as handle:
            file = pq.ParquetFile(handle)
            names = file.schema_arrow.names
            missing = [name for name in ("image_id", "caption") if name not in names]
            if missing:
                raise InputError(
                    f"--captions: {path}: expected the columns image_id and caption, found {', '.join(names)[:100]}"
                )
            for batch in file.iter_batches(columns=[name for name in _COLUMNS if name in names]):
                yield from batch.to_pylist()
    except InputError:
        raise
    except (OSError, OverflowError, ValueError, pa.ArrowException) as error:
        raise InputError(f"--captions: {path}: expected a Parquet file, found: {one_line(error)}") from None


def _json_rows(path: str) -> Iterator[Any]:
    """The rows of a JSON file, which is one list, or one object a line."""
    text = files.read_input("--captions", path)
    if text.lstrip().startswith("["):
        yield from files.parse_json(text, f"--captions: {path}")
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield files.parse_json(line, f"--captions: {path}: line {number}")
