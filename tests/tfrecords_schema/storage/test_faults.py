"""A store that resets connections, is busy, and cuts answers short: whoever asks again gets the same bytes."""

import concurrent.futures
import errno
import io
import os
import time
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.items import ImageError
from pipelines.sources.image_sets import ImageSets
from pipelines.storage import archives, parquet_cells, tars
from pipelines.vision import reading
from tests.support import hurting, stores, tar_files
from tests.support.listing import listed
from tfrecords_schema.storage import clients, faults, files, finding

COUNT = 300
SAMPLE = {"jpg": 20_000, "txt": 50, "json": 400}  # bytes of the files of a sample
CONTENT = {f"{number:03}.jpg": os.urandom(5_000) for number in range(COUNT)}


@pytest.fixture(scope="module", params=list(stores.KINDS))
def server(request, tmp_path_factory):
    with stores.running(request.param, tmp_path_factory.mktemp("store")) as store:
        for name, data in CONTENT.items():
            store.put(f"images/{name}", data)
        yield store


@pytest.fixture
def store(server, monkeypatch):
    """(The store, the proxy before it), for the clients of this process."""
    with hurting.proxy(server.endpoint, seed=14) as proxy:
        for name, value in server.env.items():
            monkeypatch.setenv(name, proxy.endpoint if value == server.endpoint else value)
        clients.use_flags({})
        archives.open_archive.cache_clear()
        tars.forget()
        yield server, proxy
    clients.use_flags({})


def read_all(uris: list[str], retries: int | None) -> list[bytes | ImageError]:
    def read(uri: str) -> bytes | ImageError:
        try:
            return reading.read(uri, retries)
        except ImageError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(read, uris))


def test_no_image_is_lost(store):
    server, proxy = store
    uris = [server.url("images", name) for name in CONTENT]
    proxy.share = 0.04
    assert read_all(uris, faults.READ_RETRIES) == list(CONTENT.values()) and proxy.hurt >= 5
    found = [error for error in read_all(uris, 0) if isinstance(error, ImageError)]
    assert found and {(error.stage, error.error) for error in found} == {("read", "Unreachable")}
    assert all(error.message.startswith(server.url("images/")) and "\n" not in error.message for error in found)


@pytest.mark.slow
def test_listings_and_writing_and_deleting_go_on_too(store):
    server, proxy = store
    proxy.share = 0.2
    with faults.retries(faults.READ_RETRIES):
        for number in range(20):
            assert finding.names(server.url("images")) == sorted(CONTENT)
            files.write_text(server.url("written"), f"{number}", f"content {number}")
        with files.replacing(server.url("written"), "large") as handle:
            handle.write(b"n" * 100_000_000)
        assert server.get("written/7") == b"content 7" and len(server.listing("written")) == 21
        assert files.read_bytes(server.url("written/large")) == b"n" * 100_000_000
        files.delete(server.url("written"))
    assert not server.listing("written") and proxy.hurt >= 5


def test_members_of_zip_files_and_cells_of_tables_are_read_again(store):
    server, proxy = store
    buffer, table = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in CONTENT.items():
            archive.writestr(name, data)
    pq.write_table(pa.table({"image": list(CONTENT.values())}), table, row_group_size=50)
    server.put("images.zip", buffer.getvalue())
    server.put("images.parquet", table.getvalue())
    proxy.share = 0.04
    members = [archives.member_uri(server.url("images.zip"), name) for name in CONTENT]
    assert read_all(members, faults.READ_RETRIES) == list(CONTENT.values())
    parquet_cells.open_cells.cache_clear()
    cells = [parquet_cells.cell_uri(server.url("images.parquet"), "image", row) for row in range(COUNT)]
    assert read_all(cells, faults.READ_RETRIES) == list(CONTENT.values()) and proxy.hurt >= 3
    proxy.share = 1
    for methods in (proxy.methods, ("GET",)):  # as the file is opened, and after that
        for hurt in hurting.HURTS[:3]:
            proxy.methods, proxy.hurts = methods, (hurt,)
            parquet_cells.open_cells.cache_clear()
            archives.open_archive.cache_clear()
            for uri in (members[0], cells[0]):
                with pytest.raises(ImageError) as error:
                    reading.read(uri, 0)
                assert error.value.error == "Unreachable", (hurt, error.value.message)
    proxy.share = 0
    assert read_all([members[0], cells[0]], 0) == [CONTENT["000.jpg"]] * 2


