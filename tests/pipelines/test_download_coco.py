"""The command that downloads COCO, from a server of the tests that publishes a tiny one."""

import io
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import zipfile

import pytest

from pipelines import download_coco
from pipelines.settings.features import Data
from pipelines.training_records.source import source_of
from tests.support import ROOT, commands
from tests.support.listing import listed
from tests.support.processes import finish, wait_for
from tests.support.publisher import Published, Publisher, Turn, packed, publishing
from tfrecords_schema import machine
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import faults

ANNOTATIONS = "/annotations/annotations_trainval2017.zip"


@pytest.fixture
def server(coco_dir, monkeypatch):
    """COCO 2017 and 2014, of the same drawn images."""
    for name in ("_FIRST_S", "_LONGEST_S", "_JITTER_S"):
        monkeypatch.setattr(faults, name, 0.001)
    faults.forget()
    with publishing() as server:
        for year in ("2017", "2014"):
            captions = {"annotations/instances_val2017.json": b"[]"}
            for split in ("train", "val", "test"):
                images = sorted((coco_dir / f"{'val' if split == 'test' else split}2017").iterdir())
                members = {f"{split}{year}/{path.name}": path.read_bytes() for path in images}
                server.files[f"/zips/{split}{year}.zip"] = Published(packed(members))
                if split != "test":
                    data = (coco_dir / f"annotations/captions_{split}2017.json").read_bytes()
                    captions[f"annotations/captions_{split}{year}.json"] = data
            server.files[f"/annotations/annotations_trainval{year}.zip"] = Published(deflated(captions))
            info = json.dumps({"images": [{"id": 1, "file_name": "x.jpg"}]}).encode()
            members = {f"annotations/image_info_test{year}.json": info, "annotations/image_info_test-dev2017.json": b""}
            server.files[f"/annotations/image_info_test{year}.zip"] = Published(packed(members))
        yield server


