"""Listed images as rows of an Arrow table: one schema, from Items and back to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.items import ImageError, Item

# Of these, values go through DuckDB unchanged; those of any other type travel as bytes.
_KNOWN = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_float32,
    pa.types.is_float64,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_date32,
)
_MARK = "\U0010ffff"  # no character: Unicode will never have one here
_SHIFT = 0xC800  # from what UTF-8 cannot hold to what it can
_HALF = re.compile(f"[\ud800-\udfff{_MARK}]")
_FIXED = pa.schema(
    [
        ("split", pa.string()),
        ("position", pa.int64()),
        ("run", pa.uint64()),
        ("id", pa.string()),
        ("uri", pa.string()),
        ("version", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("message", pa.string()),
        ("captions", pa.list_(pa.string())),
    ]
)


def schema(metadata: Sequence[tuple[str, Any]] = ()) -> pa.Schema:
    """The Arrow schema of a listing.

    Columns: `split`; `position` in the source; `run` (null for an image whose shard follows from its id, else images of
    one run are in one shard, as they are read together); `id`, `uri`, `version`; `stage`, `error`, `message` of what is
    wrong with the entry (null for nothing); `captions`; and m0, m1, … that are carried along.

    Args:
      metadata: (name, Arrow type) of the latter.
    """
    carried = [pa.field(f"m{i}", kind if _is_known(kind) else pa.binary()) for i, (_, kind) in enumerate(metadata)]
    return pa.schema([*_FIXED, *carried])


def _is_known(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in _KNOWN)


def escape(text: str) -> str:
    """Any name as valid Unicode: bytes of a file name that are no UTF-8 stand behind a mark. See `unescape`."""
    return _HALF.sub(lambda found: _MARK + _shifted(found[0]), text) if _HALF.search(text) else text


def texts(values: Sequence[str | None]) -> pa.Array:
    """Names as a column of a listing: each as `escape` gives it."""
    try:
        return marked(pa.array(values, pa.string()))
    except UnicodeEncodeError:
        return pa.array([text and escape(text) for text in values], pa.string())


def marked(column: pa.Array) -> pa.Array:
    """Valid texts as `escape` gives each."""
    return (
        pc.replace_substring(column, _MARK, _MARK * 2) if pc.any(pc.match_substring(column, _MARK)).as_py() else column
    )


def _shifted(character: str) -> str:
    return character if character == _MARK else chr(ord(character) - _SHIFT)


def unescape(text: str) -> str:
    """What was given to `escape`."""
    if _MARK not in text:
        return text
    return re.sub(f"{_MARK}(.)", lambda m: m[1] if m[1] == _MARK else chr(ord(m[1]) + _SHIFT), text, flags=re.DOTALL)


def to_batch(items: Sequence[Item], metadata: Sequence[tuple[str, Any]]) -> pa.RecordBatch:
    """Items as rows of `schema(metadata)`."""
    problems = [item.problem.args if item.problem else (None, None, None) for item in items]
    columns: list[Any] = [
        [item.split for item in items],
        [item.position for item in items],
        [item.run for item in items],
        *([escape(text) for text in column] for column in zip(*((i.id, i.uri, i.version) for i in items), strict=True)),
        *([text and escape(text) for text in column] for column in zip(*problems, strict=True)),
        [[escape(caption) for caption in item.captions] for item in items],
    ]
    wanted = schema(metadata)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _FIXED, strict=True)]
    for index, (_, kind) in enumerate(metadata):
        arrays.append(store([item.metadata[index] for item in items], kind))
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)


def store(values: Sequence[Any] | pa.Array, kind: pa.DataType) -> pa.Array:
    """Carried values of one column, as the listing holds them. Raises what values that Python cannot hold do."""
    if not _is_known(kind):
        values = values.to_pylist() if isinstance(values, pa.Array) else values
        return pa.array([None if value is None else _packed(pa.array([value], kind)) for value in values], pa.binary())
    # A large integer may only come near a float.
    if isinstance(values, pa.Array):
        values.validate(full=True)  # DuckDB would refuse texts that are no UTF-8, and not say whose
        if pa.types.is_date32(kind):
            pc.min_max(values).as_py()  # what Python cannot hold would end a worker
        return values if values.type == kind else values.cast(kind, safe=not pa.types.is_floating(kind))
    if pa.types.is_floating(kind):
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, kind)


def _packed(one: pa.Array) -> bytes:
    batch = pa.record_batch([one], ["value"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _unpacked(data: bytes | None) -> Any:
    return None if data is None else pa.ipc.open_stream(data).read_all()["value"][0].as_py()


def to_items(rows: pa.Table | pa.RecordBatch, metadata: Sequence[tuple[str, Any]]) -> Iterator[Item]:
    """Rows of a listing, in their order."""
    columns = [
        rows.column(name).to_pylist() for name in ("id", "uri", "split", "version", "captions", "run", "position")
    ]
    problems = zip(*(rows.column(name).to_pylist() for name in ("stage", "error", "message")), strict=True)
    carried = [rows.column(f"m{i}").to_pylist() for i in range(len(metadata))]
    for index, (_, kind) in enumerate(metadata):
        if not _is_known(kind):
            carried[index] = list(map(_unpacked, carried[index]))
    along: Iterable[tuple[Any, ...]] = zip(*carried, strict=True) if carried else iter(lambda: (), None)
    for values, problem, one in zip(zip(*columns, strict=True), problems, along, strict=False):
        image_id, uri, split, version, captions, run, position = values
        yield Item(
            unescape(image_id),
            unescape(uri),
            captions=tuple(map(unescape, captions)),
            problem=None if problem[1] is None else ImageError(problem[0], problem[1], unescape(problem[2])),
            split=split,
            version=version,
            position=position,
            run=run,
            metadata=one,
        )
