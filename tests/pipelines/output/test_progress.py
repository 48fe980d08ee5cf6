"""What a person sees while nothing is counted yet: what is being done, and for how long."""

import contextlib
import os
import pty
import re
import sys
import termios
import threading
import time

import pytest

from pipelines.output import progress
from pipelines.output.progress import LISTING, LOADING, STARTING, Watch, WorkerProgress, waiting
from pipelines.sources.captioned_images import CaptionedImages
from pipelines.training_records.records import RecordMaker
from tfrecords_schema.storage import finding


@pytest.fixture
def often(monkeypatch):
    """Tells twenty times a second."""
    for period in ("_PLAIN_PERIOD_S", "_TERMINAL_PERIOD_S"):
        monkeypatch.setattr(progress, period, 0.05)


@contextlib.contextmanager
def terminal(monkeypatch):
    """stderr on a terminal, within the block; yields what will have been written to it afterwards, as bytes."""
    reader, writer = pty.openpty()
    termios.tcsetwinsize(writer, (40, 120))
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # when the other end is closed
            while True:
                shown.extend(os.read(reader, 1000))

    thread = threading.Thread(target=read)
    thread.start()
    with monkeypatch.context() as patch, os.fdopen(writer, "w") as stream:
        patch.setattr(sys, "stderr", stream)
        yield shown
    thread.join()
    os.close(reader)


def test_what_is_waited_for_is_a_line_now_and_then(often, capsys):
    with waiting("listing the images"):
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2 and all(re.fullmatch(r"listing the images, \d s", line) for line in lines)


def test_what_is_waited_for_leaves_a_terminal_as_it_was(often, monkeypatch):
    with terminal(monkeypatch) as written, waiting("listing the images"):
        time.sleep(0.3)
    *shown, blank, rest = written.decode().split("\r")
    assert len(shown) >= 2 and all(re.fullmatch(r"listing the images, \d s", line) for line in shown)
    assert not blank.strip() and len(blank) > len(shown[0]) and not rest


def test_a_quick_thing_is_not_told(capsys):
    with waiting("listing the images"):
        pass
    assert capsys.readouterr().err == ""


def making(directory):
    """A shard in the making, by a worker that starts, loads and counts, each long enough to be seen."""
    (directory / ".work").mkdir()
    with Watch(str(directory), 30):
        time.sleep(0.3)
        worker = WorkerProgress(str(directory))
        with worker.shard() as shard:
            with shard.doing(LOADING):
                time.sleep(0.3)
            time.sleep(0.3)
            for records in (10, 11, 12):
                time.sleep(progress._WRITE_PERIOD_S)
                shard.show(records, 1)
            time.sleep(0.3)


def test_nothing_is_listed_now_and_then_but_a_file_of_each_worker(often, tmp_path, monkeypatch):
    """Of a hundred thousand shards the names would be read twice a second."""
    names, asked = finding.names, []
    monkeypatch.setattr(finding, "names", lambda directory: asked.append(directory) or names(directory))
    making(tmp_path)
    assert len(asked) > 5 and set(asked) == {f"{tmp_path}/.work/progress"}
    assert len(names(asked[0])) == 1


STEPS = [STARTING, LOADING, "working"]


def test_each_step_before_the_first_image_is_told(often, tmp_path, capsys):
    making(tmp_path)
    lines = capsys.readouterr().err.splitlines()
    before = [line for line in lines if line.startswith("0/30")]
    told = [re.fullmatch(r"0/30 images, (.*), \d s", line)[1] for line in before]
    assert list(dict.fromkeys(told)) == STEPS
    assert re.fullmatch(r"13/30 images, [\d.]+ images/s, 1 reject, \d+ s left", lines[-1])


def test_each_step_before_the_first_image_is_told_on_a_terminal(often, tmp_path, monkeypatch):
    with terminal(monkeypatch) as written:
        making(tmp_path)
    shown = written.decode()
    places = [shown.index(f"0/30 [00:00<?, ? images/s, {step}, ") for step in STEPS]
    assert places == sorted(places) and "1 reject" in shown


def test_a_run_tells_what_takes_the_time(often, make_features, monkeypatch, capsys):
    list_into, load = CaptionedImages.list_into, RecordMaker.load
    monkeypatch.setattr(CaptionedImages, "list_into", lambda self, into: (time.sleep(0.3), list_into(self, into))[1])
    monkeypatch.setattr(RecordMaker, "load", lambda self: (time.sleep(0.3), load(self))[1])
    make_features()
    lines = capsys.readouterr().err.splitlines()
    for begin in (LISTING, f"0/32 images, {LOADING}"):
        assert any(line.startswith(f"{begin}, ") for line in lines)
