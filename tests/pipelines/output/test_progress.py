"""What a person sees while a run goes on: what takes the time, for how many seconds, then how many images."""

import re
import time

import pytest

from pipelines.output import progress
from pipelines.output.progress import ShardProgress, Watch, telling

SHARD = "captions-00000-of-00001.parquet"


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """An output directory, of which is told twenty times a second."""
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work/options.json").touch()
    monkeypatch.setattr(progress, "_PLAIN_PERIOD_S", 0.05)
    monkeypatch.setattr(progress, "_WRITE_PERIOD_S", 0.0)
    return str(tmp_path)


def wait_for(capsys, expected: str) -> str:
    """All that is told on stderr until a line is as expected."""
    told, until = "", time.monotonic() + 20
    while not re.search(f"^{expected}$", told, re.M):
        assert time.monotonic() < until, told
        time.sleep(0.02)
        told += capsys.readouterr().err
    return told


def test_each_step_before_the_first_image_is_told_with_its_seconds(directory, capsys):
    with Watch(directory, 10):
        wait_for(capsys, r"0/10 images, listing the images, \d+ s")
        with ShardProgress(directory, SHARD) as shard:
            shard.show(0, 0)
            wait_for(capsys, r"0/10 images, reading the first images, \d+ s")
            shard.doing("loading the network")
            wait_for(capsys, "0/10 images, loading the network, 1 s")  # counted anew for each step
            shard.doing("")
            shard.show(2, 1)
            wait_for(capsys, r"3/10 images, 1 rejects")
            shard.show(4, 1)
            wait_for(capsys, r"5/10 images, [\d.]+ images/s, 1 rejects, \d+ s left")


def test_what_the_launcher_does_is_told_where_it_takes_a_while(directory, capsys):
    with telling("listing the images"):
        pass
    assert capsys.readouterr().err == ""
    with telling("listing the images"):
        wait_for(capsys, "listing the images, 1 s")
