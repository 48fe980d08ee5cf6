"""Changes of a Parquet file's columns: their types, names, values, number, and the key-value metadata."""

from __future__ import annotations

import datetime
import decimal
import pathlib
import random

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz import json_mutations, odd

_TYPED = (
    (pa.null(), None),
    (pa.bool_(), True),
    (pa.int8(), -1),
    (pa.int64(), 2**63 - 1),
    (pa.uint64(), 2**64 - 1),
    (pa.float16(), 1.5),
    (pa.float64(), float("nan")),
    (pa.string(), ""),
    (pa.large_string(), "x" * 1000),
    (pa.binary(), b"\xff\xfe\0"),
    (pa.binary(4), b"abcd"),
    (pa.large_binary(), b""),
    (pa.list_(pa.string()), ["a", None]),
    (pa.list_(pa.list_(pa.int32())), [[1], None]),
    (pa.map_(pa.string(), pa.int32()), [("a", 1)]),
    (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"bytes": None, "path": None}),
    (pa.struct([("bytes", pa.string()), ("path", pa.int32())]), {"bytes": "b", "path": 1}),
    (pa.decimal128(38, 9), decimal.Decimal("1e28")),
    (pa.date32(), datetime.date(9999, 12, 31)),
    (pa.timestamp("ns"), datetime.datetime(1700, 1, 1)),
    (pa.timestamp("us", "Europe/Nowhere"), None),
    (pa.timestamp("us"), 2**60),
    (pa.time64("ns"), datetime.time(23, 59)),
    (pa.duration("s"), datetime.timedelta(days=-1)),
    (pa.dictionary(pa.int8(), pa.string()), "a"),
)


def mutate(path: pathlib.Path, rng: random.Random, place: str) -> str:
    """Changes the table in a Parquet file, and how it is stored."""
    table = pq.read_table(path)
    kind = rng.choice(["type", "type", "value", "value", "null", "name", "column", "missing", "rows", "metadata"])
    number = rng.randrange(table.num_columns)
    name = table.schema.names[number]
    if kind == "type":
        table = _typed(table, number, rng)
    elif kind in ("value", "null"):
        table = _valued(table, number, None if kind == "null" else rng, place)
    elif kind == "name":
        names = table.schema.names
        names[number] = rng.choice([names[0], names[-1], odd.text(rng, place).replace("\0", "")])
        table = table.rename_columns(names)
    elif kind == "column":
        table = table.append_column(rng.choice(table.schema.names), table.column(number))
    elif kind == "missing":
        table = table.remove_column(number)
    elif kind == "rows":
        table = rng.choice([table.slice(0, 0), table.slice(1), pa.concat_tables([table] * 3)])
    elif table.schema.metadata:
        table = _told(table, rng, place)
    codec = rng.choice(["zstd", "none", "snappy", "gzip", "brotli"])
    pq.write_table(table, path, compression=codec, row_group_size=rng.choice([1, 3, 100_000]))
    return f"{kind} of column {name[:20]!r}"


def _typed(table: pa.Table, number: int, rng: random.Random) -> pa.Table:
    kind, value = rng.choice(_TYPED)
    values = [value if rng.random() < 0.8 else None for _ in range(table.num_rows)]
    field = pa.field(table.schema.names[number], kind)
    return table.set_column(number, field, pa.array(values, kind))


def _valued(table: pa.Table, number: int, rng: random.Random | None, place: str) -> pa.Table:
    """One value is another; without `rng`, all are null."""
    kind = table.schema.field(number).type
    values = table.column(number).to_pylist()
    if rng is None:
        values = [None] * len(values)
    elif values:
        at = rng.randrange(len(values))
        new = rng.choice([odd.text(rng, place), odd.number(rng), None, odd.text(rng, place).encode()])
        try:
            pa.array([new], kind)
            values[at] = new
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            values[at] = rng.choice(values)
    return table.set_column(number, table.schema.field(number), pa.array(values, kind))


def _told(table: pa.Table, rng: random.Random, place: str) -> pa.Table:
    """The metadata say something else; most are JSON."""
    told = dict(table.schema.metadata)
    key = rng.choice(list(told))
    try:
        told[key] = json_mutations.changed(told[key].decode(), rng, place)[0].encode("utf-8", "surrogatepass")
    except ValueError:
        told[key] = odd.text(rng, place).encode()
    if rng.random() < 0.1:
        del told[key]
    return table.replace_schema_metadata(told)
