"""One file from a server that cuts, forgets, changes its mind and lies."""

import contextlib
import json
import os
import random
import re
import resource
import threading

import pytest

from pipelines.downloads import progress as progress_
from pipelines.downloads import web
from pipelines.downloads.progress import Progress
from pipelines.downloads.resumable import Download
from tests.support.publisher import Published, Turn, publishing
from tfrecords_schema.errors import InputError, RunError
from tfrecords_schema.storage import faults

SIZE = 400_000
DATA = random.Random(7).randbytes(SIZE)
OTHER = random.Random(8).randbytes(SIZE)


@pytest.fixture
def server(monkeypatch):
    for name in ("_FIRST_S", "_LONGEST_S", "_JITTER_S"):
        monkeypatch.setattr(faults, name, 0.001)
    faults.forget()
    with publishing() as server:
        server.files["/x.zip"] = Published(DATA)
        yield server


def begin(server, tmp_path) -> Download:
    return Download(web.look(f"{server.url}/x.zip"), str(tmp_path / "x.zip"))


def fetch(server, tmp_path, check=lambda path: None) -> bytes:
    """The file; nothing else may be left."""
    download = begin(server, tmp_path)
    with Progress(download.remote.bytes, download.have) as progress:
        download.run(progress, check)
    assert os.listdir(tmp_path) == ["x.zip"]
    return (tmp_path / "x.zip").read_bytes()


def left(tmp_path, data: bytes, **remote) -> None:
    """What a download that was killed leaves."""
    (tmp_path / "x.zip.part").write_bytes(data)
    (tmp_path / "x.zip.part.json").write_text(json.dumps(remote))


def stopped(server, tmp_path, most: int) -> None:
    """Leaves so many bytes of the file, as a kill would."""
    server.turns.append(Turn(most=most))
    server.turns.extend([Turn(status=403)])
    with pytest.raises(RunError):
        fetch(server, tmp_path)
    assert (tmp_path / "x.zip.part").read_bytes() == server.files["/x.zip"].data[:most]
    server.log.clear()


def test_a_whole_file_in_one_answer(server, tmp_path):
    assert fetch(server, tmp_path) == DATA
    (sent,) = server.log
    assert (sent.start, sent.count, server.heads) == (0, SIZE, 1) and "Range" not in sent.asked


def test_cut_answers_go_on_and_no_byte_comes_twice(server, tmp_path):
    cuts = random.Random(1)
    server.turns.extend(Turn(most=cuts.randrange(1, 60_000)) for _ in range(6))
    assert fetch(server, tmp_path) == DATA
    assert len(server.log) == 7 and sum(sent.count for sent in server.log) == SIZE
    for before, sent in zip(server.log, server.log[1:], strict=False):
        assert sent.start == before.start + before.count and sent.asked["If-Range"] == '"one"'


def test_reset_connections_and_busy_answers_are_asked_again(server, tmp_path):
    server.turns.extend([Turn(status=503), Turn(most=50_000, reset=True), Turn(status=429), Turn(most=0), Turn()])
    assert fetch(server, tmp_path) == DATA and len(server.log) == 5


def test_parts_in_chunks_are_taken_and_cut_too(server, tmp_path):
    """As some proxies send them: the part is told, and not its length."""
    server.turns.extend([Turn(most=1000), Turn(most=100_000, chunked=True), Turn(chunked=True)])
    assert fetch(server, tmp_path) == DATA
    assert [(sent.status, sent.start) for sent in server.log] == [(200, 0), (206, 1000), (206, 101_000)]


def test_a_server_that_falls_silent_is_asked_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(web, "_SILENCE_S", 0.2)
    gone_on = threading.Event()
    server.turns.append(Turn(most=100_000, then=lambda: gone_on.wait(20)))
    server.turns.append(Turn(then=gone_on.set))
    assert fetch(server, tmp_path) == DATA and [sent.start for sent in server.log] == [0, 100_000]


