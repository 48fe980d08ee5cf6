"""s3:// and gs:// by their real clients, against servers on this machine: both pipelines and the trainer."""

import contextlib
import gzip
import http.server
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import caption, features, gallery
from pipelines.output.rejects import read_parquet
from pipelines.storage import archives
from pipelines.vision import reading
from tests.support import ROOT, commands, stores, weighed
from tests.support.outputs import content, nearly, outcome, read_split, rows
from tests.support.processes import finish, job_server, wait_for
from tests.support.small import SMALL, train
from tfrecords_schema.errors import InputError, RunError
from tfrecords_schema.manifests.model_info import open_export
from tfrecords_schema.networks import registry
from tfrecords_schema.storage import clients, copies, files, finding, objects
from trainer import evaluate, export, task
from trainer.data import dataset
from trainer.exporting import saved_model
from trainer.model.pretrained import read_embeddings
from trainer.training import job
from trainer.training.mirror import Mirror

ODD = "my data [1] +%23 é#?"  # a directory; each of its characters means something to somebody


@pytest.fixture(scope="module", params=list(stores.KINDS))
def server(request, tmp_path_factory):
    with stores.running(request.param, tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
def store(server, tmp_path, monkeypatch):
    """A store that the clients of this process find; copies of remote directories go to a directory of the test."""
    for name, value in {**server.env, "PATH": "/nowhere"}.items():  # Java scores as it does elsewhere, and takes long
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(copies.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    clients.use_flags({})
    archives.open_archive.cache_clear()
    return server


@pytest.fixture
def prefix(request) -> str:
    """A directory of the bucket for one test."""
    return f"{request.node.originalname}/{ODD}"


def without_uris(records: list[dict]) -> list[dict]:
    return [{k: v.tolist() if hasattr(v, "tolist") else v for k, v in r.items() if k != "image/uri"} for r in records]


@pytest.mark.slow
def test_from_images_to_captions_in_a_bucket(
    store, prefix, coco_dir, tiny_network, make_features, tmp_path, capsys, monkeypatch
):
    """As on this machine, but for URIs; and nothing is left of the work."""
    store.put_directory(coco_dir, f"{prefix}/coco")
    local, _ = make_features(records_per_shard=10)
    common = {"weights": "random", "min_word_count": 1, "max_caption_length": 16, "records_per_shard": 10}
    at = {name: store.url(prefix, name) for name in ("coco", "features", "job", "captions", "scores")}
    for reused in (0, 4):
        report = commands.features(coco_dir=at["coco"], output=at["features"], extractor=tiny_network, **common)
        assert report["inputs"] == report["records"] == 32 and report["shards_left"] == reused
        assert shlex.split(report["next_command"])[3:] == [
            "--data",
            at["features"],
            "--job_dir",
            f"{at['features']}-job",
        ]
    fetched = store.get_directory(f"{prefix}/features", tmp_path / "fetched")
    assert set(content(fetched)) == set(content(local)) and not (fetched / files.WORK).exists()
    for split in ("train", "val"):
        ours = read_split(fetched, split)
        assert without_uris(ours) == without_uris(read_split(local, split))
        assert {r["image/uri"] for r in ours} == {
            f"{at['coco']}/{split}2017/{path.name}" for path in (coco_dir / f"{split}2017").iterdir()
        }

    train(at["features"], at["job"], epochs=2)
    train(local, tmp_path / "job", epochs=2)
    told = capsys.readouterr().out
    assert f"copying 4 shards, 0.00 GB, from {at['features']}" in told and f"export      {at['job']}/export" in told
    fetched_job = store.get_directory(f"{prefix}/job", tmp_path / "fetched_job")
    rows_of = [outcome(directory)[0] for directory in (fetched_job, tmp_path / "job")]
    assert rows_of[0] == rows_of[1] and len(rows_of[0]) == 2
    assert content_names(fetched_job) == content_names(tmp_path / "job")
    assert not list((tmp_path / "temporary").glob("captioning-trainer-*/job-*[0-9a-f]")), "the mirror is deleted"

    model = {"model": f"{at['job']}/export"}
    report = commands.caption(images=[f"{at['coco']}/val2017"], output=at["captions"], format=["csv", "coco"], **model)
    monkeypatch.chdir(tmp_path)
    gallery.main(shlex.split(report["next_command"])[3:])
    assert f"8 images with their captions in {at['captions']}-gallery.html, 0.0 MB\n" in capsys.readouterr().out, (
        "none is grey"
    )
    commands.caption(
        images=[f"{coco_dir}/val2017"], output=str(tmp_path / "captions"), model=str(tmp_path / "job/export")
    )
    fetched = rows(store.get_directory(f"{prefix}/captions", tmp_path / "fetched_captions"))
    expected = rows(tmp_path / "captions")
    assert {i: r["captions"] for i, r in fetched.items()} == {i: nearly(r["captions"]) for i, r in expected.items()}
    assert {r["image_uri"] for r in fetched.values()} == {
        f"{at['coco']}/val2017/{path.name}" for path in (coco_dir / "val2017").iterdir()
    }

    references = "annotations/captions_val2017.json"
    given = {"captions": [at["captions"]], "references": [f"{at['coco']}/{references}"], "output": at["scores"]}
    scores = commands.evaluate(**given)
    here = commands.evaluate(
        captions=[str(tmp_path / "captions")], references=[f"{coco_dir}/{references}"], output=str(tmp_path / "scores")
    )
    assert [row["metrics"] for row in scores["predictions"]] == [row["metrics"] for row in here["predictions"]]
    assert set(store.listing(f"{prefix}/scores")) == {path.name for path in (tmp_path / "scores").iterdir()}
    with pytest.raises(InputError, match="holds an earlier evaluation"):
        commands.evaluate(**given)


def content_names(job_dir: pathlib.Path) -> set[str]:
    """Files of a job directory but TensorBoard's, whose names tell the time."""
    names = {str(p.relative_to(job_dir)) for p in job_dir.rglob("*") if p.is_file()}
    return {name for name in names if "tensorboard" not in name and name != ".lock"}


def write_zip(directory: pathlib.Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(directory.iterdir()):
            archive.write(path, f"val/{path.name}")
    return buffer.getvalue()


def write_table(directory: pathlib.Path) -> bytes:
    buffer = io.BytesIO()
    table = pa.table({"image": [path.read_bytes() for path in sorted(directory.iterdir())]})
    pq.write_table(table, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "given", ["pictures/**.jpg", "pictures/val", "val[1].zip", "list.csv", "images.parquet", "pictures/val/*[1-3].jpg"]
)
@pytest.mark.slow
def test_every_kind_of_image_set_in_a_bucket(store, prefix, coco_dir, export_dir, given, tmp_path):
    """Each with its captions as from this machine; and an object that is not there is a reject."""
    prefix = f"plain name {len(given)}" if "*" in given else f"{prefix}/{len(given)}"  # in a pattern, ODD means others
    source = coco_dir / "val2017"
    names = sorted(path.name for path in source.iterdir())
    store.put_directory(source, f"{prefix}/pictures/val")
    store.put(f"{prefix}/pictures/val/", b"")  # as consoles make "directories"
    store.put(f"{prefix}/val[1].zip", write_zip(source))
    store.put(f"{prefix}/images.parquet", write_table(source))
    uris = [store.url(prefix, "pictures/val", name) for name in names]
    absent = store.url(prefix, "pictures/val/absent #[2].jpg")
    store.put(f"{prefix}/list.csv", "\n".join(["image_uri", *uris, absent, ""]).encode())
    images, output = [store.url(prefix, given)], store.url(prefix, "captions")
    report = commands.caption(images=images, model=export_dir, output=output, max_reject_fraction=0.5)
    found = rows(store.get_directory(f"{prefix}/captions", tmp_path / "fetched"))
    here = given.rpartition("/")[2] if given.endswith("*[1-3].jpg") else "*.jpg"  # batches of one size, to the last bit
    commands.caption(images=[f"{source}/{here}"], model=export_dir, output=str(tmp_path / "local"))
    expected = rows(tmp_path / "local")
    assert len(expected) == (8 if here == "*.jpg" else 3)
    assert sorted(str(r["captions"]) for r in found.values()) == sorted(str(r["captions"]) for r in expected.values())
    rejects = list(read_parquet(io.BytesIO(store.get(f"{prefix}/captions/rejects/captions.parquet"))))
    told = [(r.image_uri, r.stage, r.error) for r in rejects]
    assert told == ([(absent, "read", "Absent")] if given == "list.csv" else []) and report["rejects"] == len(told)


NAMES = [
    "a b.jpg",
    "a+b.jpg",
    "100%.jpg",
    "a%20b.jpg",
    "#1.jpg",
    "what?.jpg",
    "[x].jpg",
    "*.jpg",
    "é – 猫.jpg",
    "a&b=c;d.jpg",
]


def test_names_are_taken_as_they_are(store, prefix):
    """Written, read, sized, listed and deleted, by both sides; a pattern's characters in a name are no pattern."""
    for name in [*NAMES, "other.jpg"]:
        files.write_text(store.url(prefix), name, f"content of {name}")
    assert set(store.listing(prefix)) == {*NAMES, "other.jpg"} == set(finding.names(store.url(prefix)))
    assert finding.names_below(store.url(prefix)) == sorted([*NAMES, "other.jpg"])
    for name in NAMES:
        uri, expected = store.url(prefix, name), f"content of {name}".encode()
        assert reading.read(uri) == files.read_bytes(uri) == store.get(f"{prefix}/{name}") == expected
        assert files.size(uri) == len(expected) and finding.glob(uri) == [uri]
        assert finding.listed_version(uri).startswith(f"{len(expected)}:")
        files.replace(store.url(prefix), {name: b"new"})
        assert files.read_text(uri) == "new"
    for name in NAMES[::2]:
        files.delete(store.url(prefix, name))
    objects.delete(store.url(prefix, name) for name in NAMES[1::2])
    assert set(store.listing(prefix)) == {"other.jpg"}
    files.delete(store.url(prefix))
    assert not store.listing(prefix) and not files.exists(store.url(prefix, "other.jpg"))


def test_an_image_costs_one_request(store, prefix):
    """Whole ones and zip members, from many threads; the clients are made once."""
    content = {f"{number}.jpg": os.urandom(20_000) for number in range(50)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            store.put(f"{prefix}/{name}", data)
            archive.writestr(name, data)
    store.put(f"{prefix}/images.zip", buffer.getvalue())
    opened = archives.open_archive(store.url(prefix, "images.zip"))
    for read in (lambda name: reading.read(store.url(prefix, name)), lambda name: opened.read(name, admit=int)):
        before = store.requests()
        with ThreadPoolExecutor(16) as pool:
            assert dict(zip(content, pool.map(read, content), strict=True)) == content
        # Google's clients also ask for the bucket, once each.
        asked = [line for line in store.requests()[len(before) :] if ".jpg" in line or ".zip" in line]
        assert len(asked) == len(content)


def test_a_name_appears_when_its_content_is_whole(store, prefix):
    """And after an exception not at all; an earlier file stays until the new one has come."""
    directory = store.url(prefix)
    files.write_text(directory, "x", "old")
    with pytest.raises(ZeroDivisionError), files.replacing(directory, "x") as handle:
        handle.write(b"n" * 20_000_000)
        assert store.get(f"{prefix}/x") == b"old"
        raise ZeroDivisionError
    assert store.listing(prefix).keys() == {"x"} and store.get(f"{prefix}/x") == b"old"
    with files.replacing(directory, "x") as handle:
        handle.write(b"n" * 20_000_000)
        assert store.get(f"{prefix}/x") == b"old"
    assert store.get(f"{prefix}/x") == b"n" * 20_000_000
    with files.replacing(directory, "empty"):
        pass
    assert store.get(f"{prefix}/empty") == b"" == files.read_bytes(store.url(prefix, "empty"))


def test_readers_see_the_old_or_the_new_file(store, prefix):
    """A thread reads without pause while another writes, by either side's way of writing."""
    versions, seen, done = [bytes([k]) * 3_000_000 for k in range(6)], [], threading.Event()
    uri = store.url(prefix, "x")
    files.replace(store.url(prefix), {"x": versions[0]})

    def read() -> None:
        while not done.is_set():
            seen.append(files.read_bytes(uri))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    for number, data in enumerate(versions[1:]):
        reads = len(seen)
        if number % 2:
            files.replace(store.url(prefix), {"x": data})
        else:
            with files.replacing(store.url(prefix), "x") as handle:
                handle.write(data)
        while len(seen) < reads + 2:
            assert thread.is_alive()
            time.sleep(0.01)
    done.set()
    thread.join()
    assert len(seen) >= 10 and set(seen) <= set(versions)


def main_error(module, capsys, *argv) -> str:
    with pytest.raises(SystemExit) as exit_:
        module.main([str(value) for value in argv])
    stderr = capsys.readouterr().err
    assert exit_.value.code == 2 and stderr.startswith("error: ") and stderr.count("\n") == 1, stderr
    return stderr


def absent_bucket_commands(nowhere: str, there: pathlib.Path) -> list[tuple]:
    said = there / "coco/annotations/captions_val2017.json"
    coco, data, model = there / "coco", there / "features", there / "job/export"
    return [
        (features, "--coco_dir", nowhere, "--output", there / "new"),
        (features, "--coco_dir", coco, "--output", nowhere, "--weights", "random"),
        (caption, "--images", f"{nowhere}/*.jpg", "--model", model, "--output", there / "new"),
        (caption, "--images", f"{nowhere}/a.zip", "--model", model, "--output", there / "new"),
        (caption, "--images", coco / "val2017", "--model", nowhere, "--output", there / "new"),
        (caption, "--images", coco / "val2017", "--model", model, "--output", nowhere),
        (task, "--data", nowhere, "--job_dir", there / "new"),
        (task, "--data", data, "--job_dir", nowhere),
        (export, "--ensemble", nowhere, model, "--output", there / "new"),
        (evaluate, "--captions", nowhere, "--references", said, "--output", there / "new"),
        (evaluate, "--captions", there / "x.json", "--references", f"{nowhere}/x.json", "--output", there / "new"),
    ]


@pytest.mark.parametrize("number", range(11))
def test_a_bucket_that_does_not_exist_is_told_in_one_line(store, trained, coco_dir, tmp_path, capsys, number):
    nowhere = f"{store.kind}://no-such-bucket-here/place"
    (tmp_path / "coco").symlink_to(coco_dir)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "x.json").write_text('[{"image_id": 1, "caption": "a"}]')
    module, *argv = absent_bucket_commands(nowhere, tmp_path)[number]
    told = main_error(module, capsys, *argv)
    assert "no-such-bucket-here" in told and not (tmp_path / "new").exists(), told


class Denying(http.server.BaseHTTPRequestHandler):
    """A store where nothing is allowed."""

    def _deny(self) -> None:
        s3 = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        google = b'{"error": {"code": 403, "message": "Access Denied"}}'
        body = google if self.path.startswith(("/storage", "/upload", "/download")) else s3
        self.send_response(403)
        self.send_header("Content-Type", "application/json" if body is google else "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _deny  # noqa: N815

    def log_message(self, *_) -> None:
        pass


@contextlib.contextmanager
def serving(handler):
    """The address of a server on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def main_error_with(flag, value, trained, coco_dir, tmp_path, capsys) -> str:
    """What a command that has this flag says of a value; its other flags are right."""
    commands = {
        caption: {"--images": coco_dir / "val2017", "--model": trained / "job/export", "--output": tmp_path / "new"},
        gallery: {"--captions": "", "--output": tmp_path / "page.html"},
        task: {"--data": trained / "features", "--job_dir": tmp_path / "new"},
    }
    module, flags = next((module, flags) for module, flags in commands.items() if flag in flags)
    return main_error(module, capsys, *(given for item in {**flags, flag: value}.items() for given in item))


@pytest.mark.parametrize("flag", ["--images", "--output", "--data", "--job_dir"])
@pytest.mark.parametrize("kind", list(stores.KINDS))
def test_denied_access_is_told_in_one_line(kind, flag, trained, coco_dir, tmp_path, capsys, monkeypatch):
    with serving(Denying) as endpoint:
        for name, value in stores.KINDS[kind](endpoint).env.items():
            monkeypatch.setenv(name, value)
        clients.forget()
        told = main_error_with(flag, f"{kind}://bucket/place", trained, coco_dir, tmp_path, capsys)
    assert f"{kind}://bucket/place" in told and ("403" in told or "denied" in told.lower() or "ACCESS_DENIED" in told)


NOBODY = "http://127.0.0.1:1"
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
SILENT = {
    "nobody listens at S3's address": ("s3", {"AWS_ENDPOINT_URL": NOBODY, **KEYS}, "Could not connect"),
    "no credentials for S3": ("s3", {"AWS_ENDPOINT_URL": NOBODY}, "no credentials were found"),
    "no such profile": ("s3", {"AWS_PROFILE": "nobody"}, "ProfileNotFound: "),
    "an address that is none": ("s3", {"AWS_ENDPOINT_URL": "localhost:9000", **KEYS}, "ValueError: Invalid endpoint"),
    "nobody listens at Google's address": (
        "gs",
        {"STORAGE_EMULATOR_HOST": NOBODY},
        "Cannot connect to host",
    ),
}


@pytest.fixture
def no_settings(monkeypatch):
    """A machine whose user has no credentials and no proxy."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "BOTO_"))]:
        monkeypatch.delenv(name)
    nowhere = ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "BOTO_CONFIG")
    for name, value in {**dict.fromkeys(nowhere, os.devnull), "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    clients.use_flags({})


@pytest.mark.parametrize("flag", ["--images", "--model", "--output", "--captions"])
@pytest.mark.parametrize("silence", SILENT)
def test_a_store_that_does_not_answer(silence, flag, no_settings, trained, coco_dir, tmp_path, capsys, monkeypatch):
    """It is told before Beam asks, which would go on asking for minutes."""
    kind, env, said = SILENT[silence]
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    told = main_error_with(flag, f"{kind}://bucket/place", trained, coco_dir, tmp_path, capsys)
    assert told.startswith(f"error: {flag}: expected a bucket that answers, found {kind}://bucket: ") and said in told


def test_a_bucket_without_a_name(no_settings, trained, coco_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", NOBODY)
    for value in ("gs:///x", "gs://"):  # of a variable that is not set
        told = main_error_with("--images", value, trained, coco_dir, tmp_path, capsys)
        assert told == "error: --images: expected gs://BUCKET/NAME, found no bucket's name\n"
    told = main_error_with("--images", "gs://*/x", trained, coco_dir, tmp_path, capsys)
    assert told.startswith("error: --images: expected a bucket that answers, found gs://*: ")


class Answering(Denying):
    """A store that answers everything in one way, or hangs up."""

    status = 401

    def _answer(self) -> None:
        if self.status is None:
            self.close_connection = True
            return
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = _answer  # noqa: N815


@pytest.mark.parametrize(
    ("kind", "status", "passes"),
    [
        *[("gs", 401, True), ("gs", 403, True), ("gs", 404, False), ("gs", None, False)],
        *[("s3", 400, True), ("s3", 403, True), ("s3", 404, False), ("s3", None, False)],
    ],
)
def test_what_counts_as_an_answer(kind, status, passes, no_settings, monkeypatch):
    """To forbid is to answer: a place may be read without the right to list its bucket."""
    monkeypatch.setattr(Answering, "status", status)
    with serving(Answering) as endpoint:
        for name, value in {"AWS_ENDPOINT_URL": endpoint, "STORAGE_EMULATOR_HOST": endpoint, **KEYS}.items():
            monkeypatch.setenv(name, value)
        try:
            objects.require_bucket(f"{kind}://bucket")
            assert passes
        except OSError as error:
            assert not passes and str(error).startswith(f"{kind}://bucket: ")
            assert (status == 404) == str(error).endswith("no such bucket")


def test_a_scheme_that_nobody_knows(trained, tmp_path, capsys):
    there = {"--data": trained / "features", "--job_dir": tmp_path / "job"}
    for flag in there:
        argv = [str(value) for item in {**there, flag: "foo://bucket/x"}.items() for value in item]
        assert "foo://bucket" in main_error(task, capsys, *argv)
    assert "no filesystem for foo://x" in main_error(
        caption, capsys, "--images", tmp_path, "--model", trained / "job/export", "--output", "foo://x"
    )


def test_a_copy_of_features_is_checked_resumed_and_used_again(store, prefix, trained, capsys):
    names = sorted(path.name for path in (trained / "features").iterdir() if path.name.endswith(".tfrecord"))
    store.put_directory(trained / "features", f"{prefix}/data")
    uri = store.url(prefix, "data")
    broken = bytearray(store.get(f"{prefix}/data/{names[1]}"))
    broken[50] ^= 1
    for damaged, message in (
        (bytes(broken), "the SHA-256 that features_info.json records, found another"),
        (bytes(broken[:-1]), f"bytes, found {len(broken) - 1}; make the features again"),
        (None, "bytes, found no file; make the features again"),
    ):
        store.delete(f"{prefix}/data/{names[1]}")
        if damaged is not None:
            store.put(f"{prefix}/data/{names[1]}", damaged)
        with pytest.raises(InputError, match=re.escape(f"{uri}/{names[1]}: expected") + ".*" + re.escape(message)):
            dataset.open_directory(uri)
    copy = next(pathlib.Path(copies.place()).glob("features-*"))
    assert [path.name for path in copy.iterdir()] == [names[0]], "the good one, and nothing half"
    assert (copy / names[0]).read_bytes() == (trained / "features" / names[0]).read_bytes()
    store.put(f"{prefix}/data/{names[1]}", (trained / "features" / names[1]).read_bytes())
    capsys.readouterr()
    assert dataset.open_directory(uri).path == str(copy)
    assert f"copying 1 shards, 0.00 GB, from {uri} to {copy}\n" in capsys.readouterr().out
    before = len(store.requests())
    assert dataset.open_directory(uri).path == str(copy) and not capsys.readouterr().out
    asked = [line for line in store.requests()[before:] if "tfrecord" in line]
    assert asked == []


def test_the_disk_must_hold_the_copy(store, prefix, trained, monkeypatch):
    store.put_directory(trained / "features", f"{prefix}/data")
    monkeypatch.setattr(copies.shutil, "disk_usage", lambda path: types.SimpleNamespace(total=10, used=5, free=5))
    with pytest.raises(InputError, match=r"GB of disk for a copy of it, found 0.00 GB in .*; set TMPDIR"):
        dataset.open_directory(store.url(prefix, "data"))


def test_what_is_sent_is_whole_at_every_moment(store, prefix, tmp_path):
    """After each single request that changes the bucket, every index there has its data, and the state its index."""
    mirror = Mirror(str(tmp_path / "job"), store.url(prefix, "job"), job._SENT)
    mirror.fetch()

    def checkpoint(*numbers: int) -> None:
        directory = tmp_path / "job/checkpoints/cross_entropy"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        for number in numbers:
            (directory / f"ckpt-{number}.index").write_text(f"index {number}")
            (directory / f"ckpt-{number}.data-00000-of-00001").write_text(f"data {number}")
        (directory / "checkpoint").write_text(f"latest {numbers[-1]}")

    moments = []

    def watched(method):
        def call(*arguments):
            method(*arguments)
            found = set(store.listing(f"{prefix}/job/checkpoints/cross_entropy"))
            for name in found:
                if name.endswith(".index"):
                    assert name.replace(".index", ".data-00000-of-00001") in found
            if "checkpoint" in found:
                state = store.get(f"{prefix}/job/checkpoints/cross_entropy/checkpoint").decode()
                assert f"ckpt-{state.split()[1]}.index" in found
            moments.append(found)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "upload", watched(files.upload))
        patch.setattr(objects, "delete", watched(objects.delete))
        (tmp_path / "job/config.json").write_text("{}")
        (tmp_path / "job/other").write_text("not sent")
        for numbers in ((1,), (1, 2), (2, 3), (3, 4)):
            checkpoint(*numbers)
            assert mirror.push() == ""
    assert len(moments) > 15
    assert set(store.listing(f"{prefix}/job")) == {
        "config.json",
        "checkpoints/cross_entropy/checkpoint",
        *(f"checkpoints/cross_entropy/ckpt-{n}.{end}" for n in (3, 4) for end in ("index", "data-00000-of-00001")),
    }
    again = Mirror(str(tmp_path / "again"), store.url(prefix, "job"), job._SENT)
    again.fetch()
    (tmp_path / "job/other").unlink()
    assert content(tmp_path / "again") == content(tmp_path / "job")
    before = len(store.requests())
    again.send()
    assert len(store.requests()) == before, "nothing changed, nothing is sent"


def test_an_outage_is_told_and_made_up_for(store, prefix, tmp_path, monkeypatch):
    mirror = Mirror(str(tmp_path / "job"), store.url(prefix, "job"), job._SENT)
    mirror.fetch()
    (tmp_path / "job/history.csv").write_text("one")

    def fails(path, uri):
        raise OSError("the network is down")

    monkeypatch.setattr(files, "upload", fails)
    told = f"{store.url(prefix, 'job')}: could not be written: the network is down; the next checkpoint tries again"
    assert mirror.push() == f"warning: {told}"
    with pytest.raises(RunError, match=f"the network is down; what is missing there is in {tmp_path}/job; run"):
        mirror.finish()
    monkeypatch.undo()
    for name, value in store.env.items():
        monkeypatch.setenv(name, value)
    assert mirror.push().endswith("everything is written now") and mirror.push() == ""
    assert store.get(f"{prefix}/job/history.csv") == b"one"


def test_an_export_is_whole_when_it_has_its_model_info(store, prefix, trained, monkeypatch):
    """Replacing one, and dying after any of its requests: readers are told, and the next one mends it."""
    local, uri = str(trained / "job/export"), store.url(prefix, "export")
    saved_model._publish(local, uri)
    names = set(content(trained / "job/export"))
    assert set(store.listing(f"{prefix}/export")) == names
    store.put(f"{prefix}/export/variables/stale", b"of another model")
    upload = files.upload
    for count in range(len(names)):
        done = []

        def dies(path, to, done=done, count=count):
            if len(done) == count:
                raise KeyboardInterrupt
            done.append(upload(path, to))

        monkeypatch.setattr(files, "upload", dies)
        with pytest.raises(KeyboardInterrupt):
            saved_model._publish(local, uri)
        assert "model_info.json" not in store.listing(f"{prefix}/export")
        saved_model.require_ours("--output", uri)
    monkeypatch.setattr(files, "upload", upload)
    with pytest.raises(InputError, match="found none in"):
        open_export(uri, files.read_text, "--ensemble")
    saved_model._publish(local, uri)
    assert set(store.listing(f"{prefix}/export")) == names
    store.put(f"{prefix}/export/notes.txt", b"mine")
    with pytest.raises(InputError, match=r"found notes\.txt"):
        saved_model.require_ours("--output", uri)


def test_a_model_that_is_replaced_while_it_is_copied_is_copied_again(store, prefix, trained, monkeypatch):
    store.put_directory(trained / "job/export", f"{prefix}/export")
    opened, download = [], files.download

    def download_slowly(path, to):
        if not opened:
            time.sleep(1.1)  # S3 tells times in whole seconds
            store.put(f"{prefix}/export/vocabulary.txt", b"another")
        opened.append(path)
        download(path, to)

    monkeypatch.setattr(files, "download", download_slowly)
    copy = pathlib.Path(copies.local_copy(store.url(prefix, "export")))
    assert (copy / "vocabulary.txt").read_bytes() == b"another" and len(opened) == 2 * len(content(copy))


def test_an_ensemble_of_exports_in_a_bucket(store, prefix, trained, tmp_path):
    for name in ("one", "two"):
        store.put_directory(trained / "job/export", f"{prefix}/{name}")
    members = [store.url(prefix, name) for name in ("one", "two")]
    info = commands.export(ensemble=members, output=store.url(prefix, "all"))
    two = shutil.copytree(trained / "job/export", tmp_path / "two")
    here = commands.export(ensemble=[str(trained / "job/export"), str(two)], output=str(tmp_path / "all"))
    assert info == here
    assert set(store.listing(f"{prefix}/all")) == set(content(tmp_path / "all"))
    with pytest.raises(InputError, match="exists; give --overwrite"):
        commands.export(ensemble=members, output=store.url(prefix, "all"))
    with pytest.raises(InputError, match="expected different directories"):
        commands.export(ensemble=[members[0], members[0] + "/"], output=store.url(prefix, "all"))


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.txt.gz"])
def test_pretrained_embeddings_in_a_bucket(store, prefix, trained, name, tmp_path):
    vocabulary = dataset.open_directory(str(trained / "features")).vocabulary
    text = "".join(f"{word} {number} 0.5\n" for number, word in enumerate(vocabulary.words[4:])).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    store.put(f"{prefix}/{name}", (tmp_path / name).read_bytes())
    found, _ = read_embeddings(store.url(prefix, name), vocabulary, 2, seed=0)
    expected, _ = read_embeddings(str(tmp_path / name), vocabulary, 2, seed=0)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match=r"found no .*/none\.txt"):
        read_embeddings(store.url(prefix, "none.txt"), vocabulary, 2, seed=0)


def start(store, *command) -> subprocess.Popen:
    # Without Java the scores of an epoch come in no time.
    env = {**stores.environment(store), "PATH": "/nowhere", "PYTHONUNBUFFERED": "1", "TMPDIR": tempfile.gettempdir()}
    arguments = [sys.executable, "-m", *map(str, command)]
    return subprocess.Popen(arguments, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_pipeline_goes_on_in_the_bucket(store, prefix, network, many_images, tmp_path):
    """SIGKILL: finished shards are not made again, and the end has the bytes of an undisturbed run."""
    store.put_directory(many_images, f"{prefix}/coco")

    def command(output: str) -> list[str]:
        own = ["--coco_dir", store.url(prefix, "coco"), "--output", store.url(prefix, output)]
        network_flags = ["--extractor", f"saved_model:{network}", "--min_word_count", "1", "--batch_size", "8"]
        return ["pipelines.features", *own, *network_flags, "--records_per_shard", "20"]

    def finished() -> dict:
        found = store.listing(f"{prefix}/killed")
        return {name: at for name, at in found.items() if f".shards/{name}.parquet" in found}

    finish(start(store, *command("undisturbed")))
    for count in (3, 10):
        process = start(store, *command("killed"))
        wait_for(process, lambda count=count: len(finished()) >= count)
        process.kill()
        process.wait()
        before = finished()
        found = store.listing(f"{prefix}/killed")
        assert len(before) >= count and "features_info.json" not in found
        assert not [name for name in found if name.endswith(".tmp")]
    text = finish(start(store, *command("killed")))
    assert int(re.search(r"shards +20, (\d+) left as they were", text)[1]) >= len(before)
    found = store.listing(f"{prefix}/killed")
    assert before.items() <= found.items() and not [name for name in found if name.startswith(files.WORK)]
    directories = [store.get_directory(f"{prefix}/{name}", tmp_path / name) for name in ("killed", "undisturbed")]
    assert content(directories[0]) == content(directories[1])


@pytest.mark.slow
def test_a_stopped_training_goes_on_on_a_machine_with_an_empty_disk(store, prefix, trained, tmp_path):
    """SIGKILL in both phases, and SIGTERM: the next one fetches what was sent, and ends as an undisturbed run."""
    store.put_directory(trained / "features", f"{prefix}/data")
    settings = {**SMALL, "embedding_dropout": 0.3, "epochs": 4, "checkpoint_steps": 1, "self_critical": 2}

    def command(name: str, **changes) -> list[str]:
        flags = {"data": store.url(prefix, "data"), "job_dir": store.url(prefix, name), **settings, **changes}
        flags |= {"monitor": "bleu_4"}
        return ["trainer.task", *(str(x) for k, v in flags.items() for x in (f"--{k}", v))]

    def steps(name: str) -> int:
        """Of the latest checkpoint in the bucket, 1000 more in the second phase."""
        found = [n for n in store.listing(f"{prefix}/{name}/checkpoints") if n.endswith(".index")]
        return max((int(re.search(r"-(\d+)\.", n)[1]) + 1000 * n.startswith("self") for n in found), default=-1)

    finish(start(store, *command("undisturbed")))
    local = store.get_directory(f"{prefix}/undisturbed", tmp_path / "undisturbed")
    expected = outcome(local)
    assert [row["phase"] for row in expected[0]] == ["cross_entropy"] * 4 + ["self_critical"] * 2
    for step in (3, 12, 1004):
        process = start(store, *command("killed"))
        wait_for(process, lambda step=step: steps("killed") >= step)
        process.kill()
        process.wait()
        assert not store.listing(f"{prefix}/killed/export")
        for directory in (tmp_path / "temporary").glob("captioning-trainer-*"):
            shutil.rmtree(directory)
    text = finish(start(store, *command("killed")))
    assert "going on with epoch" in text and f"export      {store.url(prefix, 'killed')}/export" in text
    found = store.get_directory(f"{prefix}/killed", tmp_path / "killed")
    assert outcome(found) == expected
    assert len(list(found.glob("checkpoints/*/*.index"))) <= 2 * 3, "old checkpoints are deleted"

    forever = command("terminated", epochs=500, checkpoint_steps=0)
    process = start(store, *forever)
    wait_for(process, lambda: "history.csv" in store.listing(f"{prefix}/terminated"))
    before = steps("terminated")
    process.send_signal(signal.SIGTERM)
    assert "SIGTERM; run the same command to continue" in finish(process, status=75)
    assert steps("terminated") >= before
    process = start(store, *forever)
    wait_for(process, lambda: (tmp_path / "temporary").exists())
    first = process.stdout.readline()
    while "copying" in first or "copied" in first:
        first = process.stdout.readline()
    process.kill()
    process.communicate()
    assert first.startswith("going on with epoch")


@pytest.mark.slow
def test_other_settings_and_overwrite(store, prefix, trained):
    """Messages name the bucket; what --overwrite deletes here is deleted there, before the new settings are written."""
    where = trained / "features", store.url(prefix, "job")
    train(*where, epochs=1)
    store.put(f"{prefix}/job/notes.txt", b"mine")
    with pytest.raises(InputError) as error:
        train(*where, epochs=1, units=8)
    assert f"--job_dir: {where[1]} holds a run with other settings (units was 16, now 8)" in str(error.value)
    before = set(store.listing(f"{prefix}/job"))
    train(*where, epochs=1, units=8, overwrite=True)
    after = set(store.listing(f"{prefix}/job"))
    assert {name for name in before if "tensorboard" not in name} == {n for n in after if "tensorboard" not in n}
    assert not {name for name in before & after if "tensorboard" in name}
    assert json.loads(store.get(f"{prefix}/job/config.json"))["DecoderConfig"]["units"] == 8
    busy = re.escape(f"another run is writing to {where[1]};")
    with job.opened(where[1]), pytest.raises(InputError, match=busy):
        train(*where, epochs=1, units=8)


@pytest.mark.slow
def test_workers_need_nothing_but_the_bucket(store, prefix, coco_dir, tmp_path, monkeypatch):
    """Beam workers in processes whose home and working directory are elsewhere; what was given is there no more."""
    if store.kind != "s3":
        pytest.skip("the same code")
    store.put_directory(coco_dir, f"{prefix}/coco")
    at = {name: store.url(prefix, name) for name in ("coco", "features", "job", "captions")}
    for name in ("home", "temporary of workers"):
        (tmp_path / name).mkdir()
    env = {**stores.environment(store), "HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    env["TMPDIR"] = str(tmp_path / "temporary of workers")
    env["PATH"] = f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin"  # where Beam looks for `python`
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    monkeypatch.chdir(tmp_path)
    weighed.save(pathlib.Path("mine"), 0.25, 0.5, 1.0)
    pool = subprocess.Popen([sys.executable, "-m", "scripts.worker_pool", port], cwd=tmp_path / "home", env=env)
    try:
        with job_server() as jobs:
            beam = ["--runner=PortableRunner", f"--job_endpoint=localhost:{jobs}", "--environment_type=EXTERNAL"]
            beam += [f"--environment_config=127.0.0.1:{port}"]
            _wait_until_it_listens(port)
            flags = {"extractor": "saved_model:mine", "min_word_count": 1, "max_caption_length": 16}
            commands.features(beam, coco_dir=at["coco"], output=at["features"], records_per_shard=8, **flags)
            shutil.rmtree("mine")
            train(at["features"], at["job"], epochs=1)
            for name in store.listing(f"{prefix}/features"):
                store.delete(f"{prefix}/features/{name}")
            model = f"{at['job']}/export"
            report = commands.caption(beam, images=[f"{at['coco']}/val2017"], model=model, output=at["captions"])
    finally:
        pool.kill()
        pool.wait()
    assert report["records"] == 8
    assert list((tmp_path / "temporary of workers").rglob("saved_model.pb")), "workers have their own copy"


def _wait_until_it_listens(port: str) -> None:
    until = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", int(port)), 5).close()
            return
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_weights_in_a_bucket_are_sent_once_and_copied_once(store, prefix, coco_dir, tmp_path, monkeypatch):
    """A rerun of a command sends nothing and fetches nothing again."""
    monkeypatch.setitem(registry.NETWORKS, weighed.NAME, weighed.NETWORK)
    path = weighed.save(tmp_path / "mine.weights.h5", 0.25, 0.5, 1.0)
    at = {name: store.url(prefix, name) for name in ("features", "job", "captions")}
    sent, fetched = [], []
    upload, open_binary = files.upload, objects.open_binary
    monkeypatch.setattr(files, "upload", lambda path, uri: (sent.append(uri), upload(path, uri))[1])
    monkeypatch.setattr(objects, "open_binary", lambda uri: (fetched.append(uri), open_binary(uri))[1])
    flags = {"extractor": weighed.NAME, "weights": path, "min_word_count": 1, "max_caption_length": 16}
    for _ in range(2):
        commands.features(coco_dir=str(coco_dir), output=at["features"], **flags)
    pathlib.Path(path).unlink()
    for _ in range(2):
        train(at["features"], at["job"], epochs=1)
    ours = [[uri for uri in uris if "/extractor/" in uri] for uris in (sent, fetched)]
    name = ours[1][0].removeprefix(f"{at['features']}/")
    assert ours == [[f"{at['features']}/{name}", f"{at['job']}/export/{name}"], [f"{at['features']}/{name}"] * 2], (
        "by workers, and the trainer"
    )
    flags = {"images": [f"{coco_dir}/val2017"], "model": f"{at['job']}/export"}
    for output in ("one", "two"):
        assert commands.caption(output=str(tmp_path / output), **flags)["records"] == 8
    assert len([uri for uri in fetched if "/extractor/" in uri]) == 2, "workers have them by digest, wherever they lie"