def deflated(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def download(server: Publisher, output: pathlib.Path, **flags) -> None:
    commands.download_coco(output=str(output), base_url=server.url, **flags)


def start(server: Publisher, output: pathlib.Path, *flags: str) -> subprocess.Popen:
    given = ["--output", str(output), "--base_url", server.url, *flags]
    command = [sys.executable, "-m", "pipelines.download_coco", *given]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def names(directory: pathlib.Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


WHOLE = {
    *(".download.lock", "train2017.zip", "val2017.zip", "annotations_trainval2017.zip"),
    *("annotations/captions_train2017.json", "annotations/captions_val2017.json"),
}


@pytest.mark.parametrize("year", ["2017", "2014"])
def test_what_comes_is_what_coco_dir_takes(server, coco_dir, tmp_path, capsys, year):
    output = tmp_path / "my coco"
    download(server, output, year=year)
    assert names(output) == {name.replace("2017", year) for name in WHOLE}
    for split in ("train", "val"):
        assert (output / f"{split}{year}.zip").read_bytes() == server.files[f"/zips/{split}{year}.zip"].data
        captions = (output / f"annotations/captions_{split}{year}.json").read_bytes()
        assert captions == (coco_dir / f"annotations/captions_{split}2017.json").read_bytes()
    items = listed(source_of(Data(coco_dir=str(output), year=year), 1000))
    assert len(items) == 32 and all(item.version and not item.problem for item in items)
    told = capsys.readouterr().out
    size = sum(len(server.files[sent.path].data) for sent in server.log)
    assert f"{size / 1e9:.2f} GB to download, " in told and f" free in {output}" in told
    given = f"--coco_dir '{output}' --year {year} --output '{output}-features'"
    assert f"\noutput      COCO {year} (train, val) in {output}\n" in told
    assert told.endswith(f"\nnext        python -m pipelines.features {given}\n")


def test_a_second_run_has_nothing_to_do(server, tmp_path, capsys):
    download(server, tmp_path)
    (tmp_path / "annotations_trainval2017.zip").unlink()  # all that was wanted of it is unpacked
    capsys.readouterr(), server.log.clear()
    server.shutdown()  # nobody is asked
    download(server, tmp_path)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"output      COCO 2017 (train, val) in {tmp_path}; nothing was missing"
    assert told[1].startswith("next        python -m pipelines.features ")
    assert len(told) == 2 and not server.log


def test_what_is_lost_comes_again_and_nothing_else(server, tmp_path):
    download(server, tmp_path)
    server.log.clear()
    (tmp_path / "annotations/captions_val2017.json").unlink()
    download(server, tmp_path)
    assert not server.log and names(tmp_path) == WHOLE
    (tmp_path / "val2017.zip").unlink()
    download(server, tmp_path)
    assert [sent.path for sent in server.log] == ["/zips/val2017.zip"] and names(tmp_path) == WHOLE


def test_one_split_and_the_test_images(server, tmp_path, capsys):
    download(server, tmp_path / "a", splits=("val",))
    assert names(tmp_path / "a") == WHOLE - {"train2017.zip", "annotations/captions_train2017.json"}
    assert "--val_fraction 0.05 --output" in capsys.readouterr().out
    items = listed(source_of(Data(coco_dir=str(tmp_path / "a"), val_fraction=0.05), 1000))
    assert len(items) == 8 and not any(item.problem for item in items)
    download(server, tmp_path / "b", splits=("test",))
    kept = {".download.lock", "test2017.zip", "image_info_test2017.zip", "annotations/image_info_test2017.json"}
    assert names(tmp_path / "b") == kept
    given = f"--images {tmp_path}/b/annotations/image_info_test2017.json --root {tmp_path}/b/test2017.zip"
    assert f"python -m pipelines.caption {given} --model EXPORT" in capsys.readouterr().out


def test_killed_in_the_middle_no_byte_comes_twice(server, tmp_path):
    """SIGKILL, three times; the server's log has each byte of each file once."""
    size = len(server.files["/zips/train2017.zip"].data)
    stop = threading.Event()
    every = [size // 3, size // 2, size - 1]
    for before, at in zip([0, *every], every, strict=False):
        server.turns.extend([Turn(), Turn()] if not before else [])  # the annotations and val2017.zip
        server.turns.append(Turn(most=at - before, then=lambda: stop.wait(60)))
        process = start(server, tmp_path)
        part = tmp_path / "train2017.zip.part"
        wait_for(process, lambda part=part, at=at: part.exists() and part.stat().st_size == at, timeout_s=60)
        process.kill()
        process.communicate()
        assert not (tmp_path / "train2017.zip").exists()
    stop.set()
    told = finish(start(server, tmp_path))
    assert re.search(r"  train2017\.zip +0\.00 GB, 0\.00 GB of it here\n", told)
    assert names(tmp_path) == WHOLE
    for path in ("/zips/train2017.zip", "/zips/val2017.zip", ANNOTATIONS):
        sent = [one for one in server.log if one.path == path]
        assert [one.start for one in sent] == ([0, *every] if path.endswith("train2017.zip") else [0])
        assert sum(one.count for one in sent) == len(server.files[path].data)
        assert (tmp_path / path.rpartition("/")[2]).read_bytes() == server.files[path].data


def test_ctrl_c_is_one_line(server, tmp_path):
    stop = threading.Event()
    server.turns.append(Turn(most=100, then=lambda: stop.wait(60)))
    process = start(server, tmp_path)
    part = tmp_path / "annotations_trainval2017.zip.part"
    wait_for(process, lambda: part.exists() and part.stat().st_size == 100, timeout_s=60)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    stop.set()
    assert process.returncode == 130
    assert stderr.strip() == "error: interrupted; what is finished is kept; run the same command to continue"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"<!DOCTYPE html>\n<title>Sign in</title>", r"38 bytes that begin with '<!DOCTYPE html>\\n<title>Sign in"),
        (b"", "0 bytes that begin with ''"),
        (packed({"x.jpg": b"x" * 1000})[:-30], r"1,078 bytes that begin with 'PK.*File is not a zip file"),
    ],
)
def test_what_is_no_zip_file_is_told_and_not_kept(server, tmp_path, data, found):
    server.files["/zips/val2017.zip"].data = data
    with pytest.raises(InputError, match=f"^{server.url}/zips/val2017.zip: expected a zip file, found {found}"):
        download(server, tmp_path)
    assert names(tmp_path) == {".download.lock", "annotations_trainval2017.zip", "train2017.zip.part.json"}