def test_a_proxy_is_taken_from_the_environment(server, tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    server.files["http://coco.invalid/x.zip"] = Published(OTHER)
    assert web.look("http://coco.invalid/x.zip").bytes == SIZE


def test_a_cut_after_many_bytes_is_the_first_again(server, tmp_path):
    """Else a long download over a bad line would come to its end too early."""
    server.files["/x.zip"].data = data = random.Random(9).randbytes(1_500_000)
    server.turns.extend(Turn(most=70_000) for _ in range(20))
    assert fetch(server, tmp_path) == data and len(server.log) == 21


@pytest.mark.parametrize("at", [0, 1, 65_536, 399_999, SIZE])
def test_stopped_at_any_byte_it_goes_on_from_there(server, tmp_path, at):
    left(tmp_path, DATA[:at], url=f"{server.url}/x.zip", bytes=SIZE, validator='"one"')
    assert fetch(server, tmp_path) == DATA
    assert [(sent.start, sent.count) for sent in server.log] == [(at, SIZE - at)] * (at < SIZE)


@pytest.mark.parametrize(
    "change", [{"validator": '"two"'}, {"bytes": SIZE + 1}, {"url": "http://elsewhere/x.zip"}, {"validator": 3}]
)
def test_what_is_of_another_file_is_not_built_upon(server, tmp_path, change):
    told = {"url": f"{server.url}/x.zip", "bytes": SIZE, "validator": '"one"', **change}
    left(tmp_path, OTHER[:1000], **told)
    assert fetch(server, tmp_path) == DATA and server.log[0].start == 0


@pytest.mark.parametrize("other", [OTHER, OTHER[:150_000], OTHER * 2])
def test_a_file_that_changes_between_two_answers_begins_anew(server, tmp_path, capsys, other):
    download = begin(server, tmp_path)
    changed = Published(other, {"ETag": '"two"'})
    server.turns.append(Turn(most=200_000, then=lambda: server.files.update({"/x.zip": changed})))
    with Progress(SIZE, 0) as progress:
        download.run(progress, lambda path: None)
    assert (tmp_path / "x.zip").read_bytes() == other
    assert capsys.readouterr().err == "x.zip: the server cannot continue where the download stopped; starting again\n"
    assert progress._came + progress._have == progress._total == len(other)


@pytest.mark.parametrize("other", [OTHER[:150_000], OTHER + b"more"])
def test_a_server_without_if_range_is_seen_through(server, tmp_path, other):
    """It goes on with another file: by 416, or by a Content-Range of another length."""
    stopped(server, tmp_path, 200_000)
    download = begin(server, tmp_path)
    server.files["/x.zip"] = Published(other)
    server.turns.append(Turn(if_range=False))
    with Progress(SIZE, download.have) as progress:
        download.run(progress, lambda path: None)
    assert (tmp_path / "x.zip").read_bytes() == other
    assert [sent.status for sent in server.log] == [416 if len(other) < SIZE else 206, 200]


def test_another_part_than_was_asked_for_is_not_taken(server, tmp_path):
    stopped(server, tmp_path, 1000)
    server.turns.append(Turn(headers={"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"}))
    assert fetch(server, tmp_path) == DATA and [sent.status for sent in server.log] == [206, 200]


def test_a_server_without_ranges_begins_anew_each_time(server, tmp_path):
    server.turns.extend(Turn(most=most, ranges=False) for most in (200_000, 100_000, SIZE))
    assert fetch(server, tmp_path) == DATA and [sent.start for sent in server.log] == [0, 0, 0]


def test_a_server_that_always_cuts_at_the_same_byte_is_given_up(server, tmp_path):
    server.every = Turn(most=200_000, ranges=False)
    with pytest.raises(
        RunError, match=r"expected 400,000 bytes, found 200,000 of them, then: the answer ended 200,000"
    ):
        fetch(server, tmp_path)
    assert 10 <= len(server.log) <= 12


@pytest.mark.parametrize("marks", [{}, {"ETag": 'W/"one"'}])
def test_without_a_mark_of_its_content_nothing_is_built_upon(server, tmp_path, marks):
    server.files["/x.zip"].marks = marks
    server.turns.append(Turn(most=200_000))
    assert fetch(server, tmp_path) == DATA
    assert [(sent.start, sent.asked.get("Range")) for sent in server.log] == [(0, None), (0, None)]


def test_without_a_mark_even_all_bytes_come_again(server, tmp_path):
    server.files["/x.zip"].marks = {}
    left(tmp_path, OTHER, url=f"{server.url}/x.zip", bytes=SIZE, validator="")
    assert fetch(server, tmp_path) == DATA


def test_the_time_of_the_last_change_is_a_mark_too(server, tmp_path):
    server.files["/x.zip"].marks = {"ETag": 'W/"1"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    server.turns.append(Turn(most=200_000))
    assert fetch(server, tmp_path) == DATA and server.log[1].asked["If-Range"].startswith("Wed, 21 Oct")
    assert server.log[1].start == 200_000


def test_a_length_that_never_comes_is_told(server, tmp_path):
    server.every = Turn(headers={"Content-Length": "500000"})
    with pytest.raises(
        RunError, match=r"x.zip: expected 500,000 bytes, found 400,000 of them, then: .*the same command"
    ):
        fetch(server, tmp_path)


@pytest.mark.parametrize(
    "headers", [{"Content-Length": "-1"}, {"Content-Length": "many"}, {"Content-Encoding": "gzip"}]
)
def test_a_file_of_no_known_size_is_refused(server, headers):
    server.every = Turn(headers=headers)
    with pytest.raises(OSError, match=r"^expected a Content-Length of a file as it is, found "):
        web.look(f"{server.url}/x.zip")


def test_nobody_there_and_nothing_there(server):
    with pytest.raises(web.UnansweredError, match="refused"):
        web.look("http://127.0.0.1:1/x.zip")
    with pytest.raises(OSError, match="HTTP Error 404"):
        web.look(f"{server.url}/y.zip")
    with pytest.raises(OSError, match="no answer in HTTP"):
        web.look("http://127.0.0.1:port/x.zip")


def test_who_cannot_be_connected_to_is_asked_for_a_moment_and_who_is_busy_for_longer(server, monkeypatch):
    asked, ask = [], web.ask
    monkeypatch.setattr(web, "ask", lambda *given: asked.append(given[1]) or ask(*given))
    monkeypatch.setattr(faults, "_ACQUAINTANCE_S", 0)
    server.busy = 9
    for url, times in (("http://127.0.0.1:1/x.zip", 1), (f"{server.url}/x.zip", 10)):
        asked.clear()
        with contextlib.suppress(web.UnansweredError):
            web.look(url)
        assert asked == [url] * times


def test_redirects_are_followed_to_web_servers_only(server, tmp_path):
    with publishing() as first:
        first.redirect = server.url
        server.turns.append(Turn(most=200_000))
        assert fetch(first, tmp_path) == DATA and [sent.start for sent in server.log] == [0, 200_000]
        assert server.heads == 1 and not first.log
        for elsewhere in ("ftp://127.0.0.1", "file:///etc"):
            first.redirect = elsewhere
            with pytest.raises(OSError, match=r"unknown url type: ftp|Redirection to url 'file:"):
                web.look(f"{first.url}/x.zip")


def test_what_lies_there_and_is_not_ours_is_left_alone(server, tmp_path):
    part, told = tmp_path / "x.zip.part", tmp_path / "x.zip.part.json"
    part.write_bytes(b"another program's")
    with pytest.raises(InputError, match=r"x.zip.part: expected x.zip.part.json beside it, .*; delete it"):
        begin(server, tmp_path)
    assert part.read_bytes() == b"another program's"
    part.unlink()
    (tmp_path / "theirs").write_text("theirs")
    part.symlink_to(tmp_path / "theirs")
    with pytest.raises(InputError, match=r"x.zip.part: expected a file that an earlier download wrote, found a link"):
        begin(server, tmp_path)
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(
        InputError, match=r"x.zip.part: expected a file that an earlier download wrote, found a link or something else"
    ):
        begin(server, tmp_path)
    part.unlink()
    told.symlink_to(tmp_path / "theirs")
    begin(server, tmp_path)
    assert (tmp_path / "theirs").read_text() == "theirs" and not told.is_symlink()


def test_what_is_not_what_was_wanted_is_not_kept(server, tmp_path):
    def refuse(path):
        assert (tmp_path / "x.zip.part").read_bytes() == DATA
        raise InputError("no")

    with pytest.raises(InputError, match=r"^no$"):
        fetch(server, tmp_path, refuse)
    assert not os.listdir(tmp_path)


def test_a_full_disk_keeps_what_has_come(server, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # bytes of a file; Python has the signal ignored
    try:
        with pytest.raises(
            RunError, match=r"^--output: .*x.zip.part: expected room for 300,000 more bytes, found: File"
        ):
            fetch(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert fetch(server, tmp_path) == DATA and server.log[-1].start == 100_000


def test_off_a_terminal_a_line_now_and_then(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress_, "_PLAIN_PERIOD_S", 0.0)
    with Progress(2_000_000_000, 500_000_000) as progress:
        progress.begin("x.zip")
        progress.came(250_000_000)
        progress.came(-250_000_000)
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"x\.zip: 0\.75 of 2\.00 GB, [\d.]+ MB/s, \d+ s left", first)
    assert second == "x.zip: 0.50 of 2.00 GB, 0.0 MB/s"
