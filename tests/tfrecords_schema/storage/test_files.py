"""Files that are none: a pipe is not waited on, a device not read, a link to where a lock is to be not followed."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.support import ROOT
from tfrecords_schema import machine
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import files


@pytest.fixture
def in_time():
    """Ends what waits for ever."""

    def too_late(*_):
        raise AssertionError("still waiting")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return str(tmp_path / "pipe")


@pytest.mark.parametrize("read", [files.open_binary, files.read_bytes, files.read_text, files.read_if_there])
def test_a_pipe_is_refused_at_once(pipe, in_time, read):
    with pytest.raises(OSError, match=f"a pipe or a device, not a file: {pipe!r}"):
        read(pipe)


def test_a_pipe_that_the_user_gives_is_told_with_its_flag(pipe, in_time):
    with pytest.raises(InputError, match=f"^--captions: {pipe}: expected a file that can be read, found: .* a pipe or"):
        files.read_input("--captions", pipe)


def test_devices_and_sockets_are_refused(tmp_path, in_time):
    with pytest.raises(OSError, match="a pipe or a device, not a file"):
        files.open_binary("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match="No such device"):
            files.read_bytes(str(tmp_path / "socket"))


def test_files_and_directories_are_what_they_were(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.read_bytes(str(tmp_path / "a")) == b"abc"
    with pytest.raises(IsADirectoryError):
        files.read_bytes(str(tmp_path))
    assert files.read_text(str(tmp_path / "a/b")) is None


def test_a_lock_is_made_at_its_place_alone(tmp_path, pipe, in_time):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        machine.hold(str(tmp_path / "lock"), "busy")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(OSError, match="No such device"):
        machine.hold(pipe, "busy")


def of_a_terabyte(path, begins: bytes) -> str:
    """Nothing but holes, which read as zeros, take no room."""
    with open(path, "wb") as file:
        file.write(begins)
        file.truncate(1 << 40)
    return str(path)


_IN_LITTLE_MEMORY = """
import resource, sys
from tfrecords_schema.errors import InputError
from tfrecords_schema.storage import files

virtual = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (virtual + (1 << 30),) * 2)
try:
    if sys.argv[1] == "line":
        with files.open_text(sys.argv[2]) as lines:
            print(repr(next(lines)))
            next(lines)
    else:
        files.read_input("--references", sys.argv[2])
except (InputError, ValueError) as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("line", "'image,caption\\n'\na line of more than 67,108,864 letters\n"),
        ("whole", "--references: {}: expected at most 1,073,741,824 bytes, found 1,099,511,627,776\n"),
    ],
)
def test_a_file_without_end_is_refused_within_a_gigabyte(tmp_path, how, told):
    path = of_a_terabyte(tmp_path / "x", b"image,caption\n")
    command = [sys.executable, "-c", _IN_LITTLE_MEMORY, how, path]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (found.stdout, found.stderr[-300:]) == (told.format(path), "")
