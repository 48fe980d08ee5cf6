"""What one thread fetches for several: it may give up sooner than those that wait for it would."""

import concurrent.futures
import io
import tarfile
import threading
import time
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.items import ImageError
from pipelines.storage import parquet_cells
from pipelines.vision import reading
from tests.support.shelf import SHELF, ShelfFileSystem


def zipped(path) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.jpg", b"content")
    return f"{SHELF}{path.name}!/x.jpg"


def tarred(path) -> str:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("x.jpg")
        member.size = len(b"content")
        archive.addfile(member, io.BytesIO(b"content"))
    return f"{SHELF}{path.name}!/0/x.jpg"


@pytest.mark.parametrize(("name", "write"), [("waited_for.zip", zipped), ("waited_for.tar", tarred)])
def test_who_is_more_patient_asks_again(tmp_path, monkeypatch, name, write):
    """A rerun looks once whether images are back, while other shards of the same file are being made."""
    monkeypatch.setattr(ShelfFileSystem, "root", str(tmp_path))
    uri, asked, go_on = write(tmp_path / name), threading.Event(), threading.Event()
    real = ShelfFileSystem.cat_file

    def cat_file(*arguments, **named):
        if not asked.is_set():
            asked.set()
            assert go_on.wait(60)
            raise ConnectionResetError("by peer")
        return real(*arguments, **named)

    monkeypatch.setattr(ShelfFileSystem, "cat_file", cat_file)
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        looking = pool.submit(reading.read, uri, 0)
        assert asked.wait(60)
        making = [pool.submit(reading.read, uri, 3) for _ in range(8)]
        time.sleep(0.2)  # they wait by now; where one does not, it has less to overcome
        go_on.set()
        assert [one.result(60) for one in making] == [b"content"] * 8
        with pytest.raises(ImageError) as error:
            looking.result(60)
    assert error.value.error == "Unreachable"


def test_rows_that_were_read_ahead_in_vain_are_asked_for_again(tmp_path, monkeypatch):
    """A thread that tries once decodes rows for others too; what it does not get of these, they get."""
    monkeypatch.setattr(ShelfFileSystem, "root", str(tmp_path))
    cells = [bytes([row]) * 700_000 for row in range(8)]
    pq.write_table(
        pa.table({"image": cells}),
        tmp_path / "ahead.parquet",
        compression="none",
        use_dictionary=False,
        data_page_size=1,
        write_batch_size=1,
    )
    real, asked = ShelfFileSystem.cat_file, []

    def cat_file(self, path, start=None, end=None, **named):
        if start and start > 3_000_000 and not asked:
            asked.append(start)
            raise ConnectionResetError("by peer")
        return real(self, path, start=start, end=end, **named)

    def read(row: int, retries: int) -> bytes:
        return reading.read(f"{SHELF}ahead.parquet!/image/{row}", retries)

    parquet_cells.open_cells(f"{SHELF}ahead.parquet", "image")
    monkeypatch.setattr(ShelfFileSystem, "cat_file", cat_file)
    assert read(0, 0) == cells[0] and asked
    assert [read(row, 3) for row in range(1, 8)] == cells[1:]
