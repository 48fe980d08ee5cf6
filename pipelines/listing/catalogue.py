"""Where sources put what they list: a DuckDB database on the launcher's disk, which sorts more than memory holds."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa

from pipelines.items import Item
from pipelines.listing import entries

_MEMORY = "300MB"
_THREADS = 2  # each sorts in memory of its own: with one for each of many cores, 300 MB would not do
CHUNK = 10_000  # entries made rows of at a time
_INSERTED = 120_000  # at a time
_BATCH = 50_000  # rows read at a time
# The upper half of the hash chooses the shard, the lower one the order in it: `shards.shard_of`, `order_in_shard`.
# Images that are read together come last. The key is a number, as texts take long to sort.
_ORDER = "CASE WHEN run IS NULL THEN md5_number_lower(id) >> 1 ELSE 1::UBIGINT << 63 | position END"
_TWICE = """
    CASE WHEN entries.uri = taken.uri THEN 'this image was listed already, in an earlier row or place'
      ELSE 'the id ' || entries.id || ' was taken by ' || taken.uri END
"""


class Source(Protocol):
    """What lists images."""

    def metadata_fields(self) -> list[tuple[str, Any]]:
        """(name, Arrow type) of the columns that are carried along; to be asked first. Raises InputError."""

    def list_into(self, catalogue: Catalogue) -> None:
        """Lists all images; checks what can be checked without opening one. Raises InputError."""

    def describe(self) -> dict[str, Any]:
        """The options of the source that a later run is compared with."""


class Catalogue:
    """The rows of `entries.schema`, in a table called `entries`.

    Attributes:
      metadata: (name, Arrow type) of the columns that are carried along.
      database: DuckDB's connection, for sources that can say in SQL what is to be listed.
    """

    def __init__(self, database: Any, metadata: Sequence[tuple[str, Any]] = ()):
        self.database, self.metadata = database, list(metadata)
        self.schema = entries.schema(self.metadata)
        self.create("entries", self.schema)

    def create(self, table: str, schema: pa.Schema) -> None:
        """An empty table; one of this name that was there is gone."""
        self.database.register("given", schema.empty_table())
        self.run(f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM given")
        self.database.unregister("given")

    def fill(self, table: str, rows: Iterable[pa.Table]) -> None:
        """Appends rows that have some of a table's columns, many at a time, as each time costs some milliseconds."""
        held: list[pa.Table] = []
        count = 0
        with uncollected():
            for some in rows:
                held.append(some)
                count += len(some)
                if count >= _INSERTED:
                    self._insert(table, held)
                    held, count = [], 0
        if held:
            self._insert(table, held)

    def _insert(self, table: str, rows: list[pa.Table]) -> None:
        self.database.register("given", pa.concat_tables(rows, promote_options="default"))
        self.run(f"INSERT INTO {table} BY NAME SELECT * FROM given")
        self.database.unregister("given")

    def add(self, items: Iterable[Item]) -> None:
        """Appends Items."""
        remaining = iter(items)
        chunks = iter(lambda: list(itertools.islice(remaining, CHUNK)), [])
        self.fill("entries", (pa.Table.from_batches([entries.to_batch(chunk, self.metadata)]) for chunk in chunks))

    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Runs a statement; returns all rows that it gives."""
        return self.database.execute(statement, parameters).fetchall()

    def define(self, name: str, is_so: Callable[[list[str]], list[bool]]) -> None:
        """Makes a function of texts that statements can ask: whether something is so of each."""

        def called(texts: pa.ChunkedArray) -> pa.Array:
            return pa.array(is_so(texts.to_pylist()), pa.bool_())

        self.database.create_function(name, called, ["VARCHAR"], "BOOLEAN", type="arrow")

    def counts(self) -> dict[str, int]:
        """How many images each split has."""
        return dict(self.run("SELECT split, count(*) FROM entries GROUP BY split ORDER BY split"))

    def join_parts(self) -> None:
        """Makes one row of all that have an id and a URI in common, with their captions in the source's order."""
        keys = "split, id, uri"
        self.run(f"CREATE TEMP TABLE hashes AS SELECT hash({keys}) FROM entries GROUP BY ALL HAVING count(*) > 1")
        self.run(
            f"CREATE TEMP TABLE parts AS SELECT {keys} FROM entries WHERE hash({keys}) IN (FROM hashes) "
            f"GROUP BY {keys} HAVING count(*) > 1"
        )
        # One good part is enough.
        problems = [
            f"CASE WHEN bool_or(error IS NULL) THEN NULL ELSE arg_min({name}, position) END AS {name}"
            for name in ("stage", "error", "message")
        ]
        first = [f"arg_min({name}, position) AS {name}" for name in ("run", "version")]
        carried = [f"arg_min(m{i}, position) AS m{i}" for i in range(len(self.metadata))]
        captions = "flatten(list(captions ORDER BY position)) AS captions"
        chosen = ", ".join([*first, *problems, captions, *carried])
        self.run(
            f"CREATE TEMP TABLE joined AS SELECT {keys}, min(position) AS position, {chosen} "
            f"FROM entries SEMI JOIN parts USING ({keys}) GROUP BY {keys}"
        )
        same = " AND ".join(f"entries.{name} = parts.{name}" for name in keys.split(", "))
        self.run(f"DELETE FROM entries USING parts WHERE {same}")
        self.run("INSERT INTO entries BY NAME SELECT * FROM joined")
        self.run("DROP TABLE hashes; DROP TABLE parts; DROP TABLE joined")

    def set_duplicates_aside(self) -> None:
        """Gives every usable row but the first of an id a problem: two cannot both be looked up by it."""
        self.run(
            # Hashes first: the ids of a hundred million images would not fit into memory.
            "CREATE TEMP TABLE hashes AS SELECT hash(split, id) AS hash FROM entries WHERE error IS NULL "
            "GROUP BY ALL HAVING count(*) > 1"
        )
        if self.run("SELECT 1 FROM hashes LIMIT 1"):
            self.run(
                "CREATE TEMP TABLE taken AS SELECT split, id, min(position) AS position, arg_min(uri, position) AS uri "
                "FROM entries WHERE error IS NULL AND hash(split, id) IN (FROM hashes) "
                "GROUP BY split, id HAVING count(*) > 1"
            )
            self.run(
                "UPDATE entries SET stage = 'list', error = 'DuplicateId', "
                f"message = {_TWICE} FROM taken WHERE error IS NULL "
                "AND entries.split = taken.split AND entries.id = taken.id AND entries.position <> taken.position"
            )
            self.run("DROP TABLE taken")
        self.run("DROP TABLE hashes")

    def sorted(self, shards: dict[str, int]) -> Iterator[pa.RecordBatch]:
        """All rows with the number of their shard, `shard`, by split and shard, in the order that they have in it.

        A batch has rows of one split.

        Args:
          shards: how many each split has.
        """
        columns = ", ".join(self.schema.names)
        for split, count in shards.items():
            yield from self._batches(
                f"SELECT {columns}, (coalesce(run, md5_number_upper(id)) % {count})::BIGINT AS shard "
                f"FROM entries WHERE split = '{split}' ORDER BY shard, {_ORDER}, position"
            )

    def sample(self, size: int) -> list[Item]:
        """So many images, or all if there are fewer, at equal distances from the first to the last."""
        (total,) = self.run("SELECT count(*) FROM entries")[0]
        numbered = "SELECT *, row_number() OVER (ORDER BY position) - 1 AS place FROM entries"
        is_next = f"place = 0 OR place * {size} // {total} <> (place - 1) * {size} // {total}"
        query = f"SELECT * FROM ({numbered}) WHERE {is_next} ORDER BY place LIMIT {size}"
        return [item for batch in self._batches(query) for item in entries.to_items(batch, self.metadata)]

    def _batches(self, query: str) -> Iterator[pa.RecordBatch]:
        yield from self.database.sql(query).to_arrow_reader(_BATCH)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's search for objects that refer to each other: with Beam loaded, most of the time would be its."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def open_catalogue(metadata: Sequence[tuple[str, Any]] = ()) -> Iterator[Catalogue]:
    """An empty one, which is deleted at the end."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="captioning-listing-") as directory:
        settings: dict[str, Any] = {"memory_limit": _MEMORY, "threads": _THREADS}
        settings["temp_directory"] = os.path.join(directory, "sorting")
        with duckdb.connect(config=settings) as database:
            database.execute("SET enable_progress_bar = false")  # it would be among what a command prints
            yield Catalogue(database, metadata)
