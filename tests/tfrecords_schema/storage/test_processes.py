"""Clients in many threads, in forked processes, and by Beam's flags."""

import concurrent.futures
import multiprocessing
import os
import pathlib
import resource
import subprocess
import sys
import zipfile

import apache_beam as beam
import pytest

from pipelines.engines.engine import choose
from pipelines.storage import archives
from pipelines.vision import reading
from tests.support import ROOT, stores
from tfrecords_schema.storage import clients, files, finding


@pytest.fixture(scope="module", params=list(stores.KINDS))
def server(request, tmp_path_factory):
    with stores.running(request.param, tmp_path_factory.mktemp("store")) as store:
        store.put("images/a.jpg", b"content")
        yield store


@pytest.fixture
def store(server, monkeypatch):
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    clients.use_flags({})
    yield server
    clients.use_flags({})


def read_in_threads(uri: str) -> int:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return sum(data == b"content" for data in pool.map(reading.read, [uri] * 64))


def test_a_forked_process_makes_clients_of_its_own(store):
    """Also one that is forked while threads of its parent are reading."""
    uri = store.url("images/a.jpg")
    assert read_in_threads(uri) == 64
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ThreadPoolExecutor(1) as busy:
        here = busy.submit(read_in_threads, uri)
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            assert [future.result(timeout=60) for future in [pool.submit(read_in_threads, uri)] * 4] == [64] * 4
        assert here.result(timeout=60) == 64


def test_a_public_bucket_needs_no_credentials(server, monkeypatch):
    if server.kind != "s3":
        pytest.skip("with an emulator of Google's nobody has any")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    nowhere = dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"), os.devnull)
    for name, value in {**nowhere, "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": server.endpoint}.items():
        monkeypatch.setenv(name, value)
    clients.use_flags({})
    server.make_public("images/a.jpg")
    assert reading.read(server.url("images/a.jpg")) == b"content"
    assert finding.names(server.url("images")) == ["a.jpg"]
    clients.use_flags({})


def test_without_credentials_google_is_asked_at_once(tmp_path):
    """No emulator, no network: no metadata server is waited for."""
    code = (
        "import time\nfrom tfrecords_schema.storage import files, google\nstart = time.monotonic()\n"
        "try: files.read_text('gs://no-such-bucket-here/x')\n"
        "except OSError as error: print('told', error)\n"
        "assert time.monotonic() - start < 5, time.monotonic() - start"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE", "STORAGE", "CLOUDSDK"))}
    env |= {"HOME": str(tmp_path), "HTTPS_PROXY": "", "https_proxy": ""}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0 and found.stdout.startswith("told gs://no-such-bucket-here"), found


def copy(uri: str, directory: str) -> None:
    (pathlib.Path(directory) / str(os.getpid())).write_bytes(files.read_bytes(uri))


@pytest.mark.parametrize("mode", ["in_memory", pytest.param("multi_processing", marks=pytest.mark.slow)])
def test_beams_flags_reach_the_workers(mode, server, monkeypatch, tmp_path):
    """Nothing is said in the environment: the flags alone lead to the store."""
    if server.kind != "s3":
        pytest.skip("Beam has no such flags for Google's storage")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    flags = [f"--s3_endpoint_url={server.endpoint}", "--s3_access_key_id=a", "--s3_secret_access_key=b"]
    processes = ["--direct_num_workers=2", f"--direct_running_mode={mode}"]
    engine = choose([*flags, "--s3_region_name=us-east-1", *processes])
    _ = engine.pipeline | beam.Create([server.url("images/a.jpg")]) | beam.Map(copy, str(tmp_path))
    engine.pipeline.run().wait_until_finish()
    clients.use_flags({})
    (made,) = tmp_path.iterdir()
    assert made.read_bytes() == b"content" and (made.name == str(os.getpid())) == (mode == "in_memory")


def test_a_hundred_zip_files_with_few_descriptors(tmp_path):
    """Images in a random order over all of them, from many threads, and each directory is read once."""
    places = []
    for number in range(100):
        path = str(tmp_path / f"{number}.zip")
        with zipfile.ZipFile(path, "w") as archive:
            for member in range(10):
                archive.writestr(f"{member}.jpg", f"{number} {member}")
                places.append((archives.member_uri(path, f"{member}.jpg"), f"{number} {member}".encode()))
    places = [places[(k * 7919) % len(places)] for k in range(len(places))]
    opened = []
    archives.open_archive.cache_clear()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.MonkeyPatch.context() as patch:
        real = archives.Archive
        patch.setattr(archives, "Archive", lambda path: opened.append(path) or real(path))
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 64, hard))
        try:
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                assert list(pool.map(lambda place: reading.read(place[0]), places)) == [data for _, data in places]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sorted(opened) == sorted(set(opened)) and len(opened) == 100
    archives.open_archive.cache_clear()
    assert len(os.listdir("/proc/self/fd")) <= used + 16
