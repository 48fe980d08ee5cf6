"""How TensorFlow is imported: what counts is settled before it is, so each case has a process of its own."""

import os
import subprocess
import sys

import pytest

from tests.support import ROOT

CODE = """
import gc, os
from tfrecords_schema.quiet import import_tensorflow
collected = []
gc.callbacks.append(lambda phase, info: collected.append(phase))
import_tensorflow()
assert len(collected) < 20 and gc.isenabled()  # else 1,700 times
from tensorflow.python.util import _pywrap_util_port
print(os.environ["TF_ENABLE_ONEDNN_OPTS"], _pywrap_util_port.IsMklEnabled())
"""


@pytest.mark.parametrize(
    ("given", "expected"), [(None, "1 True"), pytest.param("0", "0 False", marks=pytest.mark.slow)]
)
def test_onednn_is_on_unless_it_is_switched_off_and_nothing_is_said_of_it(given, expected):
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    environment |= {"TF_ENABLE_ONEDNN_OPTS": given} if given else {}
    command = [sys.executable, "-c", CODE]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert (found.stdout.strip(), found.stderr) == (expected, "")


THREADS = """
import threading
from tfrecords_schema.quiet import import_tensorflow
found = []
def use():
    found.append(import_tensorflow().config.list_physical_devices())
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(found))
"""


def test_threads_that_need_it_at_once_all_get_the_whole_module():
    """As in the workers of engines: the module of an import under way has no `config` yet."""
    command = [sys.executable, "-c", THREADS]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (found.stdout.strip(), found.stderr) == ("8", "")