def test_a_tar_shard_is_fetched_once_by_who_lists_it_and_once_by_who_reads_its_images(store, tmp_path):
    """In pieces of megabytes, whatever the threads' order; and far less of it where few images are asked for."""
    server, proxy = store
    members = [(f"{number:04}.{ending}", os.urandom(size)) for number in range(600) for ending, size in SAMPLE.items()]
    path = tar_files.write(tmp_path / "x.tar", members)
    server.put("x.tar", path.read_bytes())
    total, expected = path.stat().st_size, [data for name, data in members if name.endswith(".jpg")]
    proxy.served.clear()
    items = listed(ImageSets((server.url("x.tar"),), rows_together=300))
    uris = [item.uri for item in items]
    asked = [size for path, size in proxy.served if path.endswith("x.tar")]
    assert len(uris) == 600 and sum(asked) < 1.05 * total and len(asked) < 20
    proxy.served.clear()
    assert read_all(uris, 0) == expected
    asked = [size for path, size in proxy.served if path.endswith("x.tar")]
    assert sum(asked) < 1.05 * total and len(asked) < 25
    tars.forget()
    proxy.served.clear()
    assert read_all(uris[::50], 0) == expected[::50]
    asked = [size for path, size in proxy.served if path.endswith("x.tar")]
    assert sum(asked) < 0.2 * total
    tars.forget()
    proxy.share, proxy.hurts = 0.2, ("reset", "busy")
    assert read_all(uris, faults.READ_RETRIES) == expected
    proxy.share = 1
    tars.forget()
    (found,) = read_all(uris[:1], 0)
    assert found.error == "Unreachable"


def test_a_table_that_was_unreachable_in_its_middle_is_read_when_it_is_there_again(store):
    server, proxy = store
    rows = [os.urandom(400_000) for _ in range(40)]
    table = io.BytesIO()
    pq.write_table(pa.table({"image": rows}), table, use_dictionary=False, write_batch_size=1)
    server.put("wide.parquet", table.getvalue())
    cells = [parquet_cells.cell_uri(server.url("wide.parquet"), "image", row) for row in range(40)]
    assert reading.read(cells[0], 0) == rows[0]
    proxy.share = 1
    with pytest.raises(ImageError) as error:
        reading.read(cells[39], 0)
    assert error.value.error == "Unreachable"
    proxy.share = 0
    assert reading.read(cells[39], 0) == rows[39]


def test_a_slow_store_is_waited_for(store):
    server, proxy = store
    proxy.share, proxy.hurts = 0.2, ("slow",)
    uris = [server.url("images", name) for name in CONTENT]
    assert read_all(uris, 0) == list(CONTENT.values()) and proxy.hurt > 30


@pytest.mark.slow
def test_who_never_answered_is_not_waited_for(store):
    """Within 5 seconds, where no number of retries was given; the same outage later is waited for."""
    server, proxy = store
    proxy.share, proxy.hurts = 1, ("down",)
    for ask in (files.read_text, finding.names, files.exists):
        clients.forget()
        start = time.monotonic()
        with pytest.raises((OSError, ValueError), match=server.url("x")):
            ask(server.url("x"))
        assert time.monotonic() - start < 5
    proxy.share = 0
    assert files.exists(server.url("images/000.jpg"))
    proxy.share = 1
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(files.read_bytes, server.url("images/000.jpg"))
        time.sleep(4)
        assert not answer.done()
        proxy.share = 0
        assert answer.result() == CONTENT["000.jpg"]


def test_the_machines_own_faults_are_no_faults_of_an_image(store, monkeypatch):
    server, _ = store
    real = files.read_bytes
    numbers = {errno.EMFILE: "Too many open files", errno.ENOSPC: "No space left"}
    others = (MemoryError(), RuntimeError("can't start new thread"))
    for fault in (*others, *(OSError(number, text) for number, text in numbers.items())):

        def fails(*_, fault=fault):
            raise fault

        monkeypatch.setattr(files, "read_bytes", fails)
        with pytest.raises(type(fault)):
            reading.read(server.url("images/000.jpg"))
    monkeypatch.setattr(files, "read_bytes", real)


def test_a_large_object_is_refused_before_its_body_comes(store, monkeypatch):
    server, _ = store
    monkeypatch.setattr(reading, "_MAX_FILE_BYTES", 4_999)
    before = len(server.requests())
    with pytest.raises(ImageError) as error:
        reading.read(server.url("images/000.jpg"))
    assert (error.value.error, error.value.message) == ("TooLarge", "5000 bytes, more than 4999")
    asked = [line for line in server.requests()[before:] if "000.jpg" in line]
    assert len(asked) == 1


def test_an_object_that_was_replaced_is_read_anew(store):
    server, _ = store
    for content in (b"one", b"two, longer"):
        server.put("replaced", content)
        uri = server.url("replaced")
        assert files.read_bytes(uri) == content and files.size(uri) == len(content)
        assert [version.split(":")[0] for _, version in finding.glob_versions(uri)] == [str(len(content))]
        with files.open_binary(uri) as handle:
            assert handle.read() == content
