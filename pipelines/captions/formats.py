"""The caption table in other formats, made from its Parquet files: JSONL, CSV, and COCO's results JSON."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import apache_beam as beam

from pipelines.output import places
from pipelines.output.sidecars import ShardResult
from tfrecords_schema.storage import files

COCO = "captions.coco.json"
SUFFIXES = {"jsonl": ".jsonl", "csv": ".csv"}  # of the formats that have a file beside each shard


class WriteFormats(beam.PTransform):
    """ShardResults -> the same ones, with each shard's rows also in the files that `formats` asks for."""

    def __init__(self, directory: str, formats: Sequence[str]):
        self.directory, self.formats = directory, [name for name in formats if name in SUFFIXES]

    def expand(self, results):
        return results | "WriteFormats" >> beam.Map(write_formats, self.directory, self.formats)


def write_formats(result: ShardResult, directory: str, formats: Sequence[str]) -> ShardResult:
    """Writes `captions-00000-of-00004.jsonl`, or `.csv`, beside a finished shard; returns `result`."""
    for name in formats:
        made = file_name(result.name, name)
        if not (places.is_in_place(directory, result.name) and places.is_in_place(directory, made)):
            with files.replacing(directory, places.waiting_name(directory, made)) as handle:
                _WRITERS[name](_batches(directory, result), handle.write)
    return result


def file_name(shard: str, name: str) -> str:
    """The name of the file that has a shard's rows in another format."""
    return os.path.splitext(shard)[0] + SUFFIXES[name]


def write_coco(results: Iterable[ShardResult], directory: str, handle: BinaryIO) -> None:
    """Writes all rows as `[{"image_id": 139, "caption": "..."}, ...]`, one a line.

    That is what COCO's evaluation takes (https://cocodataset.org/#format-results). Ids of digits become numbers, as
    COCO's are.
    """
    handle.write(b"[")
    separator = b"\n"
    for batch in (batch for result in results for batch in _batches(directory, result, ["image_id", "caption"])):
        for row in batch.to_pylist():
            image_id = row["image_id"]
            number = int(image_id) if image_id.isascii() and image_id.isdecimal() else image_id
            entry = json.dumps({"image_id": number, "caption": row["caption"]}, ensure_ascii=False)
            handle.write(separator + entry.encode())
            separator = b",\n"
    handle.write(b"\n]\n")


def _batches(directory: str, result: ShardResult, columns: list[str] | None = None) -> Iterator[Any]:
    """Arrow record batches of a shard; one at least, so that a shard without rows has its columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with files.open_binary(places.path_of(directory, result.name)) as handle:
        file = pq.ParquetFile(handle)
        if not file.metadata.num_rows:
            yield pa.RecordBatch.from_pylist([], schema=file.schema_arrow)
        yield from file.iter_batches(batch_size=256, columns=columns)


def _write_jsonl(batches: Iterator[Any], write: Callable[[bytes], Any]) -> None:
    for row in (row for batch in batches for row in batch.to_pylist()):
        write((json.dumps(_plain(row), ensure_ascii=False, allow_nan=False) + "\n").encode())


def _write_csv(batches: Iterator[Any], write: Callable[[bytes], Any]) -> None:
    """RFC 4180; a list or an object is one field of JSON, as in the other format."""
    header_is_due = True
    for batch in batches:
        text = io.StringIO()
        writer = csv.writer(text)
        if header_is_due:
            writer.writerow(batch.schema.names)
            header_is_due = False
        writer.writerows(map(_field, _plain(row).values()) for row in batch.to_pylist())
        write(text.getvalue().encode())


def _field(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _plain(value: Any) -> Any:
    """What JSON can hold: bytes in base64, a number that is none as null, dates and the like as text."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if value is None or isinstance(value, bool | int | str) else str(value)


_WRITERS = {"jsonl": _write_jsonl, "csv": _write_csv}
