"""The end of a command's process, which is not Python's own."""

import os
import subprocess
import sys

import pytest

from tests.support import ROOT

CODE = """
import atexit, sys, threading, time
from tfrecords_schema import ending

class Whole:  # in a circle, as most of TensorFlow's objects are
    def __init__(self):
        self.itself = self
    def __del__(self):
        print("taken apart")

kept = Whole()
atexit.register(print, "at exit")
threading.Thread(target=time.sleep, args=[{sleep}]).start()  # Python would wait for it

def main():
    print("main")
    {how}

ending.program(main)()
"""


def ended(how: str, sleep: int = 60, **given) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", CODE.format(how=how, sleep=sleep)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    given = {"capture_output": True, "timeout": 30} | given
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, **given)


@pytest.mark.parametrize(
    ("how", "status"), [("return", 0), ("sys.exit()", 0), ("sys.exit(3)", 3), ("sys.exit(130)", 130)]
)
def test_the_status_is_mains_and_what_was_registered_is_done(how, status):
    found = ended(how)
    assert (found.returncode, found.stdout, found.stderr) == (status, "main\nat exit\n", "")


def test_what_could_not_be_printed_is_no_success():
    with open("/dev/full", "w") as full:
        assert ended("return", stdout=full, capture_output=False).returncode == 120
        assert ended("sys.exit(2)", stdout=full, capture_output=False).returncode == 2


def test_without_an_open_standard_output():
    """Python has None in its place, and `print` does nothing."""
    assert ended("sys.stdout = None").returncode == 0


@pytest.mark.parametrize(("how", "told"), [("1 / 0", "ZeroDivisionError"), ("sys.exit('told')", "told\n")])
def test_other_ends_are_pythons_own(how, told):
    """With a traceback, or the text that was given."""
    found = ended(how, sleep=0)
    assert found.returncode == 1 and told in found.stderr
    assert found.stdout == "main\nat exit\ntaken apart\n"