def test_a_broken_zip_that_is_there_already_is_told(server, tmp_path):
    (tmp_path / "val2017.zip").write_text("half of it")
    with pytest.raises(
        InputError, match=r"^--output: .*/val2017.zip: expected a zip file, found 10 bytes.*; delete it"
    ):
        download(server, tmp_path)
    assert not server.heads


def test_no_room_is_told_before_anything_comes(server, tmp_path, capsys):
    server.head_length = str(10**17)
    with pytest.raises(
        InputError, match=rf"^--output: expected 300{',000' * 5} bytes free in {tmp_path}, found [\d,]+; free"
    ):
        download(server, tmp_path)
    assert not server.log and "300,000,000.00 GB to download" in capsys.readouterr().out


def test_two_at_once_are_kept_apart(server, tmp_path):
    with (
        machine.hold(str(tmp_path / ".download.lock"), "busy"),
        pytest.raises(InputError, match=r"^--output: another download to .* is running; wait for it"),
    ):
        download(server, tmp_path)
    assert not server.heads


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--output gs://bucket/coco", "--output: expected a local directory, found gs://bucket/coco; download here"),
        ("--output {tmp} --base_url ftp://x", "--base_url: expected http://… or https://…, found ftp://x"),
        (
            "--output {tmp} --base_url http://127.0.0.1:1",
            "--base_url: expected a file at http://127.0.0.1:1/annotations",
        ),
        (
            "--output {tmp} --base_url {url}/none",
            "--base_url: expected a file at {url}/none/annotations/annotations_train",
        ),
        ("--output {tmp} --year 2015", "--year: expected one of 2014, 2017, found 2015"),
        ("--output {tmp} --splits dev", "--splits: expected one of train, val, test, found dev"),
        ("--output /proc/none", "--output: expected a directory that can be written to, found /proc/none: "),
    ],
)
def test_mistakes_are_told_in_one_line(server, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        download_coco.main(flags.format(tmp=tmp_path, url=server.url).split())
    told = capsys.readouterr().err
    assert end.value.code == 2 and told.count("\n") == 1 and told.startswith(f"error: {message.format(url=server.url)}")


def huge(name: str) -> bytes:
    """A zip file whose directory says that its member has 3 GiB."""
    data = bytearray(deflated({name: b"{}"}))
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = (3 << 30).to_bytes(4, "little")
    return bytes(data)


CAPTIONS = "annotations/captions_train2017.json"


@pytest.mark.parametrize(
    ("archive", "found"),
    [
        (packed({"other.json": b"{}"}), "expected annotations/captions_train2017.json in it, found Absent"),
        (huge(CAPTIONS), "expected captions files of at most 1,073,741,824 bytes, found 3,221,225,472"),
        (packed({CAPTIONS: b"[1234]"}).replace(b"[1234]", b"[5678]"), "found DamagedMember: .*CRC-32"),
    ],
)
def test_captions_that_cannot_be_unpacked_are_told(server, tmp_path, archive, found):
    server.files[ANNOTATIONS].data = archive
    with pytest.raises(InputError, match=rf"^{tmp_path}/annotations_trainval2017.zip: .*{found}"):
        download(server, tmp_path)
    assert not list((tmp_path).rglob("captions*"))


def test_members_with_ways_out_of_the_directory_are_never_unpacked(server, tmp_path):
    members = {"annotations/../../evil.json": b"x", "/etc/evil.json": b"x", CAPTIONS: b"{}"}
    members["annotations/captions_val2017.json"] = b"{}"
    server.files[ANNOTATIONS].data = packed(members)
    download(server, tmp_path / "coco")
    assert names(tmp_path) == {f"coco/{name}" for name in WHOLE}
