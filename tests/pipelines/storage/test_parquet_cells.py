"""Cells of Parquet that are large, or become so: few rows are decoded together, and what is held has an end."""

import concurrent.futures
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.items import ImageError
from pipelines.sources.parquet_table import ParquetTable
from pipelines.storage import parquet_cells
from pipelines.vision import memory, reading
from tests.support import bounded

MEGABYTE = 1 << 20


def cells(path, rows):
    return [parquet_cells.cell_uri(str(path), "image", row) for row in rows]


@pytest.fixture(autouse=True)
def anew():
    parquet_cells.open_cells.cache_clear()


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_a_value_that_is_repeated_in_each_row_is_not_decoded_for_all(tmp_path, codec):
    """One of 20 MB, kept once in a dictionary: 16 rows were decoded together, and as many were held beside them."""
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), pa.array([bytes(20 * MEGABYTE)]))
    path = tmp_path / "a.parquet"
    schema = pa.schema([("image", pa.dictionary(pa.int32(), pa.binary()))])
    with pq.ParquetWriter(path, schema, compression=codec, store_schema=False) as writer:
        writer.write_table(pa.table([values], schema))
    assert path.stat().st_size < 21 * MEGABYTE and pq.read_schema(path).field("image").type == pa.binary()
    outcomes, peak_mb = bounded.read(cells(path, range(8)), limit_mb=1000)
    assert outcomes == [20 * MEGABYTE] * 8
    assert peak_mb < 150


@pytest.mark.parametrize("column", ["image", "image.bytes"])
def test_a_column_that_is_called_as_the_leaf_of_another(tmp_path, column):
    path = str(tmp_path / "a.parquet")
    photos = [{"bytes": b"photo", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}]
    pq.write_table(pa.table({"image.bytes": [b"thumbnail"] * 2, "image": photos}), path)
    assert parquet_cells.read(path, column, 0, int) == (b"photo" if column == "image" else b"thumbnail")
    assert list(ParquetTable(path).has_bytes("image")) == [True, False]


def test_what_is_held_for_other_threads_has_an_end(tmp_path, monkeypatch):
    """And what was let go of is decoded again."""
    path = tmp_path / "a.parquet"
    expected = [bytes([row]) * 100_000 for row in range(60)]
    pq.write_table(pa.table({"image": expected}), path)
    monkeypatch.setattr(parquet_cells, "_KEPT_BYTES", 500_000)
    monkeypatch.setattr(parquet_cells, "_WINDOW_BYTES", 300_000)
    opened = parquet_cells.open_cells(str(path), "image")
    held = []

    def read(row):
        data = opened.read(row, admit=int)
        held.extend(sum(map(len, cursor.held.values())) for cursor in opened._cursors)
        return data

    order = [30, 3, 29, 59, 0, 58, *range(60)]
    assert [read(row) for row in order] == [expected[row] for row in order]
    assert 0 < max(held) <= 500_000


def test_cells_that_are_too_large_are_rejected_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_MAX_FILE_BYTES", 1000)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"1" * 1000, b"2" * 1001, b"3" * 1000]}), path)
    first, second, third = cells(path, range(3))
    with pytest.raises(ImageError) as error:
        reading.read(second)
    assert (error.value.stage, error.value.error) == ("read", "TooLarge")
    assert error.value.message == "1001 bytes, more than 1000"
    assert reading.read(first) == b"1" * 1000 and reading.read(third) == b"3" * 1000


def test_rows_before_damage_are_read(tmp_path):
    """Of the rows that are decoded together too."""
    path = tmp_path / "a.parquet"
    expected = [bytes([row]) * 10_000 for row in range(20)]
    pq.write_table(
        pa.table({"image": expected}), path, compression="none", use_dictionary=False, data_page_size=20_000,
        write_page_checksum=True, write_batch_size=1,
    )  # fmt: skip
    data = bytearray(path.read_bytes())
    data[data.index(expected[9]) + 5] ^= 1
    path.write_bytes(data)
    outcomes = []
    for uri in cells(path, range(20)):
        try:
            outcomes.append(reading.read(uri))
        except ImageError as error:
            outcomes.append((error.stage, error.error))
    lost = outcomes.index(("read", "Unreadable"))
    assert 8 <= lost <= 9 and outcomes == expected[:lost] + [("read", "Unreadable")] * (20 - lost)


def test_large_cells_wait_for_one_another(tmp_path, monkeypatch):
    """All threads of a process hold no more of them than is allowed."""
    monkeypatch.setattr(memory, "_SMALL_BYTES", MEGABYTE)
    budget = memory.Budget(5 * MEGABYTE)
    monkeypatch.setattr(memory, "FILES", budget)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [bytes(2 * MEGABYTE)] * 20}), path)
    free = []

    def read(uri):
        with reading.held(uri) as data:
            free.append(budget._free)
            time.sleep(0.01)
            return len(data)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(read, cells(path, range(20)))) == [2 * MEGABYTE] * 20
    assert min(free) == MEGABYTE and budget._free == 5 * MEGABYTE
